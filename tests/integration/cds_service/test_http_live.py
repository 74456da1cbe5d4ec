"""Over a real socket: what a client sees of limits, and what a card costs in a full database."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa

from dermoscopy.domain import derive_id
from dermoscopy.tables import AnalysisRow, InstanceRow
from tests.findings import ISSUER, fhir_patient, stored_analysis
from tests.integration.cds_service.conftest import ADMIN, LiveApplication, live_application

BEARER = {"Authorization": f"Bearer {ADMIN}"}
CALL = "/cds-services/dermoscopy-triage"


def test_a_body_that_says_it_is_huge_is_refused_before_it_is_sent(live: LiveApplication):
    target = urlsplit(live.url)
    with socket.create_connection((target.hostname, target.port), timeout=10) as connection:
        head = (
            f"POST /api/v1/analyze HTTP/1.1\r\nHost: {target.netloc}\r\nAuthorization: Bearer {ADMIN}\r\n"
            "Content-Type: application/json\r\nContent-Length: 500000000\r\n\r\n"
        )
        connection.sendall(head.encode())
        answer = b""
        while chunk := connection.recv(65536):  # ends because the service closes the connection
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in answer


@pytest.mark.slow
def test_a_card_costs_the_same_among_ten_thousand_analyses(engine, tmp_path):
    """As many statements as among three, none of which reads a whole table: `make bench` has the milliseconds."""
    with (
        live_application(engine, tmp_path / "data") as live,
        httpx.Client(base_url=live.url, headers=BEARER, trust_env=False) as client,
    ):
        fill(live, 3)
        few = statements_of(engine, lambda: shown(client, "P00000"))
        fill(live, 9_999, kind="more")
        many = statements_of(engine, lambda: shown(client, "more00007"))
    assert [text for text, _values in many] == [text for text, _values in few]
    with engine.connect() as connection:
        for text, values in many:
            if text.startswith("SELECT"):
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all()
                assert not [step for step in plan if step[3].startswith("SCAN")], plan


def shown(client: httpx.Client, patient: str) -> None:
    answer = client.post(CALL, json=call(patient))
    assert answer.status_code == 200
    assert len(answer.json()["cards"]) >= 3


def statements_of(engine: sa.Engine, act: Callable[[], None]) -> list[tuple[str, Any]]:
    """Statements that ``act`` makes the application send."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_rest: object) -> None:
        seen.append((statement, values))

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        act()
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    return seen


def call(patient: str) -> dict[str, object]:
    return {
        "hook": "patient-view",
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "context": {"userId": "Practitioner/1", "patientId": "p1"},
        "prefetch": {"patient": fhir_patient(patient)},
    }


def fill(live: LiveApplication, count: int, kind: str = "P") -> None:
    """``count`` analyses, three to a patient, copied from one real one."""
    analysis = stored_analysis(live.node, name=kind)
    with live.node.begin() as session:
        instance = session.get_one(InstanceRow, analysis.instance_id).model_dump()
        row = session.get_one(AnalysisRow, analysis.id).model_dump()
        instances, rows = [], []
        for number in range(count):
            patient = {"issuer": ISSUER, "patient_id": f"{kind}{number % (count // 3):05}"}
            key = derive_id("copy", kind, str(number))
            instances.append(instance | patient | {"id": key})
            rows.append(row | patient | {"id": derive_id("analysis copy", kind, str(number)), "instance_id": key})
        session.execute(sa.insert(InstanceRow), instances)
        session.execute(sa.insert(AnalysisRow), rows)
