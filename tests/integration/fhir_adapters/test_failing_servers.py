"""Servers that misbehave over a real socket: busy, silent, redirecting, or not FHIR at all."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from dermoscopy.domain import ArtifactKind
from dermoscopy.errors import DestinationUnavailable, Rejected
from dermoscopy.patients import IssuerMap
from fhir_adapters.deliver import FhirDestination
from fhir_adapters.render import RENDERERS
from tests.unit.fhir_adapters import scenes

ISSUERS = IssuerMap({"CLINIC_A": scenes.SYSTEM})
ANALYSIS = scenes.analysis()
BUNDLE = RENDERERS[ArtifactKind.FHIR_BUNDLE](scenes.render_input(ANALYSIS))
PATIENT = {
    "resourceType": "Patient",
    "id": "p-1",
    "identifier": [{"system": scenes.SYSTEM, "value": scenes.PATIENT.patient_id}],
}


class Server(ThreadingHTTPServer):
    """Finds the patient and no report, then answers the transaction with ``answer(handler, body)``."""

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.paths: list[str] = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/fhir"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.append(self.path)
        if self.path.endswith("/_search"):
            found = [{"resource": PATIENT}] if "Patient" in self.path else []
            return self.say(200, {"resourceType": "Bundle", "type": "searchset", "entry": found})
        return self.server.answer(self, body)

    def say(self, status, content, *, media_type="application/fhir+json", **headers):
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def start():
    running = []

    def run(answer):
        server = Server(answer)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield run
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def send(server, **options):
    destination = FhirDestination("ehr", server.url, issuers=ISSUERS, **options)
    try:
        return destination.deliver(BUNDLE, ANALYSIS)
    finally:
        destination.close()


def test_busy_says_when_to_come_back(start):
    server = start(lambda h, _: h.say(503, {"resourceType": "OperationOutcome"}, Retry_After="17"))
    with pytest.raises(DestinationUnavailable) as caught:
        send(server)
    assert caught.value.retry_after == 17


def test_a_login_page_is_no_ehr(start):
    with pytest.raises(DestinationUnavailable, match="proxy or login page"):
        send(start(lambda h, _: h.say(200, "<html>Please sign in</html>", media_type="text/html")))


def test_silence_ends(start):
    started = time.monotonic()
    with pytest.raises(DestinationUnavailable, match="in time"):
        send(start(lambda h, _: time.sleep(1.5)), timeout=httpx.Timeout(0.3))
    assert time.monotonic() - started < 1.4


def test_a_hang_up_is_no_answer(start):
    with pytest.raises(DestinationUnavailable, match="cannot be reached"):
        send(start(lambda h, _: h.connection.close()))


def test_nobody_there(start):
    server = start(lambda h, _: None)
    server.shutdown()
    server.server_close()
    with pytest.raises(DestinationUnavailable, match="cannot be reached"):
        send(server)


def test_patient_data_never_follows_a_redirect_to_another_host(start):
    elsewhere = start(lambda h, _: h.say(200, {"resourceType": "Bundle"}))
    server = start(lambda h, _: h.say(307, "", Location=elsewhere.url))
    with pytest.raises(Rejected, match="base_url"):
        send(server)
    assert elsewhere.paths == []


def test_one_refused_entry_inside_a_200(start):
    def partly(handler, body):
        entries: list[dict] = [{"response": {"status": "201 Created"}} for _ in json.loads(body)["entry"]]
        entries[3] = {
            "response": {
                "status": "422",
                "outcome": {
                    "resourceType": "OperationOutcome",
                    "issue": [{"severity": "error", "code": "invalid", "diagnostics": "no such code"}],
                },
            }
        }
        handler.say(200, {"resourceType": "Bundle", "type": "transaction-response", "entry": entries})

    with pytest.raises(Rejected, match=r"422: Observation was not stored\. invalid: no such code"):
        send(start(partly))


def test_a_refusal_with_a_reason(start):
    outcome = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": "forbidden", "diagnostics": "scope for TEST-0042 is missing"}],
    }
    with pytest.raises(Rejected, match=r"403: forbidden: scope for \[patient\] is missing"):
        send(start(lambda h, _: h.say(403, outcome)))
