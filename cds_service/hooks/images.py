"""Images of a chart that were never analysed are taken in during a call, in the time that a call may take.

What came along (prefetch) is looked at first, what did not is searched at the call's FHIR server; bytes are fetched
from listed servers only. The patient is the chart's, never the picture's. The access token is not kept, so what is not
fetched within the call is tried at the next one. Every image is fetched once: what became of it is remembered.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

import anyio
import sqlalchemy as sa
import structlog
from fastapi.concurrency import run_in_threadpool
from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col, select

from cds_service.api.stored import READY
from cds_service.hooks.calls import Call, Chart, TakenIn
from cds_service.hooks.messages import HookRequest
from cds_service.node import Node
from dermoscopy.domain import ImageHeader, PatientIdentity
from dermoscopy.errors import DermoscopyError, Rejected, Unavailable
from dermoscopy.ports import JsonValue
from dermoscopy.settings import Role
from dermoscopy.tables import AnalysisRow, ArtifactRow, ChartImageRow, InstanceRow, utc_now
from fhir_adapters.fetch import Content, Place
from fhir_adapters.images import (
    SEARCHES,
    ChartImage,
    chart_images,
    image_bytes,
    inline_bytes,
    resources_of,
    wado_base,
)

log = structlog.get_logger(__name__)

PREFETCH: Final[Mapping[str, str]] = {"media": "Media", "documents": "DocumentReference", "studies": "ImagingStudy"}
"""Prefetch key → resource type."""
TEMPLATES: Final[Mapping[str, str]] = {
    key: f"{kind}?patient={{{{context.patientId}}}}&" + "&".join(f"{n}={v}" for n, v in SEARCHES[kind].items())
    for key, kind in PREFETCH.items()
}
SOURCE: Final = "ehr"
MAX_IMAGES: Final = 8
"""Images that are taken in during one call, the newest first."""
_PAUSE: Final = 0.05


def take_in(call: Call, request: HookRequest, chart: Chart, ends: float) -> TakenIn:
    """Take in what is new in the chart until ``ends`` (`time.monotonic`). Never raises for what an EHR answers."""
    settings = call.node.settings
    if settings.hooks_image_seconds == 0 or call.caller.role is Role.READ:
        return TakenIn()
    details: dict[str, JsonValue] = {}
    found = chart_images(_resources(call, request, ends, details), request.context.patient)
    if found.passed_over:
        details["passed_over"] = dict(found.passed_over)
    server = request.fhir_server or ""
    with call.node.begin() as session:
        new = _unknown(session, call.node, chart, server, found.images)
    if not new:
        return TakenIn(details=details)
    refused: list[tuple[str, str]] = []
    unfetched = [(image.key(server), "more images than one call takes in") for image in new[MAX_IMAGES:]]
    waiting: list[str] = []
    if not chart.identities:
        reason = "the patient in the chart has no identifier under which an image could be kept"
        unfetched = [(image.key(server), reason) for image in new]
        new = []
    for image, content in _bytes(call, request, new[:MAX_IMAGES], ends):
        key = image.key(server)
        if isinstance(content, DermoscopyError):
            log.warning("chart_image.not_fetched", reason=str(content))
            unfetched.append((key, str(content)))
            continue
        try:
            analysis_id = _accept(call, chart, image, key, content)
        except Rejected as error:
            refused.append((key, str(error)))
        except Unavailable as error:
            unfetched.append((key, str(error)))
        else:
            waiting += [analysis_id] if analysis_id else []
    details |= {
        name: count
        for name, count in (("taken_in", len(waiting)), ("refused", len(refused)), ("not_fetched", len(unfetched)))
        if count
    }
    return TakenIn(tuple(waiting), tuple(refused), tuple(unfetched), {"images": details})


async def settle(node: Node, analyses: Sequence[str], ends: float) -> None:
    """Wait until ``analyses`` are finished or failed, at most until ``ends``; holds no thread meanwhile."""
    while time.monotonic() < ends and not await run_in_threadpool(_settled, node, analyses):
        await anyio.sleep(min(_PAUSE, max(ends - time.monotonic(), 0.0)))


def _settled(node: Node, analyses: Sequence[str]) -> bool:
    with node.begin() as session:
        states = session.execute(select(AnalysisRow.state).where(col(AnalysisRow.id).in_(analyses))).scalars()
        return all(state in READY or state == "failed" for state in states)


def _resources(call: Call, request: HookRequest, ends: float, details: dict[str, JsonValue]) -> list[Mapping[str, Any]]:
    """Resources of the prefetch; what is missing there is searched."""
    brought = request.prefetch or {}
    found: list[Mapping[str, Any]] = []
    missing: list[str] = []
    for key, kind in PREFETCH.items():
        resources = resources_of(brought[key]) if key in brought else None
        if resources is None:
            missing.append(kind)
        else:
            found += resources
    server, access, patient = request.fhir_server, request.fhir_authorization, request.context.patient
    if not missing or server is None or not call.ehr.may_ask(server):
        return found
    if access is not None and access.patient not in (None, patient):
        return found
    queries = {kind: {"patient": patient, **SEARCHES[kind]} for kind in missing}
    token = access.access_token if access else None
    for kind, answer in call.ehr.search(server, queries, token, ends - time.monotonic()).items():
        resources = None if isinstance(answer, DermoscopyError) else resources_of(answer)
        if resources is None:
            reason = str(answer) if isinstance(answer, DermoscopyError) else "an OperationOutcome"
            details[f"not_searched_{kind}"] = reason
            log.warning("chart_images.not_searched", resource_type=kind, reason=reason)
        else:
            found += resources
    return found


def _unknown(session: Session, node: Node, chart: Chart, server: str, images: Sequence[ChartImage]) -> list[ChartImage]:
    """Images that never came here: not from this chart, and not by DICOM.

    One that stands here as another patient's counts as unknown: what is then refused or held tells a person so, while
    passing it over would show this patient no card and no reason.
    """
    if not images:
        return []
    keys = {image.key(server) for image in images}
    known = set(session.execute(select(ChartImageRow.id).where(col(ChartImageRow.id).in_(keys))).scalars())
    uids = {image.sop_instance_uid for image in images if image.sop_instance_uid}
    held: set[str] = set()
    if uids:
        whose = {node.issuers.canonical(one) for one in chart.identities}
        rows = sa.select(col(InstanceRow.sop_instance_uid), col(InstanceRow.issuer), col(InstanceRow.patient_id)).where(
            col(InstanceRow.sop_instance_uid).in_(uids)
        )
        for uid, issuer, patient_id in session.execute(rows):
            stands = PatientIdentity(issuer, patient_id)
            if not stands.known or node.issuers.canonical(stands) in whose:
                held.add(uid)
        made = sa.select(col(ArtifactRow.uid)).where(col(ArtifactRow.uid).in_(uids))
        held |= set(session.execute(made).scalars())
    once = {image.key(server): image for image in images}
    return [i for key, i in once.items() if key not in known and i.sop_instance_uid not in held]


def _bytes(
    call: Call, request: HookRequest, images: Sequence[ChartImage], ends: float
) -> list[tuple[ChartImage, Content | bytes | DermoscopyError]]:
    """What is behind each image: given bytes, fetched content, or why there is none."""
    settings, server, access = call.node.settings, request.fhir_server or "", request.fhir_authorization
    token = access.access_token if access else None
    found: list[tuple[ChartImage, Content | bytes | DermoscopyError]] = []
    asked: list[tuple[ChartImage, Place]] = []
    bases: dict[str, str | DermoscopyError] = {}
    for image in images:
        try:
            if image.data:
                found.append((image, image.data.encode("ascii", "replace")))
                continue
            base = f"{_wado(call, image.endpoint, server, token, bases, ends)}/" if image.endpoint else ""
            asked.append((image, call.ehr.place(f"{base}{image.url}", server, image.accept)))
        except DermoscopyError as error:
            found.append((image, error))
    fetched = call.ehr.contents(
        [place for _, place in asked],
        server,
        token,
        seconds=ends - time.monotonic(),
        limit=settings.hooks_image_max_bytes,
    )
    return found + [(image, content) for (image, _), content in zip(asked, fetched, strict=True)]


def _wado(
    call: Call,
    endpoint: str,
    server: str,
    token: SecretStr | None,
    known: dict[str, str | DermoscopyError],
    ends: float,
) -> str:
    """Address of the PACS; each endpoint is read once. Raises what stands in the way."""
    if not endpoint.startswith("Endpoint/"):
        return endpoint
    if endpoint not in known:
        if time.monotonic() >= ends:
            raise Unavailable("there was no time left to read where the study is")
        try:
            known[endpoint] = wado_base(call.ehr.read(server, "Endpoint", endpoint.partition("/")[2], token))
        except DermoscopyError as error:
            known[endpoint] = error
    address = known[endpoint]
    if isinstance(address, DermoscopyError):
        raise address
    return address


def _accept(call: Call, chart: Chart, image: ChartImage, key: str, content: Content | bytes) -> str:
    """Keep the image and start its analysis; its id, empty where it is held. Raises `Rejected`, and remembers that."""
    node = call.node
    header: ImageHeader | None = None
    data = b""
    try:
        data = inline_bytes(content.decode()) if isinstance(content, bytes) else image_bytes(content)
        if len(data) > node.settings.hooks_image_max_bytes:
            raise Rejected(f"the image has more than {node.settings.hooks_image_max_bytes} bytes")
        data, header = call.read(data, PatientIdentity("", ""))
        whose = _whose(header.patient, chart.identities, node)
        header = replace(
            header,
            patient=whose,
            body_site_code=header.body_site_code or image.body_site_code,
            laterality=header.laterality or image.laterality,
        )
    except Rejected as error:
        node.intake.reject(
            error, digest=sha256(data).hexdigest(), source=SOURCE, caller=call.caller.name, header=header
        )
        _remember(node, ChartImageRow(id=key, reason=str(error), at=utc_now()))
        raise
    receipt = node.intake.accept(data, header, source=SOURCE, caller=call.caller.name)
    _remember(node, ChartImageRow(id=key, instance_id=receipt.instance_id, at=utc_now()))
    return receipt.analysis_id


def _whose(stated: PatientIdentity, chart: Sequence[PatientIdentity], node: Node) -> PatientIdentity:
    """The chart's identity for an image: the one that a DICOM object names too, else the first that is configured."""
    if stated.known:
        for one in chart:
            same = node.issuers.canonical(stated) == node.issuers.canonical(one)
            if same or (stated.patient_id == one.patient_id and not stated.issuer):
                return one
        raise Rejected("the DICOM object names another patient than the chart it is in; it was not taken in")
    listed = [one for one in chart if one.issuer in node.issuers.systems or one.issuer == node.issuers.default_issuer]
    return (listed or list(chart))[0]


def _remember(node: Node, row: ChartImageRow) -> None:
    try:
        with node.begin() as session:
            session.add(row)
    except IntegrityError:  # another call took the same image in at the same moment
        log.info("chart_image.known")
