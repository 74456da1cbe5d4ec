"""What clinicians said of cards, for those who watch how the service is used."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict
from sqlmodel import col, select

from cds_service.api.moments import Moment
from cds_service.api.refusals import problems
from cds_service.api.stored import node_of
from cds_service.authorization import Administrator
from dermoscopy.ports import AuditEntry
from dermoscopy.tables import CardFeedbackRow

router = APIRouter(prefix="/api/v1/card-feedback", tags=["CDS Hooks"])

ACTION = "card.feedback_read"


class CardFeedbackItem(BaseModel):
    """One outcome of one card. ``comment`` holds a person's own words and may name anybody."""

    model_config = ConfigDict(frozen=True)
    feedback_id: str
    service: str
    card: str
    known: bool
    report_id: str | None
    outcome: Literal["accepted", "overridden"]
    outcome_at: datetime
    received_at: datetime
    caller: str
    accepted_suggestions: list[str]
    reason_system: str
    reason_code: str
    comment: str


class CardFeedbackList(BaseModel):
    """Outcomes, the latest first."""

    model_config = ConfigDict(frozen=True)
    feedback: list[CardFeedbackItem]


@router.get("", summary="List feedback on cards", responses=problems(401, 403, 421, 422, 503))
def list_feedback(
    request: Request,
    caller: Administrator,
    before: Annotated[Moment | None, Query(description="Received before this time: the next page")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> CardFeedbackList:
    """Who reads it stands in the audit log; what was read does not."""
    query = select(CardFeedbackRow).order_by(col(CardFeedbackRow.received_at).desc()).limit(limit)
    if before is not None:
        query = query.where(col(CardFeedbackRow.received_at) < before)
    node = node_of(request)
    with node.begin() as session:
        found = [_item(row) for row in session.execute(query).scalars()]
        node.audit.append(
            session,
            AuditEntry(
                action=ACTION,
                actor=caller.name,
                subject_type="feedback",
                subject_id="list",
                details={"found": len(found)},
            ),
        )
    return CardFeedbackList(feedback=found)


def _item(row: CardFeedbackRow) -> CardFeedbackItem:
    return CardFeedbackItem(
        feedback_id=row.id,
        service=row.service,
        card=row.card,
        known=row.known,
        report_id=row.analysis_id or None,
        outcome="accepted" if row.outcome == "accepted" else "overridden",
        outcome_at=row.outcome_at,
        received_at=row.received_at,
        caller=row.caller,
        accepted_suggestions=json.loads(row.suggestions),
        reason_system=row.reason_system,
        reason_code=row.reason_code,
        comment=row.comment,
    )
