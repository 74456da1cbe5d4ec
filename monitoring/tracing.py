"""Traces: the OpenTelemetry SDK, and the W3C trace context that a durable queue carries from process to process.

One trace spans receive → analyse → render → deliver: intake stores ``traceparent`` with the instance (`inject`), every
later step goes on from it (`extract`).
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

_provider: TracerProvider | None = None


def configure_tracing(
    *, endpoint: str = "", service: str = "dermoscopy-cds", exporter: SpanExporter | None = None
) -> TracerProvider:
    """Give every span a real identity, and send spans to ``endpoint`` (OTLP/HTTP) if there is one.

    Without an endpoint nothing leaves the process, and trace ids still join log lines and audit entries. A second call
    changes nothing. ``endpoint`` is the collector's address; ``/v1/traces`` is added where it is missing.
    """
    global _provider
    if _provider is not None:
        return _provider
    _provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    if endpoint and exporter is None:
        address = endpoint.rstrip("/")
        exporter = OTLPSpanExporter(endpoint=address if address.endswith("/v1/traces") else f"{address}/v1/traces")
    if exporter is not None:
        _provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(_provider)
    return _provider


def inject() -> dict[str, str]:
    """The present trace context as a carrier (``traceparent``, W3C Trace Context §3.2); empty without a trace."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def extract(carrier: Mapping[str, str]) -> Context:
    """The context to go on in: ``tracer.start_as_current_span(name, context=extract(carrier))``."""
    return propagate.extract(dict(carrier))
