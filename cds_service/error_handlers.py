"""One table: which error gets which HTTP status and title. Problem details everywhere (RFC 9457), except that
``/cds-services`` and ``/fhir`` answer with an OperationOutcome (https://cds-hooks.hl7.org/2.0/) and pages with a page.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from opentelemetry import trace
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import Match

from cds_service.api import refusals
from cds_service.api.refusals import PROBLEM, FieldError, ProblemDetails, Refusal
from cds_service.login import refusals as login_refusals
from dermoscopy import errors

log = structlog.get_logger(__name__)

ANSWERS: Mapping[type[Exception], tuple[int, str]] = {
    refusals.MalformedRequest: (400, "Malformed request"),
    refusals.NotAuthenticated: (401, "Not authenticated"),
    refusals.LoginNeeded: (401, "Log in"),
    refusals.NotAllowed: (403, "Not allowed"),
    login_refusals.LoginFailed: (403, "Login failed"),
    refusals.CrossSiteRequest: (403, "Cross-site request"),
    refusals.NotFound: (404, "Not found"),
    refusals.NotAcceptable: (406, "Not acceptable"),
    refusals.NotReady: (409, "Not ready"),
    refusals.AlreadyDecided: (409, "Already decided"),
    refusals.ReviewConflict: (409, "Reviewed meanwhile"),
    refusals.PrefetchMissing: (412, "Prefetch missing"),
    refusals.TooLarge: (413, "Too large"),
    refusals.UnsupportedMediaType: (415, "Unsupported media type"),
    refusals.Misdirected: (421, "Misdirected request"),
    refusals.InvalidRequest: (422, "Invalid request"),
    errors.UnreadableObject: (422, "Unreadable object"),
    errors.UnsupportedTransferSyntax: (415, "Unsupported transfer syntax"),
    errors.UnsupportedSopClass: (415, "Unsupported SOP class"),
    errors.UnsupportedImage: (422, "Unsupported image"),
    errors.NotDermoscopic: (422, "Not a dermoscopic image"),
    errors.UnknownPatient: (422, "Unknown patient"),
    errors.Rejected: (422, "Rejected"),
    errors.AnalysisFailed: (422, "Analysis failed"),
    errors.StorageFull: (507, "Storage full"),
    errors.Unavailable: (503, "Temporarily unavailable"),
    errors.IntegrityViolation: (500, "Integrity violation"),
    errors.DermoscopyError: (500, "Internal error"),
    OperationalError: (503, "Database unavailable"),
    PoolTimeout: (503, "Database unavailable"),
}
"""Looked up along the class hierarchy: the nearest entry answers. What is not here is a 500 without details."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_UNSAID = "The service could not do this now; the log has the details under the trace id."
CDS_PREFIX = "/cds-services"
_OUTCOMES = (CDS_PREFIX, "/fhir")
"""What answers with an OperationOutcome."""


def slug_of(kind: type[Exception]) -> str:
    """``UnsupportedSopClass`` → ``unsupported-sop-class``: the fragment of the problem type."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower()


def answer_for(error: Exception) -> tuple[type[Exception], int, str]:
    """(table entry, status, title) for ``error``."""
    for kind in type(error).__mro__:
        if kind in ANSWERS:
            return kind, *ANSWERS[kind]
    return Exception, 500, "Internal error"


def problem_of(error: Exception) -> tuple[ProblemDetails, dict[str, str]]:
    """The problem an error is told as, and its headers. Nothing of an unknown error is repeated."""
    kind, status, title = answer_for(error)
    members: dict[str, Any] = {}
    headers: dict[str, str] = {}
    detail = _UNSAID
    if isinstance(error, Refusal):
        detail, members, headers = error.detail, error.members, error.headers
    elif isinstance(error, errors.IntegrityViolation):
        detail = "Stored data is not what it was: the service stops here, a person must look."
    elif isinstance(error, errors.DermoscopyError):
        detail = str(error)
    if isinstance(error, errors.Unavailable):
        headers = {"Retry-After": str(max(1, math.ceil(error.retry_after or 5)))}
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers = {"Retry-After": "1"}
    problem = ProblemDetails(
        type=f"/docs#{slug_of(kind)}", title=title, status=status, detail=detail, trace_id=trace_id(), **members
    )
    return problem, headers


def trace_id() -> str | None:
    """W3C trace id of this request, else its request id: what a person names when asking for help."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        return f"{context.trace_id:032x}"
    return structlog.contextvars.get_contextvars().get("request_id")


