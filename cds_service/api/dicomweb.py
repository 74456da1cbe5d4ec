"""DICOMweb (PS3.18): STOW-RS through the one door, QIDO-RS and WADO-RS for source instances and our results.

Authorised as the REST API is. The routes are not in the OpenAPI document: PS3.18 describes them, docs/dicomweb.md says
what is supported. No address and no log line carries more than UIDs; every look leaves a leaf in the audit log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from cds_service.api.dicomweb_catalogue import find_objects
from cds_service.api.dicomweb_multipart import new_boundary, read_parts, write_parts
from cds_service.api.refusals import MalformedRequest, NotAcceptable, NotFound, UnsupportedMediaType
from cds_service.api.stored import node_of
from cds_service.authorization import Caller, Reader, Submitter
from cds_service.listening import rules
from cds_service.node import Node
from cds_service.watermarks import Watermarks
from dermoscopy.domain import ImageHeader
from dermoscopy.errors import IntegrityViolation, Rejected, UnreadableObject
from dermoscopy.ports import AuditEntry
from dermoscopy.routing import Route
from dicom_listener import dicomweb_search as qido
from dicom_listener.dicomweb_json import Headers, JsonDataset, StoredObject, metadata
from dicom_listener.dicomweb_media import (
    DICOM,
    DICOM_JSON,
    MULTIPART,
    choose,
    content_type,
    wanted_frames,
    wanted_instances,
)
from dicom_listener.dicomweb_retrieve import (
    RENDERED,
    Form,
    NoSuchPart,
    as_file,
    bulk,
    form_of_file,
    form_of_pixels,
    frames,
    read_viewport,
    rendered,
)
from dicom_listener.dicomweb_search import BadQuery, Query
from dicom_listener.dicomweb_store import Outcome, Storage, response, status_for
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN

ROOT: Final = "/dicom-web"
SOURCE: Final = "stow"
_JSON: Final = (DICOM_JSON, "application/json")
_LONGEST_BOUNDARY: Final = 200
"""RFC 2046 allows 70 characters; Orthanc sends 73."""
_STUDY: Final = "/studies/{study}"
_SERIES: Final = "/studies/{study}/series/{series}"
_INSTANCE: Final = "/studies/{study}/series/{series}/instances/{instance}"

router = APIRouter(prefix=ROOT, tags=["DICOMweb"], include_in_schema=False)


@dataclass(frozen=True, slots=True)
class _Web:
    """What the routes of one application share."""

    storage: Storage
    headers: Headers
    base: str


def add_dicomweb(app: FastAPI, node: Node) -> None:
    """Add the endpoints to ``app``. Raises `Misconfigured` when a routing rule is wrong."""

    def accept(data: bytes, header: ImageHeader, caller: str, route: Route) -> bool:
        return bool(node.intake.accept(data, header, source=SOURCE, caller=caller, route=route).hold)

    def reject(error: Rejected, header: ImageHeader | None, caller: str, digest: str) -> None:
        node.intake.reject(error, digest=digest, source=SOURCE, caller=caller, header=header)

    watermarks = Watermarks(node.settings, node.engine)
    storage = Storage(accept, reject, watermarks.check, rules(node.settings))
    app.state.dicomweb = _Web(storage, Headers(), f"{node.settings.resolved_public_url}{ROOT}")
    app.include_router(router)


def largest_request(path: str, limit: int, otherwise: int) -> int:
    """Largest body of ``path``: ``limit`` where objects are stored."""
    return limit if path.startswith(f"{ROOT}/studies") else otherwise


# -------------------------------------------------------------------------------------------------------------- STOW-RS


@router.post("/studies")
async def store(request: Request, caller: Submitter) -> Response:
    """Store instances of any study (PS3.18 10.5)."""
    return await _store(request, caller, "")


@router.post(_STUDY)
async def store_in_study(request: Request, caller: Submitter, study: str) -> Response:
    """Store instances of one study."""
    _check_uids(study)
    return await _store(request, caller, study)


async def _store(request: Request, caller: Caller, study: str) -> Response:
    kind = content_type(request.headers.get("content-type", ""))
    boundary = kind.parameters.get("boundary", "")
    if kind.kind != MULTIPART or kind.parameters.get("type", DICOM).lower() != DICOM:
        raise UnsupportedMediaType(f'Send {MULTIPART}; type="{DICOM}" with one DICOM file in each part.')
    if not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise MalformedRequest(
            f"The Content-Type names no boundary, or one of more than {_LONGEST_BOUNDARY} characters."
        )
    if choose(_accept(request), _JSON) is None:
        raise NotAcceptable(f"The answer of STOW-RS comes as {DICOM_JSON}.")
    web: _Web = request.app.state.dicomweb
    await run_in_threadpool(web.storage.ready)
    largest = node_of(request).settings.dicom_max_object_bytes
    outcomes: list[Outcome] = []
    try:
        async for part in read_parts(request.stream(), boundary, largest):
            broken = "The object is larger than this service takes." if part.too_large else ""
            if content_type(part.headers.get("content-type", DICOM)).kind != DICOM:
                broken = f"The part is not {DICOM}."
            data = bytes(part.data)
            part.data = bytearray()
            outcomes.append(await run_in_threadpool(web.storage.store, data, caller.name, study=study, broken=broken))
    except ClientDisconnect as error:
        raise MalformedRequest("The sender went away in the middle of its request.") from error
    if not outcomes:
        raise MalformedRequest("The body holds no part.")
    status = status_for(outcomes)
    pause = max(one.retry_after for one in outcomes)
    headers = {"Retry-After": str(max(1, round(pause)))} if status == 503 else {}
    return Response(json.dumps(response(outcomes, web.base)), status, headers, media_type=DICOM_JSON)


# -------------------------------------------------------------------------------------------------------------- QIDO-RS


@router.get("/studies")
def search_studies(request: Request, caller: Reader) -> Response:
    """Search for studies (PS3.18 10.6)."""
    return _search(request, caller, qido.STUDIES)


@router.get("/series")
@router.get(f"{_STUDY}/series")
def search_series(request: Request, caller: Reader) -> Response:
    """Search for series, of one study or of all."""
    return _search(request, caller, qido.SERIES)


@router.get("/instances")
@router.get(f"{_STUDY}/instances")
@router.get(f"{_SERIES}/instances")
def search_instances(request: Request, caller: Reader) -> Response:
    """Search for instances, of one series, one study or of all."""
    return _search(request, caller, qido.INSTANCES)


def _search(request: Request, caller: Caller, level: str) -> Response:
    node, web = node_of(request), _web(request)
    media_type = choose(_accept(request), _JSON)
    if media_type is None:
        raise NotAcceptable(f"The answer of QIDO-RS comes as {DICOM_JSON}.")
    path = request.path_params
    within = {tag: path[name] for tag, name in ((qido.STUDY_UID, "study"), (qido.SERIES_UID, "series")) if name in path}
    _check_uids(*within.values())
    try:
        query = qido.parse_query(request.query_params.multi_items(), within)
    except BadQuery as error:
        raise MalformedRequest(f"{error}.") from error
    limit = node.settings.dicomweb_search_objects
    with node.begin() as session:
        found, cut = find_objects(
            session,
            limit=limit,
            studies=query.exact(qido.STUDY_UID),
            instances=query.exact(qido.SOP_UID) if level == qido.INSTANCES else (),
            patients=query.exact(qido.PATIENT_ID),
            accessions=query.exact(qido.ACCESSION),
        )
    rows = _rows(node, web, level, found, query)
    shown, more = qido.page(rows, query)
    with node.begin() as session:
        node.audit.append(
            session,
            AuditEntry(
                action="dicomweb.searched",
                actor=caller.name,
                subject_type="patient" if query.exact(qido.PATIENT_ID) else "study",
                subject_id="" if query.exact(qido.PATIENT_ID) else _study_of(query),
                patient_id=next(iter(query.exact(qido.PATIENT_ID)), ""),
                details={"level": level, "found": len(shown), "keys": sorted(query.keys)},
            ),
        )
    headers = _warnings(query, more=more > 0, cut=cut, limit=limit)
    if not shown:
        return Response(status_code=204, headers=headers)
    return Response(json.dumps(shown), 200, headers, media_type=media_type)


def _study_of(query: Query) -> str:
    studies = query.exact(qido.STUDY_UID)
    return studies[0] if len(studies) == 1 else ""


def _rows(node: Node, web: _Web, level: str, found: Sequence[StoredObject], query: Query) -> list[JsonDataset]:
    """Rows study by study, no further than one behind the last that is shown."""
    studies: dict[str, list[StoredObject]] = {}
    for stored in found:
        studies.setdefault(stored.study_instance_uid, []).append(stored)
    rows: list[JsonDataset] = []
    for objects in studies.values():
        headers = [header for stored in objects if (header := _header(node, web, stored)) is not None]
        rows += qido.search(level, headers, query, web.base)
        if len(rows) > query.offset + query.limit:
            break
    return rows


def _warnings(query: Query, *, more: bool, cut: bool, limit: int) -> dict[str, str]:
    """Warning header (PS3.18 8.3.4.4): what the answer leaves out."""
    said = []
    if more:
        said.append("There are additional results that can be requested")
    if cut:
        said.append(f"The search looked at the newest {limit} objects only: make it narrower")
    if query.fuzzy:
        said.append("The fuzzymatching parameter is not supported. Only literal matching has been performed.")
    return {"Warning": ", ".join(f'299 dermoscopy-cds "{text}"' for text in said)} if said else {}


# -------------------------------------------------------------------------------------------------------------- WADO-RS


@router.get(_STUDY)
@router.get(_SERIES)
@router.get(_INSTANCE)
def retrieve(request: Request, caller: Reader) -> Response:
    """Whole instances (PS3.18 10.4.1.1.1)."""
    node = node_of(request)
    found = _found(request)
    wanted = wanted_instances(_accept(request), one="instance" in request.path_params)
    forms: list[Form] = []
    for stored in found:
        form = form_of_file(wanted, stored.syntax or EXPLICIT_LITTLE_ENDIAN)
        if form is None:
            raise NotAcceptable(
                f'Instances come as {MULTIPART}; type="{DICOM}", in the transfer syntax in which they are stored '
                f"(transfer-syntax=*) or in {EXPLICIT_LITTLE_ENDIAN}."
            )
        forms.append(form)

    def file(stored: StoredObject, form: Form) -> bytes:
        return as_file(stored, _bytes(node, stored), form.syntax)

    first = file(found[0], forms[0])
    _note(node, caller, found, "instances")
    if forms[0].single:
        return Response(first, media_type=_typed(forms[0]))
    rest = ((_typed(form), "", file(stored, form)) for stored, form in zip(found[1:], forms[1:], strict=True))
    return _multipart(DICOM, chain([(_typed(forms[0]), "", first)], rest))


@router.get(f"{_STUDY}/metadata")
@router.get(f"{_SERIES}/metadata")
@router.get(f"{_INSTANCE}/metadata")
def retrieve_metadata(request: Request, caller: Reader) -> Response:
    """Everything but bulk data, as the DICOM JSON model (PS3.18 10.4.1.1.2)."""
    node, web = node_of(request), _web(request)
    media_type = choose(_accept(request), _JSON)
    if media_type is None:
        raise NotAcceptable(f"Metadata come as {DICOM_JSON}.")
    found = _found(request)
    answer = []
    for stored in found:
        header = _header(node, web, stored)
        assert header is not None  # `_found` has read it
        answer.append(metadata(stored, _bytes(node, stored), qido.address_of(header, web.base)))
    _note(node, caller, found, "metadata")
    return Response(json.dumps(answer), media_type=media_type)


@router.get(f"{_INSTANCE}/frames/{{numbers}}")
def retrieve_frames(request: Request, caller: Reader, numbers: str) -> Response:
    """Pixel data of frames, as stored or uncompressed (PS3.18 10.4.1.1.6)."""
    chosen = _frame_numbers(numbers)
    return _pixels(request, caller, "frames", lambda stored, data, form: frames(stored, data, chosen, form))


@router.get(f"{_INSTANCE}/bulkdata/{{tag}}")
def retrieve_bulk(request: Request, caller: Reader, tag: str) -> Response:
    """Where the metadata's BulkDataURI leads (PS3.18 10.4.1.1.5)."""
    if len(tag) != 8 or not set(tag.upper()) <= set("0123456789ABCDEF"):
        raise NotFound("There is no such bulk data: an address ends with a tag, such as 7FE00010.")
    return _pixels(request, caller, "bulk data", lambda stored, data, form: [bulk(stored, data, int(tag, 16), form)])


