"""The FHIR server for tests is atomic, keeps its state over a crash, and enforces what real servers enforce."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.peers.fhir_server import FhirServer, fhir_server

pytestmark = pytest.mark.peers

SYSTEM = "urn:example:ids"
PATIENT = {"resourceType": "Patient", "identifier": [{"system": SYSTEM, "value": "p1"}]}


def report(subject: str, status: str = "preliminary", value: str = "r1") -> dict[str, Any]:
    return {
        "resourceType": "DiagnosticReport",
        "identifier": [{"system": SYSTEM, "value": value}],
        "status": status,
        "code": {"text": "Dermoscopy"},
        "subject": {"reference": subject},
    }


def transaction(*entries: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    """A bundle of (method, url, resource); a resource's fullUrl is made of its place: urn:uuid:…0, …1 and so on."""
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"fullUrl": urn(index), "resource": resource, "request": {"method": method, "url": url}}
            for index, (method, url, resource) in enumerate(entries)
        ],
    }


def urn(index: int) -> str:
    return f"urn:uuid:{uuid.UUID(int=index + (4 << 76) + (8 << 60))}"


def upsert(status: str) -> dict[str, Any]:
    """Patient once, report created or amended: what a delivery does."""
    bundle = transaction(
        ("POST", "Patient", PATIENT), ("PUT", f"DiagnosticReport?identifier={SYSTEM}|r1", report(urn(0), status))
    )
    bundle["entry"][0]["request"]["ifNoneExist"] = f"identifier={SYSTEM}|p1"
    return bundle


def test_transaction_rewrites_urns_and_repeating_it_amends_one_report(ehr: FhirServer) -> None:
    first = ehr.post(upsert("preliminary")).raise_for_status().json()
    second = ehr.post(upsert("final")).raise_for_status().json()

    assert [entry["response"]["status"] for entry in first["entry"]] == ["201", "201"]
    assert [entry["response"]["status"] for entry in second["entry"]] == ["200", "200"]
    (patient,) = ehr.search("Patient", identifier=f"{SYSTEM}|p1")
    (stored,) = ehr.search("DiagnosticReport", identifier=f"{SYSTEM}|r1", patient=f"Patient/{patient['id']}")
    assert stored["subject"]["reference"] == f"Patient/{patient['id']}"
    assert (stored["status"], stored["meta"]["versionId"]) == ("final", "2")
    assert ehr.versions(f"DiagnosticReport/{stored['id']}") == 2
    assert ehr.versions(f"Patient/{patient['id']}") == 1
    assert second["entry"][1]["response"]["etag"] == 'W/"2"'


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(("PUT", "DiagnosticReport/x", report(urn(0))), id="id differs from the address"),
        pytest.param(("POST", "DiagnosticReport", report("Patient/nobody")), id="reference to nothing"),
        pytest.param(("POST", "DiagnosticReport", report(f"Patient?identifier={SYSTEM}|none")), id="no match"),
        pytest.param(("POST", "DiagnosticReport", report("urn:uuid:" + "0" * 32)), id="unknown urn"),
        pytest.param(("POST", "Nonsense", {"resourceType": "Nonsense"}), id="no such type"),
    ],
)
def test_failed_transaction_leaves_nothing(
    tmp_path: Path, bad: tuple[str, str, dict[str, Any]], ehr: FhirServer
) -> None:
    answer = ehr.post(transaction(("POST", "Patient", PATIENT), bad))

    assert 400 <= answer.status_code < 500
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert ehr.search("Patient") == []
    assert ehr.journal.read_bytes() == b""


def test_conditional_reference_is_resolved_in_a_transaction_and_refused_outside(ehr: FhirServer) -> None:
    patient = ehr.post(PATIENT).raise_for_status().json()
    conditional = report(f"Patient?identifier={SYSTEM}|p1")

    ehr.post(transaction(("POST", "DiagnosticReport", conditional))).raise_for_status()
    assert ehr.search("DiagnosticReport")[0]["subject"]["reference"] == f"Patient/{patient['id']}"
    assert ehr.post(conditional).status_code == 400

    ehr.post(PATIENT).raise_for_status()
    assert ehr.post(transaction(("POST", "DiagnosticReport", conditional))).status_code == 412


def test_conditional_create_and_update_of_single_resources(ehr: FhirServer) -> None:
    condition = f"identifier={SYSTEM}|p1"
    created = ehr.post(PATIENT, If_None_Exist=condition)
    again = ehr.post(PATIENT, If_None_Exist=condition)
    assert (created.status_code, again.status_code) == (201, 200)
    assert created.json() == again.json()
    reference = f"Patient/{created.json()['id']}"
    assert created.headers["location"].endswith(f"{reference}/_history/1")

    amended = ehr.put(PATIENT | {"active": True}, f"Patient?{condition}")
    assert (amended.status_code, amended.headers["etag"]) == (200, 'W/"2"')
    current = ehr.read(reference)
    stale = ehr.put(current, reference, If_Match='W/"1"')
    assert stale.status_code == 412
    assert ehr.put(current, reference, If_Match='W/"2"').status_code == 200
    assert ehr.versions(reference) == 3

    ehr.post(PATIENT).raise_for_status()
    assert ehr.put(PATIENT, f"Patient?{condition}").status_code == 412


def test_search_by_post_and_missing_resources(ehr: FhirServer) -> None:
    patient = ehr.post(PATIENT).raise_for_status().json()
    form = {"identifier": f"{SYSTEM}|p1", "_id": patient["id"]}
    found = ehr.client.post("/Patient/_search", data=form).json()
    assert found["total"] == 1
    assert ehr.search("Patient", identifier=f"{SYSTEM}|other") == []
    assert ehr.client.get("/Patient/nobody").status_code == 404
    assert ehr.client.delete(f"/Patient/{patient['id']}").status_code == 204
    assert ehr.client.get(f"/Patient/{patient['id']}").status_code == 410
    assert ehr.client.post("/Patient", content="{broken", headers={"Content-Type": "application/fhir+json"}).is_error


def test_state_survives_kill_and_a_half_written_line_is_dropped(ehr: FhirServer) -> None:
    ehr.post(upsert("preliminary")).raise_for_status()
    ehr.kill()
    with ehr.journal.open("a") as journal:
        journal.write(json.dumps([{"resourceType": "Patient", "id": "torn"}])[:-5])
    ehr.start()

    ehr.post(upsert("final")).raise_for_status()
    (stored,) = ehr.search("DiagnosticReport", identifier=f"{SYSTEM}|r1")
    assert ehr.versions(f"DiagnosticReport/{stored['id']}") == 2
    assert len(ehr.search("Patient")) == 1


def test_parallel_deliveries_of_one_report_make_one_report(ehr: FhirServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ehr.post(upsert("preliminary")).status_code, range(16)))
    assert set(answers) == {200}
    (stored,) = ehr.search("DiagnosticReport")
    assert ehr.versions(f"DiagnosticReport/{stored['id']}") == 16
    assert len(ehr.search("Patient")) == 1


def test_token_is_asked_for(tmp_path: Path) -> None:
    with fhir_server(tmp_path, token="sesame") as server:
        assert server.post(PATIENT).status_code == 201
        answer = server.client.get("/Patient", headers={"Authorization": "Bearer wrong"})
        assert answer.status_code == 401
