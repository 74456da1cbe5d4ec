"""The live service against its own OpenAPI document: every answer must be one that the document promises.

Schemathesis runs as a program: its pytest plugin does not work with this pytest. Time-boxed; `SECONDS` is the most.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dermoscopy.domain import TriageTier
from tests.findings import stored_analysis, take_in
from tests.integration.cds_service.conftest import ADMIN, LiveApplication

SECONDS = 30
DEMANDING = (
    "/api/v1/analyze",
    "/api/v1/telemedicine/analyze",
    "/cds-services/{service_id}",
    "/api/v1/analyses/{analysis_id}/reviews",
    "/api/v1/pulls",
    "/api/v1/outcomes",
    *(f"/api/v1/outcomes/{kind}/{{resource_id}}" for kind in ("DiagnosticReport", "Observation", "Condition")),
    "/api/v1/outcomes/{outcome_id}/assign",
)
"""These say no to data that their schema allows: the image must be one, the prefetched patient that of the context,
the outline one that does not cross itself, the PACS to pull from one that the settings name, the resource one that
tells outcomes."""


def run(live: LiveApplication, *arguments: str) -> None:
    """Raises with the report of what was found."""
    program = Path(sys.executable).parent / "schemathesis"
    command = [str(program), "run", f"{live.url}/openapi.json", "--header", f"Authorization: Bearer {ADMIN}"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "6", "--max-time", str(SECONDS), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 150, check=False, cwd=live.folder)
    assert done.returncode == 0, done.stdout[-20_000:]
    assert "Test cases:" in done.stdout, done.stdout


@pytest.fixture
def stocked(live: LiveApplication) -> LiveApplication:
    for tier in TriageTier:
        stored_analysis(live.node, tier, name=tier.value)
    take_in(live.node, name="queued")
    return live


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_every_answer_is_one_that_the_document_promises(stocked: LiveApplication) -> None:
    run(stocked, *(part for path in DEMANDING for part in ("--exclude-path", path)))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_demanding_endpoints_keep_their_promises_too(stocked: LiveApplication) -> None:
    chosen = (part for path in DEMANDING for part in ("--include-path", path))
    run(stocked, *chosen, "--exclude-checks", "positive_data_acceptance")