@router.get(f"{_INSTANCE}/rendered")
@router.get(f"{_INSTANCE}/frames/{{numbers}}/rendered")
def retrieve_rendered(request: Request, caller: Reader, numbers: str = "1") -> Response:
    """The picture of a single-frame instance as JPEG or PNG (PS3.18 10.4.1.1.3)."""
    media_type = choose(_accept(request), RENDERED)
    if media_type is None:
        raise NotAcceptable(f"Pictures come as {' or '.join(RENDERED)}.")
    if "numbers" in request.path_params and _frame_numbers(numbers) != [1]:
        raise NotFound("Objects here have one frame: ask for frames/1.")
    viewport, quality = request.query_params.get("viewport", ""), request.query_params.get("quality", "90")
    if not (quality.isascii() and quality.isdecimal() and 1 <= int(quality) <= 100):
        raise MalformedRequest("quality must be a whole number from 1 to 100.")
    try:
        if viewport:
            read_viewport(viewport)
    except Rejected as error:
        raise MalformedRequest(f"{error}.") from error
    node = node_of(request)
    (stored,) = _found(request)
    try:
        picture = rendered(stored, _bytes(node, stored), media_type, viewport, int(quality))
    except NoSuchPart as error:
        raise NotAcceptable(f"There is nothing to draw: {error}.") from error
    _note(node, caller, [stored], "picture")
    return Response(picture, media_type=media_type)


