"""One trace spans receive → analyse → deliver, across processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from monitoring import tracing

ROOT = Path(__file__).resolve().parents[3]
OTHER_PROCESS = """
import json, sys
from opentelemetry import trace
from monitoring.tracing import configure_tracing, extract, inject
configure_tracing()
with trace.get_tracer("other").start_as_current_span("deliver", context=extract(json.loads(sys.argv[1]))) as span:
    print(f"{span.get_span_context().trace_id:032x}", json.dumps(inject()))
"""


def test_a_trace_goes_on_in_another_process():
    provider = tracing.configure_tracing()
    with provider.get_tracer("test").start_as_current_span("receive") as span:
        carrier = tracing.inject()
    trace_id = f"{span.get_span_context().trace_id:032x}"
    assert carrier["traceparent"].split("-")[1] == trace_id
    done = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, json.dumps(carrier)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    other, carried = done.stdout.split(maxsplit=1)
    assert other == trace_id
    assert json.loads(carried)["traceparent"].split("-")[1] == trace_id
    assert json.loads(carried)["traceparent"] != carrier["traceparent"]


def test_without_a_trace_there_is_nothing_to_carry():
    assert tracing.inject() == {}


def test_spans_are_exported_with_the_name_of_the_service(monkeypatch):
    monkeypatch.setattr(tracing, "_provider", None)
    monkeypatch.setattr("opentelemetry.trace.set_tracer_provider", lambda provider: None)
    exporter = InMemorySpanExporter()
    provider = tracing.configure_tracing(service="cds-worker", exporter=exporter)
    assert tracing.configure_tracing(service="another") is provider
    with provider.get_tracer("test").start_as_current_span("analyse"):
        pass
    provider.force_flush()
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.resource.attributes["service.name"]) == ("analyse", "cds-worker")
    provider.shutdown()
