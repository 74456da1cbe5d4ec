"""The outermost loop around every request: request id, trace, log line, metric, and the only ``except Exception``.

Logs and spans carry the route's template and never a path, a query string, a header or a body. FastAPI's own telemetry
is switched off for that reason: it records query strings and the text of exceptions.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from opentelemetry import metrics, propagate, trace
from opentelemetry.trace import SpanKind, StatusCode
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cds_service.api.refusals import Refusal, TooLarge
from cds_service.authorization import OpenService
from cds_service.error_handlers import problem_of, respond

log = structlog.get_logger(__name__)
_tracer = trace.get_tracer(__name__)
_seconds = metrics.get_meter(__name__).create_histogram(
    "cds_http_seconds", unit="s", description="duration of HTTP requests by route and status"
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_QUIET = frozenset({"/health/live", "/health/ready", "/metrics"})


def security_headers(frame_ancestors: Sequence[str] = ()) -> dict[str, str]:
    """Headers of every answer. No page loads anything from elsewhere, and only these origins show one in a frame."""
    ancestors = " ".join(frame_ancestors) or "'none'"
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",  # with "no-referrer" our own forms would come with the Origin "null"
        "Content-Security-Policy": (
            "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
            f"base-uri 'none'; form-action 'self'; frame-ancestors {ancestors}"
        ),
    }
    return headers if frame_ancestors else headers | {"X-Frame-Options": "DENY"}


class Observation:
    """ASGI middleware.

    ``open_service`` is set when no tokens protect the service; ``largest_body`` says how many bytes a path takes. A
    body that says it is larger is not read at all, one that turns out to be larger is read no further.
    """

    def __init__(
        self,
        app: ASGIApp,
        open_service: OpenService | None,
        largest_body: Callable[[str], int],
        frame_ancestors: Sequence[str] = (),
    ) -> None:
        self._app = app
        self._open_service = open_service
        self._largest_body = largest_body
        self._headers = security_headers(frame_ancestors)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
        status, began = 0, time.perf_counter()

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answer = MutableHeaders(scope=message)
                answer["X-Request-Id"] = request_id
                for name, value in self._headers.items():
                    answer.setdefault(name, value)
                answer.setdefault("Cache-Control", "no-store")
            await send(message)

        parent = propagate.extract({name: headers[name] for name in ("traceparent", "tracestate") if name in headers})
        method = scope["method"]
        with (
            structlog.contextvars.bound_contextvars(request_id=request_id),
            _tracer.start_as_current_span(
                method, context=parent, kind=SpanKind.SERVER, record_exception=False, set_status_on_exception=False
            ) as span,
        ):
            try:
                if self._open_service is not None:
                    self._check_open(self._open_service, scope, headers)
                limit = self._largest_body(scope["path"])
                if headers.get("content-length", "").isdecimal() and int(headers["content-length"]) > limit:
                    raise TooLarge(f"The body is larger than the {limit} bytes that this endpoint takes.")
                await self._app(scope, _counted(receive, limit), send_marked)
            except Exception as error:
                if not isinstance(error, Refusal):
                    log.exception("http.broke", error=type(error).__name__, trace_id=_trace_id(span))
                if status:  # the answer is half sent: all that is left is to cut it off
                    raise
                problem, extra = problem_of(error)
                await respond(scope["path"], headers.get("accept", ""), problem, extra)(scope, receive, send_marked)
            finally:
                route = _route(scope)
                span.update_name(f"{method} {route}")
                span.set_attributes(
                    {"http.request.method": method, "http.route": route, "http.response.status_code": status}
                )
                if status >= 500:
                    span.set_status(StatusCode.ERROR)
                seconds = time.perf_counter() - began
                _seconds.record(seconds, {"method": method, "route": route, "status": status})
                level = log.debug if route in _QUIET and status < 500 else log.info
                level("http.request", method=method, route=route, status=status, ms=round(seconds * 1000, 1))

    @staticmethod
    def _check_open(rules: OpenService, scope: Scope, headers: Headers) -> None:
        rules.check(
            scope["method"],
            scope.get("scheme", "http"),
            headers.get("host", ""),
            headers.get("origin", ""),
            headers.get("sec-fetch-site", ""),
        )


def _counted(receive: Receive, limit: int) -> Receive:
    """``receive`` that stops at ``limit`` bytes (an `HTTPException`, since FastAPI lets nothing else through)."""
    total = 0

    async def receive_counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise HTTPException(413)
        return message

    return receive_counted


def _route(scope: Scope) -> str:
    template: Any = getattr(scope.get("route"), "path_format", None)
    return template if isinstance(template, str) else "unmatched"


def _trace_id(span: trace.Span) -> str:
    context = span.get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""