def _pixels(
    request: Request, caller: Caller, what: str, read: Callable[[StoredObject, bytes, Form], list[bytes]]
) -> Response:
    node = node_of(request)
    (stored,) = _found(request)
    form = form_of_pixels(wanted_frames(_accept(request)), stored.syntax or EXPLICIT_LITTLE_ENDIAN)
    if form is None:
        raise NotAcceptable(
            f'Pixels come as {MULTIPART}; type="application/octet-stream" uncompressed, or as they are stored '
            f"(transfer syntax {stored.syntax or EXPLICIT_LITTLE_ENDIAN})."
        )
    try:
        parts = read(stored, _bytes(node, stored), form)
    except NoSuchPart as error:
        raise NotFound(f"{error}.".capitalize()) from error
    _note(node, caller, [stored], what)
    if form.single and len(parts) == 1:
        return Response(parts[0], media_type=form.media_type)
    return _multipart(form.media_type, ((_typed(form), "", data) for data in parts))


# ------------------------------------------------------------------------------------------------------- shared by them


def _web(request: Request) -> _Web:
    web: _Web = request.app.state.dicomweb
    return web


def _accept(request: Request) -> str:
    """The Accept header, or the query parameter in its place (PS3.18 8.3.3.1), in which a ``+`` may have been lost."""
    asked = request.query_params.get("accept", "").replace("dicom json", "dicom+json")
    return asked or request.headers.get("accept", "")


