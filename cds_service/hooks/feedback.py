"""What clinicians did with cards (https://cds-hooks.hl7.org/2.0/#feedback), as leaves in the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from sqlalchemy.orm import Session
from sqlmodel import select

from audit.tables import AuditLeaf
from cds_service.authorization import Caller
from cds_service.hooks.messages import CardFeedback
from cds_service.node import Node
from dermoscopy.domain import derive_id
from dermoscopy.ports import AuditEntry, JsonValue

ACTION = "card.feedback"
_one_at_a_time = Lock()
"""The same feedback twice at once, in one process, is one leaf."""


def record(node: Node, caller: Caller, service: str, outcomes: Sequence[CardFeedback]) -> int:
    """Write one leaf per outcome that is not known yet; how many were new. The same card and time are one outcome."""
    with _one_at_a_time, node.begin() as session:
        return sum(_record(node, session, caller, service, one) for one in outcomes)


def _record(node: Node, session: Session, caller: Caller, service: str, said: CardFeedback) -> bool:
    card, moment = str(said.card), said.outcome_timestamp.isoformat()
    subject = derive_id("feedback", service, card, moment)
    known = select(AuditLeaf.id).where(AuditLeaf.subject_id == subject, AuditLeaf.action == ACTION)
    if session.execute(known.limit(1)).first() is not None:
        return False
    details: dict[str, JsonValue] = {
        "service": service,
        "card": card,
        "outcome": said.outcome,
        "outcome_timestamp": moment,
        "accepted_suggestions": [s.id for s in said.accepted_suggestions or ()],
    }
    if (override := said.override_reason) is not None:
        details["override_system"] = (override.reason.system or "") if override.reason else ""
        details["override_code"] = override.reason.code if override.reason else ""
        details["comment_length"] = len(override.user_comment or "")
    node.audit.append(
        session,
        AuditEntry(action=ACTION, actor=caller.name, subject_type="feedback", subject_id=subject, details=details),
    )
    return True
