"""An EHR that answers slowly, wrongly, twice, with HTML, or leads elsewhere: told in time, and nothing is lost."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from dermoscopy.overlay import encode_png
from dermoscopy.tables import InstanceRow
from tests.findings import drawn_lesion, fhir_patient, stored_analysis
from tests.integration.cds_service.conftest import ADMIN, LiveApplication, live_application

Answer = Callable[[BaseHTTPRequestHandler], None]
PATIENT = json.dumps(fhir_patient()).encode()
PNG = encode_png(drawn_lesion().pixels)
MEDIA = {
    "resourceType": "Media", "id": "m1", "status": "completed", "subject": {"reference": "Patient/p1"},
    "content": {"contentType": "image/png", "url": "Binary/b1"},
}  # fmt: skip


def send(status: int, body: bytes, kind: str = "application/fhir+json", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, for longer than anybody waits."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/fhir+json")
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Less than was announced."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/fhir+json")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(PATIENT)


BAD: dict[str, tuple[Answer, str]] = {
    "drips": (drip, "in time"),
    "cut": (cut, "cannot be reached"),
    "html": (send(200, b"<html>log in</html>", "text/html"), "not FHIR JSON"),
    "html-as-json": (send(200, b"<html>log in</html>"), "not FHIR JSON"),
    "twice": (send(200, PATIENT + PATIENT), "not FHIR JSON"),
    "another": (send(200, json.dumps(fhir_patient(id="p2")).encode()), "something else"),
    "outcome": (send(200, b'{"resourceType": "OperationOutcome"}'), "OperationOutcome"),
    "redirects": (send(302, b"", Location="http://169.254.169.254/latest/meta-data"), "redirects"),
    "redirects-home": (send(307, b"", Location="/good/Patient/p1"), "redirects"),
    "busy": (send(503, b""), "HTTP 503"),
    "squeezed": (send(200, PATIENT, **{"Content-Encoding": "gzip"}), "not FHIR JSON"),
}


class Ehr:
    """Answers below ``/<name>/`` as `BAD` says, and decently below ``/good/``."""

    def __init__(self) -> None:
        ehr = self
        self.media: list[dict[str, Any]] = []
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                ehr.asked.append(self.path)
                name = self.path.split("/")[1]
                try:
                    (BAD[name][0] if name in BAD else ehr.good)(self)
                except OSError:
                    pass  # the service hung up, as it should

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def good(self, handler: BaseHTTPRequestHandler) -> None:
        resource = handler.path.removeprefix("/good/").partition("?")[0]
        bundle = {"resourceType": "Bundle", "entry": [{"resource": one} for one in self.media]}
        known = {"Patient/p1": PATIENT, "Media": json.dumps(bundle).encode()}
        if resource == "Binary/b1":
            send(200, PNG, "image/png")(handler)
        else:
            send(200 if resource in known else 404, known.get(resource, b"{}"))(handler)


@contextmanager
def serving() -> Iterator[Ehr]:
    ehr = Ehr()
    try:
        yield ehr
    finally:
        ehr.server.shutdown()
        ehr.server.server_close()


@pytest.fixture
def ehr() -> Iterator[Ehr]:
    with serving() as running:
        yield running


@pytest.fixture
def live(engine: sa.Engine, tmp_path: Path, ehr: Ehr) -> Iterator[LiveApplication]:
    servers = tuple(f"{ehr.url}/{name}" for name in ("good", *BAD))
    with live_application(
        engine, tmp_path / "data", hooks_fhir_servers=servers, hooks_fetch_seconds=0.5, hooks_image_seconds=0.5
    ) as running:
        yield running


def call(live: LiveApplication, server: str, **changes: Any) -> httpx.Response:
    body: dict[str, Any] = {
        "hook": "patient-view",
        "hookInstance": str(uuid.uuid4()),
        "fhirServer": server,
        "context": {"userId": "Practitioner/1", "patientId": "p1"},
    }
    headers = {"Authorization": f"Bearer {ADMIN}"}
    address = f"{live.url}/cds-services/dermoscopy-triage"
    return httpx.post(address, json=body | changes, headers=headers, trust_env=False, timeout=30)


def test_every_bad_answer_is_412_with_its_reason_and_a_good_one_still_works(live: LiveApplication, ehr: Ehr) -> None:
    stored_analysis(live.node)
    for name, (_, says) in BAD.items():
        answer = call(live, f"{ehr.url}/{name}")
        assert (answer.status_code, name) == (412, name)
        assert says in answer.json()["issue"][0]["diagnostics"], name
        assert "TEST-0042" not in answer.text
    assert not any(path.startswith("/good") for path in ehr.asked)  # no redirect was followed
    assert len(call(live, f"{ehr.url}/good").json()["cards"]) == 1


@pytest.mark.parametrize("server", ["http://169.254.169.254", "http://127.0.0.1:1/fhir", "https://evil.example/fhir"])
def test_a_server_that_is_not_listed_is_not_asked(live: LiveApplication, ehr: Ehr, server: str) -> None:
    answer = call(live, server)
    assert answer.status_code == 412 and "may not" not in answer.text
    assert "hooks_fhir_servers" in answer.json()["issue"][0]["diagnostics"]
    assert ehr.asked == []


def test_an_image_that_is_named_twice_is_taken_in_once_by_many_calls_at_once(live: LiveApplication, ehr: Ehr) -> None:
    ehr.media = [MEDIA, MEDIA, {**MEDIA, "id": "m2"}]
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(call(live, f"{ehr.url}/good"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [answer.status_code for answer in answers] == [200] * 4
    with live.node.begin() as session:
        assert len(session.execute(sa.select(InstanceRow)).scalars().all()) == 1


def test_images_that_cannot_be_searched_cost_no_card(live: LiveApplication, ehr: Ehr) -> None:
    stored_analysis(live.node)
    answer = call(live, f"{ehr.url}/drips", prefetch={"patient": fhir_patient()})
    assert len(answer.json()["cards"]) == 1
