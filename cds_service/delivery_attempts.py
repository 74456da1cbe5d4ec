"""What every change of a delivery's state does: row, audit leaf, metric, and the start of what follows."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
import structlog
from opentelemetry import metrics
from sqlalchemy.orm import Session
from sqlmodel import col, func, select

from cds_service.holding import close
from cds_service.node import Node
from cds_service.steps import ACTOR, hold
from dermoscopy.domain import DeliveryState, derive_id
from dermoscopy.ports import AuditEntry, JsonValue
from dermoscopy.tables import AnalysisRow, DeliveryRow, HoldRow, utc_now
from dermoscopy.workqueue import DELIVER

log = structlog.get_logger(__name__)
_attempts = metrics.get_meter(__name__).create_counter(
    "cds_deliveries", description="delivery attempts by destination and state"
)

HOLD_KIND = "delivery"
"""Kind of the holds whose subject is a delivery."""
_DONE = (DeliveryState.DELIVERED.value, DeliveryState.SUPERSEDED.value)


def pause_before(attempt: int, first: float, limit: float, asked_for: float = 0.0) -> float:
    """Seconds before the attempt that follows ``attempt`` failures: doubling from ``first`` up to ``limit``."""
    return max(min(limit, first * 2 ** min(attempt - 1, 20)), min(asked_for, limit))


def start_attempt(node: Node, session: Session, row: DeliveryRow, *, pause: float = 0.0) -> None:
    """Start the next attempt, in ``pause`` seconds."""
    following = row.attempts + 1
    row.next_attempt_at = utc_now() + timedelta(seconds=pause) if pause else None
    node.queue.start(session, DELIVER, f"{row.id}:{following}", row.id, str(following), delay_seconds=pause)


def record_state(node: Node, session: Session, row: DeliveryRow, state: DeliveryState, error: str = "") -> None:
    """Write the state that ``row`` has come to, and its leaf ``delivery.<state>``."""
    row.state, row.last_error = state.value, error
    append(node, session, row, f"delivery.{state.value}", failed=state is not DeliveryState.DELIVERED, reason=error)
    _attempts.add(1, {"destination": row.destination, "state": state.value})
    log.info(f"delivery.{state.value}", delivery_id=row.id, attempt=row.attempts, kind=row.kind, reason=error)


def append(
    node: Node,
    session: Session,
    row: DeliveryRow,
    action: str,
    *,
    actor: str = ACTOR,
    failed: bool = False,
    **details: JsonValue,
) -> None:
    """A leaf of the audit log about one delivery."""
    analysis = session.get_one(AnalysisRow, row.analysis_id)
    node.audit.append(
        session,
        AuditEntry(
            action=action,
            actor=actor,
            subject_type="delivery",
            subject_id=row.id,
            outcome="failure" if failed else "success",
            patient_issuer=analysis.issuer,
            patient_id=analysis.patient_id,
            details={
                "analysis_id": row.analysis_id,
                "kind": row.kind,
                "destination": row.destination,
                "attempt": row.attempts,
                **details,
            },
        ),
    )


def hold_delivery(node: Node, session: Session, row: DeliveryRow, reason: str) -> None:
    """Stop trying and leave the delivery to a person."""
    row.next_attempt_at = None
    record_state(node, session, row, DeliveryState.HELD, reason)
    hold(session, HOLD_KIND, row.id, reason)


def close_hold(node: Node, session: Session, row: DeliveryRow, by: str, resolution: str) -> bool:
    """Close the hold of a delivery that no longer needs a person; whether one was open."""
    found = session.get(HoldRow, derive_id("hold", HOLD_KIND, row.id))
    if found is None or found.resolved_at is not None:
        return False
    close(node, session, found, by=by, resolution=resolution)
    return True


def lock_analysis(session: Session, analysis_id: str) -> None:
    """Let one transaction at a time change the deliveries of an analysis; read them after this.

    A write that changes nothing: it takes SQLite's write lock and PostgreSQL's row lock alike.
    """
    unchanged = sa.update(AnalysisRow).where(col(AnalysisRow.id) == analysis_id).values(state=col(AnalysisRow.state))
    session.execute(unchanged, execution_options={"synchronize_session": False})


def settle(session: Session, analysis_id: str) -> None:
    """Write whether everything of a locked analysis has arrived: ``complete``, else ``rendered``."""
    session.flush()
    waiting = select(func.count()).where(
        col(DeliveryRow.analysis_id) == analysis_id, col(DeliveryRow.state).not_in(_DONE)
    )
    arrived = session.execute(waiting).scalar_one() == 0
    analysis = session.get_one(AnalysisRow, analysis_id, populate_existing=True)
    if arrived and analysis.state == "rendered":
        analysis.state = "complete"
    elif not arrived and analysis.state == "complete":
        analysis.state = "rendered"