def respond(path: str, accept: str, problem: ProblemDetails, headers: Mapping[str, str]) -> Response:
    """``problem`` in the language of the part of the service that ``path`` belongs to."""
    if path.startswith(_OUTCOMES):
        return JSONResponse(operation_outcome(problem), problem.status, headers, media_type="application/fhir+json")
    if "text/html" in accept and not path.startswith(("/api/", "/dicom-web/")):
        from cds_service.web.templating import problem_page  # pages import the refusals of this edge

        return HTMLResponse(problem_page(problem), problem.status, headers)
    return JSONResponse(problem.model_dump(exclude_none=True), problem.status, headers, media_type=PROBLEM)


def operation_outcome(problem: ProblemDetails) -> dict[str, Any]:
    """OperationOutcome (https://hl7.org/fhir/R4/operationoutcome.html) that says what ``problem`` says."""
    code = _ISSUE_CODES.get(problem.status, "exception" if problem.status >= 500 else "invalid")
    texts = [f"{e.pointer}: {e.detail}" for e in problem.errors or []] or [problem.detail or problem.title]
    issues: list[dict[str, Any]] = [{"severity": "error", "code": code, "diagnostics": text} for text in texts]
    if problem.trace_id and problem.status >= 500:
        issues[0]["diagnostics"] += f" (trace {problem.trace_id})"
    return {"resourceType": "OperationOutcome", "issue": issues}


_ISSUE_CODES = {
    401: "login",
    403: "forbidden",
    404: "not-found",
    405: "not-supported",
    406: "not-supported",
    409: "conflict",
    412: "required",
    413: "too-long",
    415: "not-supported",
    503: "transient",
    507: "transient",
}


def field_errors(error: RequestValidationError) -> list[FieldError]:
    """Each wrong field with a JSON pointer (body) or the name of its parameter; values are never repeated."""
    found = []
    for item in error.errors():
        place, *rest = item["loc"]
        if place == "body":
            pointer = "#" + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in rest)
        else:
            pointer = f"{place}:{'.'.join(str(part) for part in rest)}"
        text = "this field is not known here" if item["type"] == "extra_forbidden" else item["msg"]
        found.append(FieldError(pointer=pointer, detail=text))
    return found


def as_refusal(error: RequestValidationError | HTTPException, *, cds: bool) -> Exception:
    """FastAPI's own errors as ours. CDS Hooks knows 400 and 412, not 422."""
    if isinstance(error, RequestValidationError):
        broken = next((e for e in error.errors() if e["type"] == "json_invalid"), None)
        if broken is not None:
            reason = broken.get("ctx", {}).get("error", "invalid JSON")
            return refusals.MalformedRequest(f"The body is not JSON: {reason} at character {broken['loc'][-1]}.")
        wrong = refusals.InvalidRequest(field_errors(error))
        return refusals.MalformedRequest(wrong.detail, errors=wrong.members["errors"]) if cds else wrong
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return refusals.TooLarge("The body is larger than this endpoint takes.")
    if error.status_code == HTTPStatus.NOT_FOUND:
        return refusals.NotFound("There is nothing at this address.")
    if error.status_code == HTTPStatus.BAD_REQUEST:
        return refusals.MalformedRequest("The body cannot be read as what its Content-Type says.")
    return error


def _reads_pages(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _asked(request: Request) -> str:
    return f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path


def _allowed(request: Request) -> str:
    """Every method of this address (RFC 9110 10.2.1): the router knows only those of the first route that fits."""
    routes = request.app.router.routes
    known = [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return ", ".join(known)


def install_error_handlers(app: FastAPI) -> None:
    """Register the handlers; what they do not know reaches `cds_service.api.observation`, the outermost loop."""

    async def handle(request: Request, error: Exception) -> Response:
        cds = request.url.path.startswith(_OUTCOMES)
        if isinstance(error, RequestValidationError | HTTPException):
            error = as_refusal(error, cds=cds)
        if isinstance(error, HTTPException):
            title = HTTPStatus(error.status_code).phrase
            problem = ProblemDetails(type="about:blank", title=title, status=error.status_code, trace_id=trace_id())
            headers = dict(error.headers or {})
            if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
                headers["Allow"] = _allowed(request)
        else:
            problem, headers = problem_of(error)
        if isinstance(error, refusals.LoginNeeded) and request.method == "GET" and _reads_pages(request):
            return RedirectResponse(f"/login?{urlencode({'next': _asked(request)})}", HTTPStatus.SEE_OTHER)
        if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("http.failed", status=problem.status, error=type(error).__name__, exc_info=error)
        return respond(request.url.path, request.headers.get("accept", ""), problem, headers)

    for kind in (RequestValidationError, HTTPException, Refusal, errors.DermoscopyError, OperationalError, PoolTimeout):
        app.add_exception_handler(kind, handle)
