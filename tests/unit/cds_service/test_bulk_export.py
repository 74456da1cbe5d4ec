"""Bulk export: the state of one moment, in files that hold everything once, for the next export to go on from."""

from __future__ import annotations

import json
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from sqlmodel import select

from audit.tables import AuditLeaf
from cds_service import bulk_export
from cds_service.bulk_export import BulkExport, Order, lines, read_parts
from dermoscopy.domain import Verdict
from dermoscopy.tables import utc_now
from dermoscopy.workqueue import EXPORT, Work
from fhir_adapters.facade_types import TYPES
from tests.findings import PATIENT
from tests.unit.cds_service.api.fhir_results import amended, reported

ASYNC = {"Prefer": "respond-async"}


class Records:
    """What the engine knows of the exports, run when a test says so."""

    def __init__(self, node):
        self._node = node
        self._results = {}
        self.asked_at = utc_now()

    def find(self, workflow, workflow_id):
        for name, started, *arguments in self._node.queue.started:
            if (name, started) == (workflow, workflow_id):
                result = self._results.get(workflow_id, "")
                return Work("done" if result else "waiting", tuple(arguments), result, self.asked_at)
        return None

    def run(self, workflow_id):
        self._results[workflow_id] = BulkExport(self._node).list_parts(self.find(EXPORT, workflow_id).arguments[0])

    def remove(self, workflow_id):
        self._node.queue.started = [one for one in self._node.queue.started if one[1] != workflow_id]

    def remove_before(self, workflow, moment):
        pass


@pytest.fixture
def records(client, node):
    client.app.state.fhir_exports = Records(node)
    return client.app.state.fhir_exports


