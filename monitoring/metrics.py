"""Metrics: every instrument of the service named once, and their Prometheus text.

Rooms create instruments with the OpenTelemetry API under the names of `INSTRUMENTS` (a test compares); this module
alone configures the SDK. Each process has its own numbers: the API serves them at ``/metrics``, other processes on a
loopback port.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from prometheus_client import CollectorRegistry, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric: OpenTelemetry name, kind, what it counts, and its labels."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()

    @property
    def exposed(self) -> str:
        """Its name in the Prometheus text."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


INSTRUMENTS: tuple[Instrument, ...] = (
    Instrument(
        "cds_instances_received",
        "counter",
        "images that came in, by what became of them (accepted, duplicate, held by reason, rejected)",
        ("source", "outcome"),
    ),
    Instrument("cds_analyses", "counter", "finished analyses by triage tier, or failed", ("tier", "abstained")),
    Instrument("cds_abstentions", "counter", "analyses in which the algorithm gave no answer", ("reason",)),
    Instrument("cds_reviews", "counter", "reviews by clinicians", ("verdict",)),
    Instrument("cds_amendments", "counter", "amended results by the status that the report came to", ("status",)),
    Instrument("cds_outcomes_received", "counter", "outcomes that came in, by what became of them", ("way", "result")),
    Instrument("cds_deliveries", "counter", "delivery attempts and how they ended", ("destination", "state")),
    Instrument("cds_pulled", "counter", "earlier images asked for, by what became of them", ("source", "outcome")),
    Instrument(
        "cds_result_commitments",
        "counter",
        "objects that a PACS was asked to keep, by outcome",
        ("destination", "outcome"),
    ),
    Instrument("cds_comparisons", "counter", "comparisons with an earlier image, by state of the match", ("state",)),
    Instrument("cds_step_seconds", "histogram", "duration of one step (analyse, render, deliver)", ("step",)),
    Instrument("cds_end_to_end_seconds", "histogram", "from acceptance of an image to its stored results"),
    Instrument("cds_http_seconds", "histogram", "duration of HTTP requests", ("method", "route", "status")),
    Instrument("cds_analyses_waiting", "gauge", "analyses accepted and without results", ("state",)),
    Instrument("cds_oldest_waiting_seconds", "gauge", "age of the oldest analysis without results"),
    Instrument("cds_deliveries_open", "gauge", "deliveries not finished", ("destination", "state")),
    Instrument("cds_holds_open", "gauge", "things that wait for a person", ("kind",)),
    Instrument(
        "cds_outcomes",
        "gauge",
        "lesion images of which the truth is known, by source, truth and what the algorithm had said",
        ("source", "model", "truth", "result"),
    ),
    Instrument("cds_worker_heartbeat_age_seconds", "gauge", "time since a worker was last alive", ("worker",)),
    Instrument("cds_audit_pending_leaves", "gauge", "audit entries not yet in the tree"),
    Instrument("cds_audit_problems", "gauge", "problems found by the last verification of the audit log"),
    Instrument("cds_audit_verified_timestamp_seconds", "gauge", "when the audit log was last verified (Unix time)"),
    Instrument("cds_disk_free_bytes", "gauge", "free space where images and database lie"),
)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0)

_registry = CollectorRegistry()
_configured = threading.Lock()
_provider: MeterProvider | None = None


def configure_metrics() -> MeterProvider:
    """Start collecting in this process; a second call changes nothing."""
    global _provider
    with _configured:
        if _provider is None:
            reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=_registry)
            _provider = MeterProvider(metric_readers=[reader], views=_views())
            metrics.set_meter_provider(_provider)
        return _provider


def render() -> bytes:
    """The metrics of this process in the Prometheus text format (`CONTENT_TYPE`)."""
    return generate_latest(_registry)


def serve_metrics(port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """Serve `render` on a loopback port, for processes without a web server. Stop with ``shutdown()``."""
    server = ThreadingHTTPServer((host, port), _Page)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path.split("?")[0] == "/metrics"
        body = render() if found else b"see /metrics\n"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape every few seconds is not news."""


def _views() -> list[View]:
    """Buckets that fit the service and only the labels that are documented."""
    return [
        View(
            instrument_name=instrument.name,
            description=instrument.meaning,
            attribute_keys=set(instrument.labels),
            aggregation=ExplicitBucketHistogramAggregation(_SECONDS) if instrument.kind == "histogram" else None,
        )
        for instrument in INSTRUMENTS
    ]