def _check_uids(*uids: str) -> None:
    for uid in uids:
        if not 0 < len(uid) <= 64 or not set(uid) <= set("0123456789."):
            raise MalformedRequest("The address holds something else than UIDs (PS3.5 9.1).")


def _frame_numbers(text: str) -> list[int]:
    parts = text.split(",")
    if len(parts) > 1000 or not all(0 < len(p) < 7 and p.isascii() and p.isdecimal() for p in parts):
        raise MalformedRequest("Frames are whole numbers from 1, with commas between them.")
    return [int(part) for part in parts]


def _found(request: Request) -> list[StoredObject]:
    """The objects of a retrieval's address. Raises `NotFound`."""
    node, web = node_of(request), _web(request)
    path: dict[str, Any] = request.path_params
    study, series, instance = path["study"], path.get("series", ""), path.get("instance", "")
    _check_uids(*(path[name] for name in ("study", "series", "instance") if name in path))
    with node.begin() as session:
        stored, _ = find_objects(
            session,
            limit=node.settings.dicomweb_search_objects,
            studies=[study],
            instances=[instance] if instance else (),
            former=bool(instance),
        )
    found = []
    for one in stored:
        header = _header(node, web, one)
        if header is not None and (not series or qido.uid_of(header, qido.SERIES_UID) == series):
            found.append(one)
    if not found:
        raise NotFound(
            "There is no such object here, or it may not be shown: it waits for a person or for its results."
        )
    return found


def _header(node: Node, web: _Web, stored: StoredObject) -> JsonDataset | None:
    """Header of an object; ``None`` for one that cannot be read, which must not hide the others."""
    try:
        return web.headers.read(stored, lambda: _bytes(node, stored))
    except UnreadableObject:
        return None


def _bytes(node: Node, stored: StoredObject) -> bytes:
    try:
        return node.blobs.get(stored.digest)
    except KeyError as error:
        raise IntegrityViolation("the bytes of a stored object are gone from the object store") from error


def _typed(form: Form) -> str:
    return f"{form.media_type}; transfer-syntax={form.syntax}"


def _multipart(kind: str, parts: Iterator[tuple[str, str, bytes]]) -> Response:
    boundary = new_boundary()
    return StreamingResponse(
        write_parts(parts, boundary), media_type=f'{MULTIPART}; type="{kind}"; boundary={boundary}'
    )


def _note(node: Node, caller: Caller, found: Sequence[StoredObject], what: str) -> None:
    """One leaf per patient in the audit log: who looked at what."""
    by_patient = sorted(found, key=lambda one: (one.patient.issuer, one.patient.patient_id))
    with node.begin() as session:
        for patient, objects in groupby(by_patient, key=lambda one: one.patient):
            listed = list(objects)
            node.audit.append(
                session,
                AuditEntry(
                    action="dicomweb.read",
                    actor=caller.name,
                    subject_type="study",
                    subject_id=listed[0].study_instance_uid,
                    patient_issuer=patient.issuer,
                    patient_id=patient.patient_id,
                    details={
                        "what": what,
                        "instances": len(listed),
                        "sop_instance_uid": listed[0].sop_instance_uid if len(listed) == 1 else "",
                    },
                ),
            )
