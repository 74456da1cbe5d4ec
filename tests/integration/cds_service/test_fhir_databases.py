"""The read side's queries on PostgreSQL, with results that the real pipeline drew and amended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from sqlmodel import SQLModel

from cds_service.app import create_app
from cds_service.bulk_export import BulkExport, Order, lines, read_parts
from dermoscopy.database import create_database_engine
from dermoscopy.tables import utc_now
from monitoring.health import Readiness
from tests.findings import SYSTEM
from tests.integration.cds_service.test_amendments import CONFIRM, CORRECT, WITHDRAW, Clinic
from tests.unit.cds_service.api.fhir_results import reported

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]


@pytest.fixture
def clinic(postgres_url: str, tmp_path: Path) -> Iterator[Clinic]:
    engine = create_database_engine(postgres_url)
    SQLModel.metadata.create_all(engine)
    yield Clinic(engine, tmp_path / "data")
    engine.dispose()


def test_search_versions_and_export_on_postgresql(clinic: Clinic) -> None:
    client = TestClient(create_app(clinic.node, lambda: Readiness(True, ())), base_url="http://127.0.0.1:8600")
    clinic.amend(clinic.say(CORRECT))
    before = utc_now()
    clinic.amend(clinic.say(WITHDRAW, seen=1))
    for number in range(3):
        reported(clinic.node, name=str(number))
    shown, query = [], {"patient:identifier": f"{SYSTEM}|TEST-0042", "_count": "1"}
    page = client.post("/fhir/DiagnosticReport/_search", data=query).json()
    while True:
        shown += [entry["resource"] for entry in page["entry"]]
        following = [urlsplit(one["url"]) for one in page["link"] if one["relation"] == "next"]
        if not following:
            break
        page = client.get(f"{following[0].path}?{following[0].query}").json()
    assert len({one["id"] for one in shown}) == len(shown) == 4
    oldest = shown[-1]
    assert (oldest["status"], oldest["meta"]["versionId"]) == ("entered-in-error", "3")
    where = f"/fhir/DiagnosticReport/{oldest['id']}/_history"
    assert [client.get(f"{where}/{n}").json().get("status") for n in (1, 2, 3)] == [
        "preliminary",
        "amended",
        "entered-in-error",
    ]
    (study,) = client.get(f"/fhir/{oldest['imagingStudy'][0]['reference']}").json()["identifier"]
    for name, value, number in (
        ("study", study["value"], 1),  # of a picture that was wrapped: derived, and in no column
        ("study", f"{study['value']}1", 0),
        ("_lastUpdated", f"ge{before:%Y-%m-%dT%H:%M:%S}Z", 4),
        ("_lastUpdated", "lt2001", 0),
        ("date", f"ge{before:%Y-%m-%d}", 4),
        ("status", "preliminary", 3),
    ):
        answer = client.get("/fhir/DiagnosticReport", params={name: value, "_summary": "count"})
        assert answer.json()["total"] == number, (name, value)
    assert client.get("/fhir/Device?_summary=count").json()["total"] == 1

    then = Order("x", before.isoformat(), "", ("DiagnosticReport",), "")
    (part,) = read_parts(BulkExport(clinic.node).list_parts(then.as_text()))
    assert [one["status"] for one in lines(clinic.node, then, "DiagnosticReport", part)] == ["amended"]
    since = Order("x", utc_now().isoformat(), before.isoformat(), ("DiagnosticReport",), "")
    (part,) = read_parts(BulkExport(clinic.node).list_parts(since.as_text()))
    found = [one["status"] for one in lines(clinic.node, since, "DiagnosticReport", part)]
    assert sorted(found) == ["entered-in-error", *["preliminary"] * 3]


def test_a_version_that_two_quick_reviews_skipped_is_not_there(clinic: Clinic) -> None:
    client = TestClient(create_app(clinic.node, lambda: Readiness(True, ())), base_url="http://127.0.0.1:8600")
    clinic.say(CORRECT)
    clinic.amend(clinic.say(CONFIRM, seen=1))
    (entry,) = client.get("/fhir/DiagnosticReport").json()["entry"]
    assert entry["resource"]["meta"]["versionId"] == "3"
    where = f"/fhir/DiagnosticReport/{entry['resource']['id']}/_history"
    assert [client.get(f"{where}/{n}").status_code for n in (1, 2, 3, 4)] == [200, 404, 200, 404]
