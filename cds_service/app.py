"""The HTTP edge as one ASGI application: REST API, CDS Hooks, pages, health. Joins the routers; knows no business.

From the outside in: `Observation` (request id, trace, log, last resort) → CORS → error handlers → routes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.cors import CORSMiddleware

from cds_service.api import analyses, card_feedback, catalogue, dicomweb, holds, outcomes, pulls, reviews
from cds_service.api.analyze import ANALYZE, add_analyze
from cds_service.api.fhir import add_fhir
from cds_service.api.fhir_export import add_fhir_export
from cds_service.api.health import add_health
from cds_service.api.keys import add_keys
from cds_service.api.observation import Observation
from cds_service.api.telemedicine import PREFIX as TELEMEDICINE
from cds_service.api.telemedicine import add_telemedicine
from cds_service.api.uploads import ReadObject, encoded_size
from cds_service.authorization import Gate, OpenService
from cds_service.error_handlers import install_error_handlers
from cds_service.hooks import discovery
from cds_service.hooks.admission import Door
from cds_service.hooks.client_trust import ClientTrust
from cds_service.hooks.services import offered
from cds_service.hooks.shown import ShownCards
from cds_service.login.routes import add_login
from cds_service.node import Node
from cds_service.reading import decode_object, read_object
from cds_service.web import pages
from cds_service.web.layers import Decode, Pictures
from dermoscopy.overlay import NOTICE
from dicom_listener import header as _header  # noqa: F401 - slow to load: now, and not in the first request
from fhir_adapters.fetch import EhrReader
from monitoring.health import Readiness

MAX_BODY_BYTES = 1024 * 1024
"""Largest body of every endpoint but the one that takes images."""
VERSION = "0.1.0"
_NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""FastAPI's own records query strings and the text of exceptions; `Observation` does without them."""
_DESCRIPTION = f"""Clinical decision support for dermoscopy. {NOTICE}; for research, not cleared as a medical device.

Images come in by `POST /api/v1/analyze` (or DICOM), results stand at `/api/v1/analyses/{{report_id}}` and as CDS Hooks
cards. Everything but success is a problem document (RFC 9457); `/cds-services` answers with an OperationOutcome. No
address carries patient data."""
_TAGS = [
    {"name": "analyses", "description": "Images in, results out"},
    {"name": "reviews", "description": "What clinicians say of a result"},
    {"name": "holds", "description": "What waits for a person"},
    {"name": "pulls", "description": "Earlier images from the PACS"},
    {"name": "outcomes", "description": "What pathology and follow-up found"},
    {"name": "models", "description": "Which weights answer"},
    {"name": "CDS Hooks", "description": "Cards in the EHR (https://cds-hooks.hl7.org/2.0/)"},
    {"name": "health", "description": "Probes and metrics"},
]


def create_app(
    node: Node,
    readiness: Callable[[], Readiness] | None,
    render_metrics: Callable[[], tuple[bytes, str]] | None = None,
    read: ReadObject = read_object,
    decode: Decode = decode_object,
) -> FastAPI:
    """The application for one process.

    ``readiness`` is asked at every ``/health/ready`` (none: always ready); without ``render_metrics`` there is no
    ``/metrics``; ``read`` tells what image some bytes are, ``decode`` gives its pixels.
    """
    app = _Application(
        title="Dermoscopy decision support",
        version=VERSION,
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
        lifespan=_closing,
    )
    settings = node.settings
    app.state.node = node
    app.state.gate = Gate(settings.api_tokens, people=bool(settings.login or settings.smart_launch_servers))
    trust = ClientTrust(settings.hooks_clients, node.begin, skew=settings.hooks_clock_skew_seconds)
    app.state.cds_door = Door(node, app.state.gate, trust)
    app.state.cds_services = offered(settings.hooks_service_ids, images=settings.hooks_image_seconds > 0)
    app.state.cds_shown = ShownCards(settings.hooks_shown_days)
    app.state.read_object = read
    app.state.ehr = EhrReader(
        {server.base_url: server.inward for server in settings.hooks_fhir_servers},
        seconds=settings.hooks_fetch_seconds,
        image_servers={server.base_url: (server.inward, server.token) for server in settings.hooks_image_servers},
    )
    install_error_handlers(app)
    add_analyze(app, read)
    add_telemedicine(app, read)
    app.include_router(analyses.router)
    app.include_router(reviews.router)
    app.include_router(holds.router)
    app.include_router(pulls.router)
    app.include_router(outcomes.router)
    dicomweb.add_dicomweb(app, node)
    add_fhir_export(app, node)
    add_fhir(app, node, VERSION)
    app.include_router(catalogue.router)
    app.include_router(discovery.router)
    app.include_router(card_feedback.router)
    add_health(app, readiness, render_metrics)
    add_keys(app, settings)
    add_login(app, node)
    pages.add_pages(app, Pictures(node, decode))
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id", "traceparent", "tracestate"],
            expose_headers=["X-Request-Id", "Location", "Retry-After", "ETag"],
        )
    largest_image = encoded_size(settings.max_upload_bytes)
    app.add_middleware(
        Observation,
        open_service=OpenService(settings) if app.state.gate.open else None,
        largest_body=lambda path: dicomweb.largest_request(
            path,
            settings.dicomweb_max_request_bytes,
            largest_image
            if path in (ANALYZE, f"{TELEMEDICINE}/analyze")
            else settings.hooks_max_request_bytes
            if path.startswith(discovery.PREFIX)
            else MAX_BODY_BYTES,
        ),
        frame_ancestors=settings.frame_ancestors,
    )
    return app


@asynccontextmanager
async def _closing(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.ehr.close()
    app.state.login_flow.close()


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, with the schemas of bodies that are read as a stream."""
        if self.openapi_schema is None:
            document = super().openapi()
            schemas = document["components"]["schemas"]
            for name, schema in getattr(self.state, "extra_schemas", {}).items():
                parts = schema.pop("$defs", {})
                schemas |= {name: schema, **{k: v for k, v in parts.items() if k not in schemas}}
            _only_problems(document)
        return self.openapi_schema or {}


def _only_problems(document: dict[str, Any]) -> None:
    """Errors are problems or OperationOutcomes here: FastAPI's own 422 and its plain JSON variants go."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, response in list(operation["responses"].items()):
                content = response.get("content", {})
                if any("problem" in kind or "fhir" in kind for kind in content) and int(status) >= 400:
                    content.pop("application/json", None)
                elif status == "422":
                    del operation["responses"][status]
            if path.startswith("/cds-services"):
                operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
