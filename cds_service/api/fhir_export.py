"""``$export`` of all results (https://hl7.org/fhir/uv/bulkdata/export.html): kick-off, status, files, removal.

System level; for the role admin. An export is one piece of durable work: it goes on after a crash, on any node.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Annotated, Final
from uuid import UUID, uuid4

from fastapi import APIRouter, FastAPI, Path, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import TypeAdapter, ValidationError

from cds_service.api.fhir_forms import accepts, check_form
from cds_service.api.moments import Moment
from cds_service.api.refusals import MalformedRequest, NotAcceptable, NotFound
from cds_service.api.stored import node_of
from cds_service.authorization import Administrator, Caller
from cds_service.bulk_export import (
    DEVICE,
    SETTLE_SECONDS,
    Order,
    Part,
    exported_devices,
    lines,
    read_parts,
    whole_milliseconds,
)
from cds_service.node import Node
from dermoscopy.errors import DermoscopyError
from dermoscopy.ports import AuditEntry, JsonValue
from dermoscopy.tables import utc_now
from dermoscopy.workqueue import EXPORT, Work, WorkRecords
from fhir_adapters.elements import JsonObject, instant
from fhir_adapters.facade_types import TYPES

KEPT: Final = timedelta(hours=24)
"""How long an export can be fetched."""
NDJSON: Final = "application/fhir+ndjson"
_FORMATS: Final = (NDJSON, "application/ndjson", "ndjson")
_RANGES: Final = ("*/*", "application/*", NDJSON, "application/ndjson", "application/fhir+json")
_PARAMETERS: Final = ("_type", "_since", "_outputFormat")
_FILE = re.compile(r"([A-Za-z]{1,40})-([0-9]{1,7})\.ndjson")
_SINCE: Final[TypeAdapter[datetime]] = TypeAdapter(Moment)
_GONE: Final = f"There is no such export, or it is older than {KEPT.total_seconds() / 3600:.0f} hours: start another."

router = APIRouter(prefix="/fhir", tags=["FHIR"], include_in_schema=False)
JobId = Annotated[UUID, Path()]


def add_fhir_export(app: FastAPI, node: Node) -> None:
    """Add the endpoints to ``app``; before those of the read side, whose addresses are wider."""
    app.state.fhir_exports = WorkRecords(node.engine)
    app.include_router(router)


@router.get("/$export")
def start(request: Request, caller: Administrator) -> Response:
    """Kick-off: 202 and where to ask for its state."""
    check_form(request, query=(*_PARAMETERS, "_format"))
    prefer = ",".join(request.headers.getlist("prefer"))
    if "respond-async" not in [one.strip().lower() for one in re.split("[,;]", prefer)]:
        raise MalformedRequest("An export is asked for with the header Prefer: respond-async.")
    node = node_of(request)
    now = whole_milliseconds(utc_now())
    order = _order(request, caller, now)
    _records(request).remove_before(EXPORT, now - KEPT)
    job_id = str(uuid4())
    with node.begin() as session:
        node.queue.start(session, EXPORT, job_id, order.as_text(), delay_seconds=SETTLE_SECONDS)
        details: dict[str, JsonValue] = {"types": list(order.types), "since": order.since, "at": order.at}
        node.audit.append(session, _leaf(caller, "started", job_id, details))
    where = f"{_root(node)}/$export-status/{job_id}"
    return Response(status_code=202, headers={"Content-Location": where})


@router.get("/$export-status/{job_id}")
def status(request: Request, caller: Administrator, job_id: JobId) -> Response:
    """202 with how far it is, or the manifest."""
    check_form(request, query=("_format",))
    node = node_of(request)
    work, order = _find(request, job_id)
    if work.state == "failed":
        raise DermoscopyError("This export broke; the log says why. Delete it and start another.")
    if work.state != "done":
        return Response(status_code=202, headers={"X-Progress": work.state, "Retry-After": "2"})
    headers = {"Expires": format_datetime(work.asked_at + KEPT, usegmt=True)}
    manifest = _manifest(node, order, f"{_root(node)}/$export-file/{job_id}", read_parts(work.result))
    secured = not request.app.state.gate.open
    body = json.dumps({**manifest, "requiresAccessToken": secured})
    return Response(body, headers=headers, media_type="application/json")


@router.get("/$export-file/{job_id}/{name}")
def download(request: Request, caller: Administrator, job_id: JobId, name: str) -> Response:
    """One file: one resource on each line, all of one type."""
    if not accepts(request.headers.get("accept", ""), _RANGES):
        raise NotAcceptable(f"Files come as {NDJSON}.")
    node = node_of(request)
    work, order = _find(request, job_id)
    found = _FILE.fullmatch(name)
    parts = read_parts(work.result) if work.state == "done" else []
    if found is None or found[1] not in order.types or not 1 <= int(found[2]) <= len(parts):
        raise NotFound("There is no such file: the manifest of the export names them all.")
    kind, part = found[1], parts[int(found[2]) - 1]
    content = exported_devices(node, order) if kind == DEVICE else lines(node, order, kind, part)
    written = [
        _line(one) for one in content
    ]  # whole before the first byte goes out: what breaks is told, never cut off
    with node.begin() as session:
        details: dict[str, JsonValue] = {"file": name, "resources": len(written), "since": order.since, "at": order.at}
        node.audit.append(session, _leaf(caller, "exported", str(job_id), details))
    return StreamingResponse(_each(written), media_type=NDJSON)


@router.delete("/$export-status/{job_id}")
def remove(request: Request, caller: Administrator, job_id: JobId) -> Response:
    """Cancel it, or say that its files are no longer wanted: 202, and 404 from then on."""
    _find(request, job_id)
    _records(request).remove(str(job_id))
    node = node_of(request)
    with node.begin() as session:
        node.audit.append(session, _leaf(caller, "removed", str(job_id), {}))
    return Response(status_code=202)


def _records(request: Request) -> WorkRecords:
    found: WorkRecords = request.app.state.fhir_exports
    return found


def _find(request: Request, job_id: UUID) -> tuple[Work, Order]:
    work = _records(request).find(EXPORT, str(job_id))
    if work is None or work.asked_at + KEPT < utc_now():
        raise NotFound(_GONE)
    return work, Order.from_text(work.arguments[0])


def _order(request: Request, caller: Caller, now: datetime) -> Order:
    given = request.query_params
    if given.get("_outputFormat", NDJSON).replace(" ", "+") not in _FORMATS:
        raise MalformedRequest(f"_outputFormat: {NDJSON} is served, and no other.")
    types = tuple(dict.fromkeys(one for value in given.getlist("_type") for one in value.split(","))) or tuple(TYPES)
    if not set(types) <= set(TYPES):
        raise MalformedRequest(f"_type: served are {', '.join(TYPES)}.")
    since = ""
    if "_since" in given:
        try:
            since = _SINCE.validate_python(given["_since"].replace(" ", "+")).isoformat()
        except ValidationError:
            raise MalformedRequest("_since: write an instant, as 2026-03-14T09:26:53Z.") from None
    query = f"?{request.url.query}" if request.url.query else ""
    return Order(caller.name, now.isoformat(), since, types, f"{_root(node_of(request))}/$export{query}")


def _manifest(node: Node, order: Order, root: str, parts: Sequence[Part]) -> JsonObject:
    """https://hl7.org/fhir/uv/bulkdata/export.html#response---output-manifest"""
    output: list[JsonObject] = []
    for kind in order.types:
        if kind == DEVICE:
            if parts and exported_devices(node, order):
                output.append({"type": kind, "url": f"{root}/{kind}-1.ndjson"})
            continue
        for number, part in enumerate(parts, 1):
            one: JsonObject = {"type": kind, "url": f"{root}/{kind}-{number}.ndjson"}
            output.append({**one, "count": part.analyses} if kind == "DiagnosticReport" else one)
    at = instant(datetime.fromisoformat(order.at))
    return {"transactionTime": at, "request": order.request, "output": output, "error": []}


def _root(node: Node) -> str:
    return f"{node.settings.resolved_public_url}/fhir"


def _line(resource: JsonObject) -> bytes:
    return json.dumps(resource, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _each(written: Sequence[bytes]) -> Iterator[bytes]:
    yield from written


def _leaf(caller: Caller, what: str, job_id: str, details: dict[str, JsonValue]) -> AuditEntry:
    action = "fhir.exported" if what == "exported" else f"fhir.export_{what}"
    return AuditEntry(action=action, actor=caller.name, subject_type="export", subject_id=job_id, details=details)
