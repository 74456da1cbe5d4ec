"""Pathology asked of a real FHIR server: the cursor, amended and withdrawn reports, other patients, outages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from cds_service.node import Node
from cds_service.outcome_intake import take_resource
from cds_service.outcome_polls import OutcomePolls, ask_soon
from dermoscopy.domain import TriageTier
from dermoscopy.settings import OutcomeServer
from dermoscopy.tables import HoldRow, InstanceRow, OutcomeCursorRow, OutcomeRow, OutcomeVersionRow
from tests.findings import PATIENT, SYSTEM, finish, make_finding, make_node, take_in
from tests.pathology import MELANOMA, NAEVUS, report
from tests.peers.fhir_server.server import FhirServer, fhir_server

TOKEN = "token-of-the-laboratory"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FhirServer]:
    with fhir_server(tmp_path_factory.mktemp("lab"), token=TOKEN) as server:
        yield server


@pytest.fixture
def lab(running: FhirServer) -> FhirServer:
    running.forget_everything()
    return running


def place(server: FhirServer, resource: dict[str, Any]) -> dict[str, Any]:
    answer = server.post(resource)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def patient_on(server: FhirServer, value: str) -> str:
    made = place(server, {"resourceType": "Patient", "identifier": [{"system": SYSTEM, "value": value}]})
    return f"Patient/{made['id']}"


def reported(server: FhirServer, diagnosis: dict[str, Any], patient: str, accession: str) -> dict[str, Any]:
    """A report as laboratories store it: patient, order and specimen each a resource of its own."""
    subject = {"reference": patient}
    order = place(
        server,
        {
            "resourceType": "ServiceRequest",
            "status": "active",
            "intent": "order",
            "subject": subject,
            "identifier": [{"system": "urn:orders", "value": accession}],
        },
    )
    specimen = place(
        server,
        {"resourceType": "Specimen", "subject": subject, "collection": {"collectedDateTime": "2026-11-20"}},
    )
    whole = report(
        diagnosis,
        subject=subject,
        basedOn=[{"reference": f"ServiceRequest/{order['id']}"}],
        specimen=[{"reference": f"Specimen/{specimen['id']}"}],
    )
    return place(server, {k: v for k, v in whole.items() if k not in ("id", "meta", "effectiveDateTime")})


def node_for(engine: sa.Engine, folder: Path, url: str, **changes: Any) -> Node:
    asked = OutcomeServer(name="lab", base_url=url, token=TOKEN, since="2026-01-01", **changes)  # type: ignore[arg-type]
    node = make_node(engine, folder / "data", outcome_servers=(asked,))
    finish(node, take_in(node).analysis_id, make_finding(TriageTier.MONITOR))
    with node.begin() as session:
        session.execute(sa.update(InstanceRow).values(received_at=datetime(2026, 11, 10, tzinfo=UTC)))
    return node


@contextmanager
def asking(node: Node) -> Iterator[OutcomePolls]:
    polls = OutcomePolls(node)
    yield polls
    polls.close()


def ask(node: Node, polls: OutcomePolls) -> int:
    ask_soon(node)
    return polls.ask_due()


def outcomes(node: Node) -> list[OutcomeRow]:
    with node.begin() as session:
        rows = list(session.execute(select(OutcomeRow).order_by(col(OutcomeRow.received_at))).scalars())
        session.expunge_all()
    return rows


def test_reports_are_asked_for_and_come_once(engine, tmp_path, lab):
    node = node_for(engine, tmp_path, lab.url)
    with asking(node) as polls:
        mine, other = patient_on(lab, PATIENT.patient_id), patient_on(lab, "OTHER-1")
        first = reported(lab, NAEVUS, mine, "ACC-7")
        reported(lab, MELANOMA, other, "ACC-7")
        imaging = {k: v for k, v in first.items() if k not in ("id", "meta")} | {"category": [{"text": "imaging"}]}
        place(lab, imaging)
        assert polls.ask_due() == 1
        matched, held = sorted(outcomes(node), key=lambda row: row.state, reverse=True)
        assert (matched.state, matched.lesion_class, matched.matched_by) == ("matched", "nv", "accession")
        assert (held.state, held.analysis_id, held.patient_id) == ("held", "", "OTHER-1")
        assert polls.ask_due() == 0  # not due yet
        assert ask(node, polls) == 1
        with node.begin() as session:
            assert len(session.execute(select(OutcomeVersionRow)).all()) == 2
            cursor = session.get_one(OutcomeCursorRow, "lab|DiagnosticReport")
            assert cursor.cursor is not None
            assert cursor.cursor > datetime.now(UTC) - timedelta(hours=1)

        amended = {**first, "status": "amended", "conclusionCode": [MELANOMA]}
        assert lab.put(amended, f"DiagnosticReport/{first['id']}").is_success
        ask(node, polls)
        (now,) = [row for row in outcomes(node) if row.state == "matched"]
        assert (now.lesion_class, now.status, now.id) == ("mel", "amended", matched.id)
        with node.begin() as session:
            kinds = [row.kind for row in session.execute(select(HoldRow)).scalars() if row.resolved_at is None]
        assert "missed_melanoma" in kinds

        assert lab.put({**amended, "status": "entered-in-error"}, f"DiagnosticReport/{first['id']}").is_success
        ask(node, polls)
        assert [row.state for row in outcomes(node) if row.id == matched.id] == ["withdrawn"]

        # the same report as the server of that name sends it by a subscription: what it refers to is asked for there
        sent = lab.read(f"DiagnosticReport/{first['id']}")
        (again,) = take_resource(node, sent, b"{}", caller="lab")
        assert again.result == "duplicate"


def test_a_server_that_is_away_or_refuses_is_asked_again(engine, tmp_path, lab):
    node = node_for(engine, tmp_path, lab.url)
    patient = patient_on(lab, PATIENT.patient_id)
    reported(lab, MELANOMA, patient, "ACC-7")
    with asking(node) as polls:
        lab.kill()
        assert polls.ask_due() == 1
        with node.begin() as session:
            cursor = session.get_one(OutcomeCursorRow, "lab|DiagnosticReport")
            assert (cursor.failures, cursor.cursor, cursor.leased_until) == (1, None, None)
            assert cursor.last_error
            assert cursor.due_at > datetime.now(UTC)
        lab.start()
        ask(node, polls)
        assert [row.state for row in outcomes(node)] == ["matched"]

        stranger = node.settings.outcome_servers[0].model_copy(update={"token": None, "name": "stranger"})
        refused = make_node(engine, tmp_path / "data", outcome_servers=(stranger,))
        with asking(refused) as others:
            assert others.ask_due() == 1
        with node.begin() as session:
            held = [row for row in session.execute(select(HoldRow)).scalars() if row.kind == "outcome_server"]
        assert len(held) == 1


def test_many_reports_come_page_by_page(engine, tmp_path, lab, monkeypatch):
    monkeypatch.setattr("fhir_adapters.outcome_search.PAGE", 3)
    node = node_for(engine, tmp_path, lab.url)
    patient = patient_on(lab, PATIENT.patient_id)
    for number in range(1, 8):
        reported(lab, NAEVUS, patient, f"ACC-{number}")
    with asking(node) as polls:
        for _ in range(12):
            ask(node, polls)
        rows = outcomes(node)
        assert len(rows) == 7
        assert sorted(row.state for row in rows) == ["held"] * 6 + ["matched"]
