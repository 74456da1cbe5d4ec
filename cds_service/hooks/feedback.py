"""What clinicians did with cards (https://cds-hooks.hl7.org/2.0/#feedback): a row each, and a leaf in the audit log.

The words of a comment stand in the row alone. The same card and time are one outcome, however often and to whichever
process they come. A card that nobody here remembers is noted as such: the specification has no answer that would help
the client.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlmodel import SQLModel, col, select

from cds_service.authorization import Caller
from cds_service.hooks.messages import CardFeedback
from cds_service.node import Node
from dermoscopy.domain import derive_id
from dermoscopy.ports import AuditEntry, JsonValue
from dermoscopy.tables import CardShownRow, utc_now

ACTION = "card.feedback"
_TABLE = SQLModel.metadata.tables["card_feedback"]


def record(node: Node, caller: Caller, service: str, outcomes: Sequence[CardFeedback]) -> int:
    """Keep each outcome that is not known yet; how many were new."""
    with node.begin() as session:
        return sum(_record(node, session, caller, service, one) for one in outcomes)


def _record(node: Node, session: Session, caller: Caller, service: str, said: CardFeedback) -> bool:
    card, moment = str(said.card), said.outcome_timestamp.isoformat()
    subject = derive_id("feedback", service, card, moment)
    given = select(CardShownRow.analysis_id).where(col(CardShownRow.card) == card).limit(1)
    shown = session.execute(given).first()
    reason = said.override_reason.reason if said.override_reason else None
    comment = (said.override_reason.user_comment or "") if said.override_reason else ""
    suggestions = [suggestion.id for suggestion in said.accepted_suggestions or ()]
    values: dict[str, Any] = {
        "id": subject,
        "service": service,
        "card": card,
        "analysis_id": shown[0] if shown else "",
        "known": shown is not None,
        "outcome": said.outcome,
        "outcome_at": said.outcome_timestamp,
        "received_at": utc_now(),
        "caller": caller.name,
        "suggestions": json.dumps(suggestions),
        "reason_system": _storable((reason.system or "") if reason else ""),
        "reason_code": _storable(reason.code if reason else ""),
        "comment": _storable(comment),
    }
    postgres = session.get_bind().dialect.name == "postgresql"
    insert = postgresql.insert(_TABLE) if postgres else sqlite.insert(_TABLE)
    once = insert.values(values).on_conflict_do_nothing().returning(_TABLE.c.id)
    if session.execute(once).first() is None:
        return False
    details: dict[str, JsonValue] = {
        "service": service,
        "card": card,
        "known": shown is not None,
        "outcome": said.outcome,
        "outcome_timestamp": moment,
        "accepted_suggestions": suggestions,
    }
    if said.override_reason is not None:
        details |= {
            "override_system": values["reason_system"],
            "override_code": values["reason_code"],
            "comment_length": len(comment),
        }
    node.audit.append(
        session,
        AuditEntry(action=ACTION, actor=caller.name, subject_type="feedback", subject_id=subject, details=details),
    )
    return True


def _storable(text: str) -> str:
    """PostgreSQL has no text with U+0000."""
    return text.replace("\x00", "")
