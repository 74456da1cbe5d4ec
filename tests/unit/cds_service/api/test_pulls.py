"""``POST /api/v1/pulls``: who may, what is asked, what is told."""

from __future__ import annotations

import pytest

import cds_service.pull
from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import DestinationUnavailable
from dicom_listener.query import Found, Match
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY
from tests.findings import ISSUER, SYSTEM, make_header

TOKENS = [
    {"name": "reader", "token": "reader-token-0123456789", "role": "read"},
    {"name": "ehr", "token": "submit-token-0123456789", "role": "submit"},
]
HEADERS = {"Authorization": "Bearer submit-token-0123456789"}
WANTED = {"patient": {"system": SYSTEM, "id": "TEST-0042"}}


class Source:
    """Has two images of everybody, of which one comes; or is away."""

    node = None
    away = False

    def find(self, wanted, same):
        if self.away:
            raise DestinationUnavailable("pacs cannot be reached", retry_after=7)
        self.wanted = wanted
        assert same(PatientIdentity(ISSUER, "TEST-0042")) and not same(PatientIdentity("", "TEST-0042"))
        return Found(tuple(Match("1.1", "1.1.1", f"2.25.{n}", DERMOSCOPIC_PHOTOGRAPHY) for n in (1, 2)), ("9.9",))

    def bring(self, matches, patient, *, store_only):
        self.brought = matches
        header = make_header(patient, "x", sop_instance_uid="2.25.1")
        self.node.intake.accept(b"pixels", header, source="test", caller="pacs")


@pytest.fixture
def source(monkeypatch):
    made = Source()
    monkeypatch.setattr(cds_service.pull, "open_source", lambda node, name: made)
    return made


@pytest.fixture
def client(open_client, source):
    made = open_client(api_tokens=TOKENS)
    source.node = made.app.state.node
    return made


def test_a_pull_tells_its_numbers(client, source) -> None:
    answer = client.post("/api/v1/pulls", json={**WANTED, "since": "2024-01-02"}, headers=HEADERS)
    assert answer.status_code == 200
    assert answer.json() == {
        "found": 2, "known": 0, "own": 0, "taken": 1, "held": 0, "failed": 1, "misfiled": 0, "other_patient": 1,
        "complete": False,
    }  # fmt: skip
    assert source.wanted.patient == PatientIdentity(ISSUER, "TEST-0042")
    assert source.wanted.since == "20240102" and source.wanted.modalities == ("DMS", "XC", "ES", "OT")
    again = client.post("/api/v1/pulls", json=WANTED, headers=HEADERS).json()
    assert (again["known"], again["failed"]) == (1, 1)
    assert [match.sop_instance_uid for match in source.brought] == ["2.25.2"]


def test_an_early_year_keeps_its_digits(client, source) -> None:
    """A DICOM date has eight digits (PS3.5 6.2); a day of year 1 is one that somebody means as "ever"."""
    client.post("/api/v1/pulls", json={**WANTED, "since": "0001-01-02", "dry_run": True}, headers=HEADERS)
    assert source.wanted.since == "00010102"


def test_only_looking(client, source) -> None:
    answer = client.post("/api/v1/pulls", json={**WANTED, "dry_run": True}, headers=HEADERS).json()
    assert (answer["found"], answer["taken"]) == (2, 0) and not hasattr(source, "brought")


def test_who_may(client) -> None:
    assert client.post("/api/v1/pulls", json=WANTED).status_code == 401
    headers = {"Authorization": "Bearer reader-token-0123456789"}
    assert client.post("/api/v1/pulls", json=WANTED, headers=headers).status_code == 403


def test_away(client, source) -> None:
    source.away = True
    answer = client.post("/api/v1/pulls", json=WANTED, headers=HEADERS)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert "TEST-0042" not in answer.text


@pytest.mark.parametrize("wrong", [{}, {"patient": {"id": ""}}, {**WANTED, "since": "yesterday"}, {**WANTED, "x": 1}])
def test_wrong_requests(client, wrong) -> None:
    assert client.post("/api/v1/pulls", json=wrong, headers=HEADERS).status_code == 422


def test_nothing_to_pull_from(open_client) -> None:
    client = open_client(api_tokens=TOKENS)
    answer = client.post("/api/v1/pulls", json=WANTED, headers=HEADERS)
    assert answer.status_code == 422 and "query = true" in answer.json()["detail"]
