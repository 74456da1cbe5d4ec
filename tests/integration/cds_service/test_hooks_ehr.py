"""A CDS call without prefetch: the patient is read from a real FHIR server with the token of the call."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from audit.tables import AuditLeaf
from tests.findings import fhir_patient, stored_analysis
from tests.integration.cds_service.conftest import ADMIN, LiveApplication, live_application
from tests.peers.fhir_server import FhirServer, fhir_server
from tests.peers.fixtures import unavailable
from tests.peers.processes import MissingPeer

pytestmark = pytest.mark.peers
TOKEN = "token-of-this-one-call"


@pytest.fixture
def locked_ehr(tmp_path: Path) -> Iterator[FhirServer]:
    """A FHIR server that answers nobody without the token."""
    try:
        with fhir_server(tmp_path, token=TOKEN) as server:
            yield server
    except MissingPeer as missing:
        unavailable(missing)


@pytest.fixture
def live(engine: sa.Engine, tmp_path: Path, locked_ehr: FhirServer) -> Iterator[LiveApplication]:
    with live_application(engine, tmp_path / "data", hooks_fhir_servers=(locked_ehr.url,)) as running:
        yield running


def call(live: LiveApplication, ehr: FhirServer, patient: str, token: str = TOKEN) -> httpx.Response:
    access = {"access_token": token, "token_type": "Bearer", "expires_in": 60, "scope": "user/*.rs", "subject": "cds"}
    body: dict[str, Any] = {
        "hook": "patient-view",
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "fhirServer": ehr.url,
        "fhirAuthorization": access,
        "context": {"userId": "Practitioner/1", "patientId": patient},
    }
    headers = {"Authorization": f"Bearer {ADMIN}"}
    return httpx.post(
        f"{live.url}/cds-services/dermoscopy-triage", json=body, headers=headers, trust_env=False, timeout=30
    )


def test_a_call_without_prefetch_gets_the_same_card(live: LiveApplication, locked_ehr: FhirServer) -> None:
    stored_analysis(live.node)
    resource = {name: value for name, value in fhir_patient().items() if name != "id"}
    patient = locked_ehr.post(resource).raise_for_status().json()["id"]
    answer = call(live, locked_ehr, patient)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["cards"]) == 1
    with live.node.begin() as session:
        leaf = session.execute(sa.select(AuditLeaf).where(AuditLeaf.action == "card.shown")).scalar_one()  # type: ignore[arg-type]
    assert json.loads(leaf.details)["fetched"] == ["patient"]
    for path in live.folder.parent.rglob("*sqlite3*"):
        assert TOKEN.encode() not in path.read_bytes()


def test_what_the_server_does_not_give_is_412(live: LiveApplication, locked_ehr: FhirServer) -> None:
    patient = locked_ehr.post({"resourceType": "Patient"}).raise_for_status().json()["id"]
    for answer, says in (
        (call(live, locked_ehr, patient, token="another-token"), "HTTP 401"),
        (call(live, locked_ehr, "3f1b9c62-6f0e-4f55-8d3c-5a1f4bb1a111"), "HTTP 404"),
    ):
        assert answer.status_code == 412
        assert says in answer.json()["issue"][0]["diagnostics"]
    locked_ehr.kill()
    assert call(live, locked_ehr, patient).status_code == 412
    locked_ehr.start()
    assert call(live, locked_ehr, patient).json() == {"cards": []}
