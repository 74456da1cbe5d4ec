"""Over a real socket: what a client sees of limits, and how fast a card comes from a full database."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa
from sqlmodel import col

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
def test_a_card_comes_quickly_from_ten_thousand_analyses(engine, tmp_path):
    with live_application(engine, tmp_path / "data") as live:
        fill(live, 10_000)
        times = []
        with httpx.Client(base_url=live.url, headers=BEARER, trust_env=False) as client:
            for number in range(300):
                body = call(f"P{number * 7 % 3333:05}")
                began = time.perf_counter()
                answer = client.post(CALL, json=body)
                times.append((time.perf_counter() - began) * 1000)
                assert answer.status_code == 200 and len(answer.json()["cards"]) >= 3
        times.sort()
        p50, p99 = times[150], times[297]
        print(f"card: p50 {p50:.1f} ms, p99 {p99:.1f} ms, 10 000 analyses")
        assert p50 < 50, f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def call(patient: str) -> dict[str, object]:
    return {
        "hook": "patient-view",
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "context": {"userId": "Practitioner/1", "patientId": "p1"},
        "prefetch": {"patient": fhir_patient(patient)},
    }


def fill(live: LiveApplication, count: int) -> None:
    """``count`` analyses, three to a patient, copied from one real one."""
    analysis = stored_analysis(live.node)
    with live.node.begin() as session:
        instance = session.get_one(InstanceRow, analysis.instance_id).model_dump()
        row = session.get_one(AnalysisRow, analysis.id).model_dump()
        instances, rows = [], []
        for number in range(count):
            patient = {"issuer": ISSUER, "patient_id": f"P{number % (count // 3):05}"}
            key = derive_id("copy", str(number))
            instances.append(instance | patient | {"id": key})
            rows.append(row | patient | {"id": derive_id("analysis copy", str(number)), "instance_id": key})
        session.execute(sa.insert(InstanceRow), instances)
        session.execute(sa.insert(AnalysisRow), rows)
        assert session.execute(sa.select(sa.func.count(col(AnalysisRow.id)))).scalar_one() == count + 1