def kicked_off(client, **params):
    answer = client.get("/fhir/$export", params=params, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    return urlsplit(answer.headers["Content-Location"]).path


def exported(client, records, **params):
    """Manifest and resources by type of a whole round."""
    status = kicked_off(client, **params)
    assert client.get(status).headers["X-Progress"] == "waiting"
    records.run(status.rpartition("/")[2])
    answer = client.get(status)
    assert answer.status_code == 200, answer.text
    found = {}
    for one in answer.json()["output"]:
        file = client.get(urlsplit(one["url"]).path)
        assert file.headers["content-type"] == "application/fhir+ndjson"
        resources = [json.loads(line) for line in file.text.splitlines()]
        assert {r["resourceType"] for r in resources} <= {one["type"]}
        assert one.get("count", len(resources)) == len(resources)
        found.setdefault(one["type"], []).extend(resources)
    return answer.json(), found


def test_everything_is_exported_once_in_as_many_files_as_it_takes(client, node, records, monkeypatch):
    monkeypatch.setattr(bulk_export, "ANALYSES_IN_A_FILE", 2)
    for number in range(5):
        reported(node, name=str(number))
    manifest, found = exported(client, records)
    assert set(found) == set(TYPES)
    assert len([one for one in manifest["output"] if one["type"] == "DiagnosticReport"]) == 3
    assert {kind: len(several) for kind, several in found.items()} == {
        "DiagnosticReport": 5, "Observation": 50, "ImagingStudy": 5, "Device": 1, "Provenance": 5,
        "DocumentReference": 5, "BodyStructure": 5, "Media": 5,
    }  # fmt: skip
    for several in found.values():
        assert len({one["id"] for one in several}) == len(several)
    by_search = client.get("/fhir/DiagnosticReport").json()["entry"]
    assert {one["resource"]["id"]: one["resource"] for one in by_search} == {
        one["id"]: one for one in found["DiagnosticReport"]
    }
    with node.begin() as session:
        leaves = session.execute(select(AuditLeaf.action, AuditLeaf.details)).all()
    assert [action for action, _ in leaves].count("fhir.exported") == len(manifest["output"])
    assert PATIENT.patient_id not in json.dumps(manifest)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_no_file_is_empty_and_none_is_missing_at_its_edge(client, node, records, monkeypatch, number):
    monkeypatch.setattr(bulk_export, "ANALYSES_IN_A_FILE", 2)
    for name in range(number):
        reported(node, name=str(name))
    order = Order("x", utc_now().isoformat(), "", tuple(TYPES), "")
    parts = read_parts(BulkExport(node).list_parts(order.as_text()))
    assert [part.analyses for part in parts] == [[1], [2], [2, 1], [2, 2]][number - 1]
    assert [len(list(lines(node, order, "DiagnosticReport", part))) for part in parts] == [p.analyses for p in parts]


def test_an_export_is_of_one_moment_and_the_next_has_what_came_after(client, node, records):
    first = reported(node, name="1")
    second = reported(node, name="2")
    status = kicked_off(client, _type="DiagnosticReport,Device")
    amended(node, first, Verdict.CORRECTED)  # after the moment, before the files are fetched
    reported(node, name="3")
    records.run(status.rpartition("/")[2])
    manifest = client.get(status).json()
    files = {one["type"]: client.get(urlsplit(one["url"]).path).text.splitlines() for one in manifest["output"]}
    reports = [json.loads(line) for line in files["DiagnosticReport"]]
    assert {(one["status"], one["meta"]["versionId"]) for one in reports} == {("preliminary", "1")}
    assert len(reports) == 2 and len(files["Device"]) == 1
    assert all(one["meta"]["lastUpdated"] <= manifest["transactionTime"] for one in reports)
    _, since = exported(client, records, _since=manifest["transactionTime"])
    assert sorted((one["status"], one["meta"]["versionId"]) for one in since["DiagnosticReport"]) == [
        ("amended", "2"),
        ("preliminary", "1"),
    ]
    assert "Device" not in since  # was there before
    assert second.id.replace("-", "") not in json.dumps(since)


def test_nothing_to_export_is_an_empty_manifest(client, node, records):
    manifest, found = exported(client, records)
    assert (manifest["output"], manifest["error"], found) == ([], [], {})


def test_it_is_removed_and_it_expires(client, node, records):
    reported(node)
    status = kicked_off(client)
    records.run(status.rpartition("/")[2])
    file = urlsplit(client.get(status).json()["output"][0]["url"]).path
    records.asked_at -= timedelta(hours=25)
    assert client.get(status).status_code == client.get(file).status_code == 404
    records.asked_at = utc_now()
    assert client.delete(status).status_code == 202
    for answer in (client.get(status), client.get(file), client.delete(status)):
        assert answer.status_code == 404
        assert answer.json()["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize(
    ("params", "headers", "status"),
    [
        ({}, {}, 400),
        ({"_type": "Patient"}, ASYNC, 400),
        ({"_since": "yesterday"}, ASYNC, 400),
        ({"_since": "2026-03-14"}, ASYNC, 400),
        ({"_typeFilter": "x"}, ASYNC, 400),
        ({"_outputFormat": "text/csv"}, ASYNC, 400),
        ({}, {**ASYNC, "Accept": "application/fhir+xml"}, 406),
    ],
)
def test_what_it_cannot_do_is_refused(client, records, params, headers, status):
    answer = client.get("/fhir/$export", params=params, headers=headers)
    assert answer.status_code == status
    assert answer.json()["resourceType"] == "OperationOutcome"


def test_files_that_the_manifest_does_not_name_are_not_there(client, node, records):
    reported(node)
    status = kicked_off(client, _type="Observation")
    job = status.rpartition("/")[2]
    assert client.get(f"/fhir/$export-file/{job}/Observation-1.ndjson").status_code == 404  # not yet
    records.run(job)
    assert client.get(f"/fhir/$export-file/{job}/Observation-1.ndjson").status_code == 200
    for name in ("Observation-2.ndjson", "Observation-0.ndjson", "DiagnosticReport-1.ndjson", "x"):
        assert client.get(f"/fhir/$export-file/{job}/{name}").status_code == 404


def test_it_takes_the_role_admin(open_client):
    tokens = [{"name": role, "token": f"{role}-token-0123456789", "role": role} for role in ("review", "admin")]
    client = open_client(api_tokens=tuple(tokens))
    client.app.state.fhir_exports = Records(client.app.state.node)
    for role, status in (("review", 403), ("admin", 202)):
        headers = {**ASYNC, "Authorization": f"Bearer {role}-token-0123456789"}
        assert client.get("/fhir/$export", headers=headers).status_code == status


def test_a_lost_bundle_is_an_error_and_never_a_short_file(client, node, records):
    reported(node)
    status = kicked_off(client, _type="DiagnosticReport")
    records.run(status.rpartition("/")[2])
    file = urlsplit(client.get(status).json()["output"][0]["url"]).path
    for path in (node.settings.data_dir / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    assert client.get(file).status_code == 500
