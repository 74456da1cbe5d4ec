"""What the FHIR read side gives out, by three R4 4.0.1 validators of different makers."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from cds_service.app import create_app
from dermoscopy.domain import TriageTier, Verdict
from monitoring.health import Readiness
from tests.findings import SYSTEM, make_node
from tests.unit.cds_service.api.fhir_results import amended, reported

pytestmark = pytest.mark.peers


def test_capabilities_searchsets_and_every_resource_are_valid_r4(engine: sa.Engine, tmp_path: Path, validate_r4):
    node = make_node(engine, tmp_path / "data", hooks_open=True)
    verdicts = {TriageTier.URGENT: Verdict.CORRECTED, TriageTier.MONITOR: Verdict.UNUSABLE}
    for tier in (TriageTier.URGENT, TriageTier.UNDETERMINED, TriageTier.MONITOR):
        analysis = reported(node, tier, name=tier.value)
        if tier in verdicts:
            amended(node, analysis, verdicts[tier])
    client = TestClient(create_app(node, lambda: Readiness(True, ())), base_url="http://127.0.0.1:8600")
    promised = client.get("/fhir/metadata").json()
    assert validate_r4(promised) == []
    assert validate_r4({**promised, "fhirVersion": "4"})  # the validators do mind
    for one in promised["rest"][0]["resource"]:
        answer = client.get(f"/fhir/{one['type']}", params={"_count": "100"}).json()
        assert validate_r4(answer) == []
        assert answer["entry"]
        for entry in answer["entry"]:
            assert validate_r4(entry["resource"]) == []
    wanted = {"patient:identifier": f"{SYSTEM}|TEST-0042", "_include": "DiagnosticReport:result", "_count": "1"}
    page = client.post("/fhir/DiagnosticReport/_search", data=wanted).json()
    assert {link["relation"] for link in page["link"]} == {"self", "next"}
    assert validate_r4(page) == []
    assert validate_r4(client.get("/fhir/Observation", params={"_summary": "count"}).json()) == []
    assert validate_r4(client.get("/fhir/Observation", params={"_sort": "date"}).json()) == []
