"""What waits for a person: images without a patient, UIDs used twice, refused deliveries, ambiguous patients."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import col, select

from cds_service.api.answers import Hold, HoldDecision, HoldList, SentAgain
from cds_service.api.refusals import AlreadyDecided, NotFound, problems
from cds_service.api.stored import node_of
from cds_service.api.uploads import PLAIN, PatientReference
from cds_service.authorization import Administrator, Caller, Reader
from cds_service.deliveries import send_again, send_again_to
from cds_service.delivery_attempts import HOLD_KIND
from cds_service.holding import dismiss
from cds_service.node import Node
from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import Rejected
from dermoscopy.intake import NO_PATIENT, PATIENT_CONFLICT, SEVERAL_FRAMES, UID_CONFLICT
from dermoscopy.tables import HoldRow, InstanceRow

router = APIRouter(prefix="/api/v1/holds", tags=["holds"])

IMAGE_HOLDS = frozenset({NO_PATIENT, UID_CONFLICT, PATIENT_CONFLICT, SEVERAL_FRAMES})
"""Kinds whose subject is an image that can still be analysed."""


class _Decision(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    comment: Annotated[str, Field(max_length=500, pattern=PLAIN)] = Field(
        default="", description="Why; kept in the audit log. No patient data here"
    )


class Analyse(_Decision):
    """Analyse the held image."""

    decision: Literal["analyse"]
    patient: PatientReference | None = Field(default=None, description="Whose it is; default: the one the image names")


class Dismiss(_Decision):
    """Close the hold; a held image stays unanalysed for good."""

    decision: Literal["dismiss"]


class SendAgain(_Decision):
    """Send the held delivery again."""

    decision: Literal["send_again"]


Decision = Annotated[Analyse | Dismiss | SendAgain, Field(discriminator="decision")]


class SendAgainTo(_Decision):
    """Send everything again that is held on its way to one destination."""

    destination: Annotated[str, Field(min_length=1, max_length=100)] = Field(description="Its name in the settings")


@router.get("", summary="List holds", responses=problems(401, 403, 421, 422, 503))
def list_holds(
    request: Request,
    caller: Reader,
    resolved: Annotated[bool, Query(description="Decided ones instead of those that wait")] = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> HoldList:
    """What waits longest stands first; of the decided ones the latest."""
    decided = col(HoldRow.resolved_at)
    query = select(HoldRow).where(decided.is_not(None) if resolved else decided.is_(None))
    order = decided.desc() if resolved else col(HoldRow.created_at).asc()
    with node_of(request).begin() as session:
        rows = session.execute(query.order_by(order).limit(limit)).scalars().all()
    return HoldList(holds=[_shown(row) for row in rows])


@router.post(
    "/{hold_id:uuid}/resolve",
    summary="Decide about a hold",
    responses=problems(400, 401, 403, 404, 409, 413, 421, 422, 503),
)
def resolve_hold(
    request: Request, caller: Administrator, hold_id: Annotated[UUID, Path()], decision: Decision
) -> HoldDecision:
    """An image is analysed for the patient named or left unanalysed, a delivery sent again; any other hold is closed.

    Decided once; a delivery that is refused again is held again.
    """
    node = node_of(request)
    key = str(hold_id)
    with node.begin() as session:
        hold = session.get(HoldRow, key)
        if hold is None:
            raise NotFound("There is no hold with this id.")
        if hold.resolved_at is not None:
            raise AlreadyDecided(f"This hold was decided already: {hold.resolution}")
        kind = hold.kind
        instance = session.get(InstanceRow, hold.subject_id) if kind in IMAGE_HOLDS else None
        named = PatientIdentity(instance.issuer, instance.patient_id) if instance else PatientIdentity("", "")
    text = ": ".join(part for part in (decision.decision, decision.comment.strip()) if part)
    report_id = None
    if kind in IMAGE_HOLDS and isinstance(decision, SendAgain):
        raise AlreadyDecided("An image is analysed or dismissed; only deliveries are sent again.")
    if kind in IMAGE_HOLDS:
        patient = _patient(node, decision, named) if isinstance(decision, Analyse) else None
        receipt = node.intake.resolve_hold(key, by=caller.name, patient=patient, resolution=text)
        report_id = receipt.analysis_id if receipt else None
    elif isinstance(decision, SendAgain):
        _send_again(node, caller, key, kind, text)
    elif isinstance(decision, Analyse):
        raise AlreadyDecided(f"Nothing is left to analyse behind a hold of kind {kind}: dismiss it when it is settled.")
    else:
        _close(node, caller, key, text)
    with node.begin() as session:
        return HoldDecision(hold=_shown(session.get_one(HoldRow, key)), report_id=report_id or None)


@router.post(
    "/send-again",
    summary="Send all held deliveries of a destination again",
    responses=problems(400, 401, 403, 404, 413, 421, 422, 503),
)
def send_all_again(request: Request, caller: Administrator, asked: SendAgainTo) -> SentAgain:
    """For when a destination was put right; each delivery counts as decided by the caller."""
    node = node_of(request)
    settings = node.settings
    names = [p.name for p in settings.pacs] + [s.name for s in settings.stow] + [f.name for f in settings.fhir]
    if asked.destination not in names:
        raise NotFound("There is no destination of this name in the settings.")
    text = ": ".join(part for part in ("send_again", asked.comment.strip()) if part)
    return SentAgain(sent=send_again_to(node, asked.destination, by=caller.name, resolution=text))


def _send_again(node: Node, caller: Caller, hold_id: str, kind: str, resolution: str) -> None:
    if kind != HOLD_KIND:
        raise AlreadyDecided(f"Nothing is to be sent behind a hold of kind {kind}: dismiss it when it is settled.")
    try:
        send_again(node, hold_id, by=caller.name, resolution=resolution)
    except Rejected as error:
        raise AlreadyDecided(_sentence(error)) from error


def _patient(node: Node, decision: Analyse, named: PatientIdentity) -> PatientIdentity:
    if decision.patient is not None:
        return node.issuers.canonical(decision.patient.identity())
    if not named.known:
        raise AlreadyDecided("The image names no patient: say in ``patient`` whose it is.")
    return named


def _close(node: Node, caller: Caller, hold_id: str, resolution: str) -> None:
    try:
        dismiss(node, hold_id, by=caller.name, resolution=resolution)
    except Rejected as error:
        raise AlreadyDecided(_sentence(error)) from error


def _sentence(error: Exception) -> str:
    return f"{str(error)[:1].upper()}{str(error)[1:]}"


def _shown(row: HoldRow) -> Hold:
    return Hold(
        hold_id=row.id,
        kind=row.kind,
        subject_id=row.subject_id,
        reason=row.reason,
        created_at=row.created_at,
        resolved_at=row.resolved_at,
        resolved_by=row.resolved_by,
        resolution=row.resolution,
    )
