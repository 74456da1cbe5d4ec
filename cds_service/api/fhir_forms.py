"""Forms of an answer of the FHIR read side: JSON alone, with its version as ETag (https://hl7.org/fhir/R4/http.html)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from email.utils import format_datetime

from fastapi import Request, Response

from cds_service.api.refusals import MalformedRequest, NotAcceptable
from fhir_adapters.elements import FHIR_JSON, JsonObject
from fhir_adapters.facade import etag
from fhir_adapters.facade_capability import FHIR_VERSION

_FORMATS = ("json", "application/json", FHIR_JSON)
_RANGES = ("*/*", "application/*", *_FORMATS[1:])
_ONLY = f"Answers come as {FHIR_JSON} (FHIR {FHIR_VERSION}) and in no other form."


def check_form(request: Request, *, query: Sequence[str] | None = None) -> None:
    """Raises `NotAcceptable` for a form that there is not, and `MalformedRequest` for parameters other than ``query``.

    ``_format`` goes before the Accept header (https://hl7.org/fhir/R4/http.html#mime-type).
    """
    if query is not None and set(request.query_params) - set(query):
        raise MalformedRequest(f"Served here: {', '.join(query) or 'no parameters'}.")
    wanted = request.query_params.get("_format")
    if wanted is not None:
        if wanted.partition(";")[0].strip().lower().replace(" ", "+") not in _FORMATS:
            raise NotAcceptable(_ONLY)
        return
    if not accepts(request.headers.get("accept", ""), _RANGES):
        raise NotAcceptable(_ONLY)


def accepts(header: str, ranges: Sequence[str]) -> bool:
    """Whether an Accept header names one of ``ranges``; an empty one names them all."""
    if not header.strip():
        return True
    for one in header.split(","):
        kind, *parameters = [part.strip().lower() for part in one.split(";")]
        said = dict(part.partition("=")[::2] for part in parameters)
        version = said.get("fhirversion", "4.0").strip('"')
        if kind in ranges and version in ("4.0", FHIR_VERSION) and said.get("q", "1").rstrip(".0") not in ("", "0"):
            return True
    return False


def as_fhir(resource: JsonObject, *, versioned: bool = False) -> Response:
    """``resource`` as an answer; ``versioned`` with ETag and Last-Modified."""
    headers = {"Cache-Control": "private, no-cache"}
    if versioned:
        headers |= _version(resource)
    body = json.dumps(resource, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Response(body, headers=headers, media_type=FHIR_JSON)


def unchanged(request: Request, resource: JsonObject) -> Response | None:
    """304 where If-None-Match names this version (https://hl7.org/fhir/R4/http.html#cread)."""
    tags = [one.strip() for one in request.headers.get("if-none-match", "").split(",")]
    own = etag(resource["meta"]["versionId"])
    if own in tags or own.removeprefix("W/") in tags or "*" in tags:
        return Response(status_code=304, headers={"Cache-Control": "private, no-cache", **_version(resource)})
    return None


def _version(resource: JsonObject) -> dict[str, str]:
    moment = datetime.fromisoformat(resource["meta"]["lastUpdated"])
    return {"ETag": etag(resource["meta"]["versionId"]), "Last-Modified": format_datetime(moment, usegmt=True)}
