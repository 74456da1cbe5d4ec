"""FHIR R4 read side: CapabilityStatement, read, vread and search of our own resources. Nothing can be written.

https://hl7.org/fhir/R4/http.html. Authorised as the REST API is; the routes are not in the OpenAPI document, since the
CapabilityStatement describes them. Everything but success is an OperationOutcome; every look leaves an audit leaf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from cds_service.api.fhir_forms import as_fhir, check_form, unchanged
from cds_service.api.fhir_query import PAGE, Asked, next_page, read_search
from cds_service.api.fhir_stored import (
    MOST_READ,
    KnownDevices,
    Stored,
    count_all,
    devices_for,
    find_page,
    former,
    newest,
    patients_of,
    resources,
)
from cds_service.api.refusals import MalformedRequest, NotFound, UnsupportedMediaType
from cds_service.api.stored import node_of
from cds_service.authorization import Caller, Reader
from cds_service.node import Node
from dermoscopy.domain import PatientIdentity
from dermoscopy.ports import AuditEntry
from dermoscopy.tables import utc_now
from fhir_adapters.elements import JsonObject
from fhir_adapters.facade import analysis_of, searchset
from fhir_adapters.facade_capability import capability_statement
from fhir_adapters.facade_types import TYPES, ServedType

PREFIX: Final = "/fhir"
_FORM: Final = "application/x-www-form-urlencoded"
_LONGEST_VERSION: Final = 6
_SHORT = (
    f"Only the {MOST_READ} newest analyses from here on were looked through, and this page ended there: follow the "
    "next link for more, or narrow the search by patient, date, study or _lastUpdated."
)

router = APIRouter(prefix=PREFIX, tags=["FHIR"], include_in_schema=False)


def base_of(node: Node) -> str:
    """Service base URL (https://hl7.org/fhir/R4/http.html#root)."""
    return f"{node.settings.resolved_public_url}{PREFIX}"


def add_fhir(app: FastAPI, node: Node, version: str) -> None:
    """Add the endpoints to ``app``; ``version`` is that of the software."""
    cors = bool(node.settings.cors_origins)
    app.state.fhir_capability = capability_statement(base_of(node), version, utc_now(), cors=cors)
    app.state.fhir_devices = KnownDevices(node)
    app.include_router(router)


@router.get("/metadata")
def metadata(request: Request) -> Response:
    """CapabilityStatement; open to anybody, since it says nothing of anybody."""
    check_form(request)
    return as_fhir(request.app.state.fhir_capability)


@router.get("/{kind}/{logical_id}")
def read(request: Request, caller: Reader, kind: str, logical_id: str) -> Response:
    """The present version, or 304 (https://hl7.org/fhir/R4/http.html#read)."""
    check_form(request, query=("_format",))
    served = _served(kind)
    node = node_of(request)
    if served.name == "Device":
        known: KnownDevices = request.app.state.fhir_devices
        device = known.find(logical_id)
        if device is None:
            raise NotFound(_ABSENT)
        found = device
    else:
        found = _resource(node, _newest(node, logical_id), served, logical_id, caller)
    return unchanged(request, found) or as_fhir(found, versioned=True)


@router.get("/{kind}/{logical_id}/_history/{version}")
def vread(request: Request, caller: Reader, kind: str, logical_id: str, version: str) -> Response:
    """A version as it was (https://hl7.org/fhir/R4/http.html#vread)."""
    check_form(request, query=("_format",))
    served = _served(kind)
    if served.name == "Device":
        raise NotFound("Devices have no former versions here.")
    if not (version.isascii() and version.isdecimal() and len(version) <= _LONGEST_VERSION and int(version) >= 1):
        raise NotFound("There is no such version.")
    node = node_of(request)
    now = _newest(node, logical_id)
    with node.begin() as session:
        stored = former(session, now, int(version) - 1)
    if stored is None:
        raise NotFound("There is no such version.")
    return as_fhir(_resource(node, stored, served, logical_id, caller), versioned=True)


@router.get("/{kind}")
def search(request: Request, caller: Reader, kind: str) -> Response:
    """Search by parameters in the address (https://hl7.org/fhir/R4/http.html#search), none of which names a patient."""
    check_form(request)
    return _search(request, caller, _served(kind), ())


@router.post("/{kind}/_search")
async def search_by_post(request: Request, caller: Reader, kind: str) -> Response:
    """Search by parameters in the body; a patient's identifier stands there and nowhere else."""
    check_form(request)
    served = _served(kind)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in (_FORM, ""):
        raise UnsupportedMediaType(f"Send the parameters as {_FORM}.")
    try:
        given = parse_qsl((await request.body()).decode("utf-8"), keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        raise MalformedRequest(f"The body is not {_FORM} in UTF-8.") from None
    return await run_in_threadpool(_search, request, caller, served, given)


def _search(request: Request, caller: Caller, served: ServedType, given: Sequence[tuple[str, str]]) -> Response:
    node = node_of(request)
    asked = read_search(served, request.query_params.multi_items(), given)
    with node.begin() as session:
        patients = patients_of(node, session, asked)
    links = {"self": _address(node, served, urlencode(_own(request, asked)))}
    if asked.only_count:
        total = _count(node, asked, patients)
        _note_search(node, caller, asked, patients, total, ())
        return as_fhir(searchset(base_of(node), (), links=links, total=total))
    if served.name == "Device":
        found = devices_for(node, asked)
        return as_fhir(searchset(base_of(node), found, links=links, total=len(found)))
    page = find_page(node, asked, patients)
    if page.after is not None:
        links["next"] = _address(node, served, next_page(asked, page.after))
    _note_search(node, caller, asked, patients, len(page.matches), page.analyses)
    warning = _SHORT if page.cut else ""
    return as_fhir(searchset(base_of(node), page.matches, page.others, links=links, warning=warning))


def _own(request: Request, asked: Asked) -> list[tuple[str, str]]:
    """What the self link says: the search as it was understood, without the patient."""
    if asked.after is not None:
        return [(PAGE, request.query_params.get(PAGE, ""))]
    return list(asked.shown)


def _address(node: Node, served: ServedType, query: str) -> str:
    return f"{base_of(node)}/{served.name}" + (f"?{query}" if query else "")


def _count(node: Node, asked: Asked, patients: Sequence[PatientIdentity] | None) -> int:
    if asked.served.name == "Device":
        return len(devices_for(node, asked))
    total = count_all(node, asked, patients)
    if total is None:
        raise MalformedRequest(
            f"To count these, more than {MOST_READ} analyses would have to be looked through: narrow the search by "
            "patient, date, study or _lastUpdated."
        )
    return total


def _served(kind: str) -> ServedType:
    if kind not in TYPES:
        raise NotFound(f"Served here: {', '.join(TYPES)}; GET {PREFIX}/metadata says how.")
    return TYPES[kind]


_ABSENT = "There is no such resource. Results that are still under way, or failed, have none."


def _newest(node: Node, logical_id: str) -> Stored:
    analysis_id = analysis_of(logical_id)
    if analysis_id:
        with node.begin() as session:
            found = newest(session, analysis_id)
        if found is not None:
            return found
    raise NotFound(_ABSENT)


def _resource(node: Node, stored: Stored, served: ServedType, logical_id: str, caller: Caller) -> JsonObject:
    for one in resources(node, stored):
        if one["resourceType"] == served.name and one["id"] == logical_id:
            with node.begin() as session:
                node.audit.append(
                    session,
                    AuditEntry(
                        action="analysis.read",
                        actor=caller.name,
                        subject_type="analysis",
                        subject_id=stored.edition.analysis_id,
                        patient_issuer=stored.patient.issuer,
                        patient_id=stored.patient.patient_id,
                        details={"what": f"fhir {served.name}", "version": stored.edition.version},
                    ),
                )
            return one
    raise NotFound(_ABSENT)


def _note_search(
    node: Node,
    caller: Caller,
    asked: Asked,
    patients: Sequence[PatientIdentity] | None,
    found: int,
    analyses: Sequence[str],
) -> None:
    patient = node.issuers.canonical(patients[0]) if patients else PatientIdentity("", "")
    details: dict[str, Any] = {"type": asked.served.name, "keys": sorted(asked.keys), "found": found}
    with node.begin() as session:
        node.audit.append(
            session,
            AuditEntry(
                action="fhir.searched",
                actor=caller.name,
                subject_type="patient" if patients else "fhir",
                subject_id="",
                patient_issuer=patient.issuer,
                patient_id=patient.patient_id,
                details={**details, "analyses": list(analyses)},
            ),
        )
