"""What operators see of one image: one trace across the processes, metrics, logs, and no patient in any of them."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from dermoscopy.domain import PatientIdentity
from dermoscopy.overlay import encode_png
from dermoscopy.phantoms import phantom
from dicom_listener.camera import sending, wrap_picture
from tests.peers.dcmtk import StoreScp
from tests.peers.processes import wait_until
from tests.service import ISSUER, running_service

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(240)]

PATIENT = "ZEBRA-90125"


class Collector:
    """An OTLP/HTTP trace collector: keeps (trace id, span name, service)."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str]] = []
        self.everything = ""
        spans, collector = self.spans, self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                message = ExportTraceServiceRequest.FromString(body)
                collector.everything += str(message)
                for resource in message.resource_spans:
                    named = {a.key: a.value.string_value for a in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        spans.extend((s.trace_id.hex(), s.name, named["service.name"]) for s in scope.spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


def test_one_image_is_one_trace_and_no_patient_is_seen(
    tmp_path: Path, collector: Collector, dcmtk_receiver: StoreScp
) -> None:
    data = wrap_picture(encode_png(phantom(7, kind="nevus").pixels), PatientIdentity(ISSUER, PATIENT))
    pacs = {"name": "pacs", "host": "127.0.0.1", "port": dcmtk_receiver.port, "ae_title": dcmtk_receiver.aet}
    with running_service(tmp_path / "service", otlp_endpoint=collector.url, pacs=[pacs], log_level="DEBUG") as service:
        with sending("127.0.0.1", service.dicom_port, called_ae="DERMCDS", calling_ae="CAMERA") as send:
            send(data)
        wait_until(lambda: any(a["state"] == "complete" for a in service.analyses()), "results delivered", seconds=90)
        who = {"system": ISSUER, "id": PATIENT}
        found = service.client.post("/api/v1/analyses/search", json=who).raise_for_status()
        assert len(found.json()["analyses"]) == 1
        metrics = service.client.get("/metrics").raise_for_status().text
    assert "cds_" in metrics

    trace = next(t for t, name, _service in collector.spans if name == "pipeline.analyse")
    seen = {(name, service) for t, name, service in collector.spans if t == trace}
    names = {name for name, _service in seen}
    assert {"dicom.c_store", "intake.accept", "pipeline.analyse", "pipeline.render", "pipeline.deliver"} <= names
    assert {"cds-listener", "cds-worker"} <= {service for _name, service in seen}

    log = (service.folder / "service.log").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    events = {line["event"] for line in lines}
    assert {"instance.accepted", "delivery.delivered"} <= events
    traced = [line for line in lines if line["event"] == "delivery.delivered"]
    assert {line["trace_id"] for line in traced} == {trace}
    for place, text in {"log": log, "traces": collector.everything, "metrics": metrics}.items():
        assert PATIENT not in text, f"the patient id is in the {place}"
