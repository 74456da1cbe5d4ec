"""Stored analyses: one by one, as lists, and each output. Nothing is computed here, and no address names a patient."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NoReturn
from urllib.parse import urlencode
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session
from sqlmodel import col, select, tuple_

from cds_service.api.answers import AnalysisAnswer, AnalysisItem, AnalysisPage, State
from cds_service.api.integers import Whole
from cds_service.api.refusals import NotFound, NotReady, problems
from cds_service.api.stored import LINKED, READY, answer, find_analysis, item, node_of, read_blob, select_items
from cds_service.api.uploads import PatientReference
from cds_service.authorization import Caller, Reader
from cds_service.node import Node
from dermoscopy.domain import ArtifactKind, PatientIdentity, TriageTier
from dermoscopy.ports import AuditEntry
from dermoscopy.tables import AnalysisRow, ArtifactRow, InstanceRow

router = APIRouter(prefix="/api/v1/analyses", tags=["analyses"])

AnalysisId = Annotated[UUID, Path(description="``report_id`` of the analysis")]
Limit = Annotated[int, Query(ge=1, le=200, description="How many at most")]
Before = Annotated[
    str,
    Query(
        pattern=r"^[0-9]{1,16}_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        description="Cursor: microseconds since 1970 and id of the last analysis shown; take it from ``next``",
    ),
]
InstanceUid = Annotated[
    str,
    Query(pattern=r"^[0-9]+(\.[0-9]+)*$", max_length=64, description="Only analyses of this DICOM SOP Instance UID"),
]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class PatientSearch(PatientReference):
    """Whose analyses; in the body, since addresses end up in logs."""

    limit: Whole = Field(default=50, ge=1, le=200)


@router.get("", summary="List analyses", responses=problems(401, 403, 421, 422, 503))
def list_analyses(
    request: Request,
    caller: Reader,
    state: State | None = None,
    tier: TriageTier | None = None,
    limit: Limit = 50,
    before: Before | None = None,
    sop_instance_uid: InstanceUid | None = None,
) -> AnalysisPage:
    """Newest first, without patient data; ``next`` leads to older ones."""
    query = select_items().order_by(col(AnalysisRow.created_at).desc(), col(AnalysisRow.id).desc())
    if state is not None:
        query = query.where(col(AnalysisRow.state) == state)
    if tier is not None:
        query = query.where(col(AnalysisRow.tier) == tier.value)
    if sop_instance_uid is not None:
        sources = sa.select(col(InstanceRow.id)).where(col(InstanceRow.sop_instance_uid) == sop_instance_uid)
        query = query.where(col(AnalysisRow.instance_id).in_(sources))
    if before:
        query = query.where(tuple_(col(AnalysisRow.created_at), col(AnalysisRow.id)) < tuple_(*_after(before)))
    with node_of(request).begin() as session:
        rows = session.execute(query.limit(limit + 1)).all()
    shown = [item(row) for row in rows[:limit]]
    following = None
    if len(rows) > limit:
        asked: dict[str, Any] = {"state": state, "tier": tier.value if tier else None, "limit": limit}
        asked["sop_instance_uid"] = sop_instance_uid
        asked["before"] = _cursor_of(shown[-1])
        following = f"/api/v1/analyses?{urlencode({k: v for k, v in asked.items() if v is not None})}"
    return AnalysisPage(analyses=shown, next=following)


def _cursor_of(last: AnalysisItem) -> str:
    return f"{(last.created_at - _EPOCH) // timedelta(microseconds=1)}_{last.report_id}"


def _after(before: str) -> tuple[datetime, str]:
    microseconds, _, last = before.partition("_")
    return _EPOCH + timedelta(microseconds=int(microseconds)), last


@router.post("/search", summary="Analyses of a patient", responses=problems(400, 401, 403, 413, 421, 422, 503))
def search_analyses(request: Request, caller: Reader, wanted: PatientSearch) -> AnalysisPage:
    """Newest first. The search itself is in the audit log."""
    node = node_of(request)
    patient = node.issuers.canonical(wanted.identity())
    named = {patient, PatientIdentity(wanted.system.strip(), wanted.id.strip())}
    with node.begin() as session:
        query = select_items().where(
            tuple_(col(AnalysisRow.issuer), col(AnalysisRow.patient_id)).in_([(p.issuer, p.patient_id) for p in named])
        )
        rows = session.execute(query.order_by(col(AnalysisRow.created_at).desc()).limit(wanted.limit)).all()
        node.audit.append(
            session,
            AuditEntry(
                action="analysis.searched",
                actor=caller.name,
                subject_type="patient",
                subject_id="",
                patient_issuer=patient.issuer,
                patient_id=patient.patient_id,
                details={"found": len(rows)},
            ),
        )
    return AnalysisPage(analyses=[item(row) for row in rows])


@router.get("/{analysis_id:uuid}", summary="One analysis", responses=problems(401, 403, 404, 421, 422, 503))
def get_analysis(request: Request, caller: Reader, analysis_id: AnalysisId) -> AnalysisAnswer:
    """State, result and deliveries. Pictures are behind ``links``."""
    node = node_of(request)
    with node.begin() as session:
        row = find_analysis(session, str(analysis_id))
        shown = answer(session, node, row, pictures=False)
        if row.state in READY:
            note_read(node, session, caller, row, "analysis")
    return shown


_FILES: dict[str, tuple[ArtifactKind, str, str, str]] = {
    "mask": (ArtifactKind.MASK, "image/png", "png", "Lesion mask: 255 inside, 0 outside, at source size"),
    "overlay": (ArtifactKind.OVERLAY, "image/png", "png", "The image with contour, legend and scale"),
    "heatmap": (ArtifactKind.HEATMAP, "image/png", "png", "Class evidence (0 to 255), at source size"),
    "seg": (ArtifactKind.SEG, "application/dicom", "dcm", "DICOM Segmentation"),
    "sr": (ArtifactKind.SR, "application/dicom", "dcm", "DICOM Structured Report (TID 1500)"),
    "secondary-capture": (ArtifactKind.SECONDARY_CAPTURE, "application/dicom", "dcm", "DICOM Secondary Capture"),
    "report": (ArtifactKind.FHIR_BUNDLE, "application/fhir+json", "json", "FHIR R4 bundle with the DiagnosticReport"),
}
assert set(_FILES) == set(LINKED.values())


def send_output(node: Node, caller: Caller, analysis_id: str, name: str, if_none_match: str) -> Response:
    """One output as a file, or 304. Raises `NotFound` and `NotReady`."""
    kind, media_type, suffix, title = _FILES[name]
    with node.begin() as session:
        row = find_analysis(session, analysis_id)
        found = session.execute(
            select(ArtifactRow).where(
                ArtifactRow.analysis_id == analysis_id, ArtifactRow.kind == kind.value, col(ArtifactRow.current)
            )
        ).scalar_one_or_none()
        if found is None or row.state not in READY:
            _explain_absence(row, title)
        note_read(node, session, caller, row, name)
    etag = f'"{found.digest}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if any(tag.strip().removeprefix("W/") in (etag, "*") for tag in if_none_match.split(",")):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = (
        f'{"inline" if suffix == "png" else "attachment"}; filename="{name}-{analysis_id}.{suffix}"'
    )
    return Response(read_blob(node.blobs, found), headers=headers, media_type=media_type)


def _explain_absence(row: AnalysisRow, title: str) -> NoReturn:
    if row.state == "failed":
        raise NotFound("The analysis failed, so there is no such output.", report_id=row.id)
    if row.state in READY:
        raise NotFound(f"This analysis has no such output ({title}): no lesion was outlined.", report_id=row.id)
    raise NotReady("The analysis is under way: come back for this output.", report_id=row.id)


def note_read(node: Node, session: Session, caller: Caller, row: AnalysisRow, what: str) -> None:
    """Leaf in the audit log: who looked at what."""
    node.audit.append(
        session,
        AuditEntry(
            action="analysis.read",
            actor=caller.name,
            subject_type="analysis",
            subject_id=row.id,
            patient_issuer=row.issuer,
            patient_id=row.patient_id,
            details={"what": what},
        ),
    )


def _add_file(name: str) -> None:
    kind, media_type, _, title = _FILES[name]

    @router.get(
        f"/{{analysis_id:uuid}}/{name}",
        name=f"get_{kind.value}",
        summary=title,
        response_class=Response,
        responses={
            200: {"description": title, "content": {media_type: {"schema": _schema(media_type)}}, "headers": _ETAG},
            304: {"description": "Not changed since the ETag of If-None-Match"},
            **problems(401, 403, 404, 409, 421, 422, 503),
        },
    )
    def get_output(
        request: Request,
        caller: Reader,
        analysis_id: AnalysisId,
        if_none_match: Annotated[str, Header(max_length=1000)] = "",
    ) -> Response:
        return send_output(node_of(request), caller, str(analysis_id), name, if_none_match)


def _schema(media_type: str) -> dict[str, str]:
    return {"type": "object"} if media_type.endswith("json") else {"type": "string", "format": "binary"}


_ETAG: dict[str, Any] = {"ETag": {"description": "SHA-256 of the bytes", "schema": {"type": "string"}}}

for _name in _FILES:
    _add_file(_name)
