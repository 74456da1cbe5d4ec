"""Deliveries: each artifact goes to each destination that takes it, is retried alone, and shows how far it is.

An attempt is a workflow of its own. One that finds the destination away records that and starts the next attempt after
a pause, in one transaction; one that is refused for good is held for a person. The pauses double up to a limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

import structlog
from opentelemetry import metrics
from sqlalchemy.orm import Session
from sqlmodel import col, func, select

from cds_service.node import Node
from cds_service.steps import ACTOR, hold, step
from dermoscopy.analyses import load_analysis, load_artifact
from dermoscopy.domain import ArtifactKind, DeliveryState, derive_id
from dermoscopy.errors import Rejected, Unavailable
from dermoscopy.ports import AuditEntry, Destination
from dermoscopy.routing import EVERYTHING, Route
from dermoscopy.tables import AnalysisRow, ArtifactRow, DeliveryRow, InstanceRow, utc_now
from dermoscopy.workqueue import DELIVER

log = structlog.get_logger(__name__)
_attempts = metrics.get_meter(__name__).create_counter(
    "cds_deliveries", description="delivery attempts by destination and state"
)


class Deliveries:
    """Starts and makes deliveries to the configured destinations."""

    def __init__(self, node: Node, destinations: Sequence[Destination]) -> None:
        self._node = node
        self._destinations = {d.name: d for d in destinations}

    def start(self, session: Session, artifacts: Iterable[ArtifactRow]) -> bool:
        """Start one delivery per artifact and destination that takes it and is meant to, in the caller's transaction.

        Returns whether there is anything to deliver; what was started before is not started again.
        """
        rows = list(artifacts)
        route = _route(session, rows[0].analysis_id) if rows else EVERYTHING
        started = [
            self._start(session, row, destination)
            for row in rows
            for destination in self._destinations.values()
            if route.sends(ArtifactKind(row.kind), destination.name)
        ]
        return any(started)

    def deliver(self, delivery_id: str, attempt: int) -> None:
        """One attempt to send one artifact to one destination; a failure starts the next attempt after a pause."""
        with self._node.begin() as session:
            delivery = session.get_one(DeliveryRow, delivery_id)
            artifact_row = session.get_one(ArtifactRow, delivery.artifact_id)
        if delivery.attempts >= attempt or delivery.state in (DeliveryState.DELIVERED, DeliveryState.HELD):
            return  # this attempt was made and recorded before a crash
        with step(self._node, "deliver", delivery.analysis_id):
            destination = self._destinations.get(delivery.destination)
            if destination is None:
                self.hold(delivery_id, attempt, "this destination is no longer configured")
                return
            artifact = load_artifact(self._node.blobs, artifact_row)
            with self._node.begin() as session:
                analysis = load_analysis(session, self._node.blobs, delivery.analysis_id)
            try:
                receipt = destination.deliver(artifact, analysis)
            except Unavailable as error:
                self._retry(delivery_id, attempt, error)
            except Rejected as error:
                self.hold(delivery_id, attempt, str(error))
            else:
                self._finish(delivery_id, attempt, receipt.reference)

    def _finish(self, delivery_id: str, attempt: int, reference: str) -> None:
        with self._node.begin() as session:
            analysis_id = session.get_one(DeliveryRow, delivery_id).analysis_id
            # One at a time, so that the last of several deliveries that end together sees that it is the last.
            analysis = session.get_one(AnalysisRow, analysis_id, with_for_update=True)
            row = self._record_attempt(session, delivery_id, attempt, DeliveryState.DELIVERED, "")
            row.reference, row.delivered_at, row.next_attempt_at = reference, utc_now(), None
            session.flush()
            waiting = select(func.count()).where(
                col(DeliveryRow.analysis_id) == row.analysis_id, col(DeliveryRow.state) != DeliveryState.DELIVERED.value
            )
            if session.execute(waiting).scalar_one() == 0:
                analysis.state = "complete"

    def _retry(self, delivery_id: str, attempt: int, error: Unavailable) -> None:
        settings = self._node.settings
        pause = min(
            settings.delivery_backoff_limit_seconds, settings.delivery_backoff_seconds * 2 ** min(attempt - 1, 20)
        )
        pause = max(pause, min(error.retry_after or 0.0, settings.delivery_backoff_limit_seconds))
        with self._node.begin() as session:
            row = self._record_attempt(session, delivery_id, attempt, DeliveryState.RETRYING, str(error))
            row.next_attempt_at = utc_now() + timedelta(seconds=pause)
            following = attempt + 1
            self._node.queue.start(
                session, DELIVER, f"{delivery_id}:{following}", delivery_id, str(following), delay_seconds=pause
            )

    def hold(self, delivery_id: str, attempt: int, reason: str) -> None:
        """Stop trying and leave the delivery to a person."""
        with self._node.begin() as session:
            row = self._record_attempt(session, delivery_id, attempt, DeliveryState.HELD, reason)
            row.next_attempt_at = None
            hold(session, "delivery", delivery_id, reason)

    def _record_attempt(
        self, session: Session, delivery_id: str, attempt: int, state: DeliveryState, error: str
    ) -> DeliveryRow:
        row = session.get_one(DeliveryRow, delivery_id)
        row.attempts, row.state, row.last_error = attempt, state.value, error
        analysis = session.get_one(AnalysisRow, row.analysis_id)
        self._node.audit.append(
            session,
            AuditEntry(
                action=f"delivery.{state.value}",
                actor=ACTOR,
                subject_type="delivery",
                subject_id=delivery_id,
                outcome="success" if state is DeliveryState.DELIVERED else "failure",
                patient_issuer=analysis.issuer,
                patient_id=analysis.patient_id,
                details={
                    "analysis_id": row.analysis_id,
                    "kind": row.kind,
                    "destination": row.destination,
                    "attempt": attempt,
                    "reason": error,
                },
            ),
        )
        _attempts.add(1, {"destination": row.destination, "state": state.value})
        log.info(f"delivery.{state.value}", delivery_id=delivery_id, attempt=attempt, kind=row.kind, reason=error)
        return row

    def _start(self, session: Session, artifact: ArtifactRow, destination: Destination) -> bool:
        if ArtifactKind(artifact.kind) not in destination.accepts:
            return False
        delivery_id = derive_id("delivery", artifact.id, destination.name)
        if session.get(DeliveryRow, delivery_id) is None:
            session.add(
                DeliveryRow(
                    id=delivery_id,
                    analysis_id=artifact.analysis_id,
                    artifact_id=artifact.id,
                    destination=destination.name,
                    kind=artifact.kind,
                    state=DeliveryState.PENDING.value,
                )
            )
            session.flush()
            self._node.queue.start(session, DELIVER, f"{delivery_id}:1", delivery_id, "1")
        return True


def _route(session: Session, analysis_id: str) -> Route:
    """What was decided about the image of this analysis when it came."""
    query = (
        select(InstanceRow.route)
        .join(AnalysisRow, col(AnalysisRow.instance_id) == col(InstanceRow.id))
        .where(AnalysisRow.id == analysis_id)
    )
    return Route.from_text(session.execute(query).scalar_one())
