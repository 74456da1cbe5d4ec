"""The live service against the OpenAPI document of CDS Hooks as it was published (1.0, documents 200 only).

The document (https://github.com/cds-hooks/docs, cds-hooks.yaml) carries no licence of its own, so it is no part of this
project: it lies with the other vectors from outside. What 2.0 adds are further members, which it allows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from dermoscopy.domain import TriageTier
from tests.conftest import REPOSITORY
from tests.findings import stored_analysis, take_in
from tests.integration.cds_service.conftest import ADMIN, live_application

SECONDS = 20


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_no_server_error_and_every_200_is_as_published(engine: sa.Engine, tmp_path: Path) -> None:
    data = Path(os.environ.get("CDS_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    document = data.parent / "vectors" / "cds-hooks-openapi-1.0.yaml"
    if not document.is_file():
        pytest.skip(f"no published document: {document} is absent (set CDS_SHARED_DATA to the folder beside it)")
    with live_application(engine, tmp_path / "data", hooks_image_seconds=0.2) as live:
        for tier in TriageTier:
            stored_analysis(live.node, tier, name=tier.value)
        take_in(live.node, name="queued")
        command = [str(Path(sys.executable).parent / "schemathesis"), "run", str(document), "--url", live.url]
        command += ["--header", f"Authorization: Bearer {ADMIN}", "--phases", "examples,coverage,fuzzing"]
        command += ["--checks", "not_a_server_error,response_schema_conformance"]
        command += ["--max-examples", "40", "--max-time", str(SECONDS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 120, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-20_000:]
    assert "Test cases:" in done.stdout, done.stdout
