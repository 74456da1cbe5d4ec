"""Deliveries: each artifact goes to each destination that takes it, is retried alone, and shows how far it is.

An attempt is a workflow of its own. One that finds the destination away records that and starts the next attempt after
a pause, in one transaction; one that is refused for good is held for a person, who may have it sent again. The pauses
double up to a limit. An artifact that was amended gets a delivery of its own, which supersedes what is under way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy.orm import Session
from sqlmodel import col, select

from cds_service.delivery_attempts import (
    append,
    close_hold,
    hold_delivery,
    lock_analysis,
    pause_before,
    record_state,
    settle,
    start_attempt,
)
from cds_service.node import Node
from cds_service.result_commitments import ask_when_settled, asks
from cds_service.steps import ACTOR, step
from dermoscopy.analyses import load_analysis
from dermoscopy.domain import Artifact, ArtifactKind, CommitmentState, DeliveryState, derive_id
from dermoscopy.errors import Rejected, Unavailable
from dermoscopy.ports import Destination
from dermoscopy.routing import EVERYTHING, Route
from dermoscopy.tables import AnalysisRow, ArtifactRow, DeliveryRow, HoldRow, InstanceRow, utc_now

_UNDER_WAY = (DeliveryState.PENDING, DeliveryState.RETRYING)


class Deliveries:
    """Starts and makes deliveries to the configured destinations."""

    def __init__(self, node: Node, destinations: Sequence[Destination]) -> None:
        self._node = node
        self._destinations = {d.name: d for d in destinations}

    def start(self, session: Session, artifacts: Iterable[ArtifactRow]) -> bool:
        """Start one delivery per artifact and destination that takes it and is meant to, in the caller's transaction.

        Returns whether there is anything to deliver. What was started before is not started again, unless the artifact
        has changed since: then the new revision is delivered, and an older one that is still under way is not.
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

    def call_off(self, session: Session, artifact: ArtifactRow, reason: str) -> None:
        """Stop the deliveries of an artifact that are under way or held, in the caller's transaction."""
        self._supersede(session, artifact, reason)

    def deliver(self, delivery_id: str, attempt: int) -> None:
        """One attempt to send one artifact to one destination; a failure starts the next attempt after a pause."""
        with self._node.begin() as session:
            delivery = session.get_one(DeliveryRow, delivery_id)
            artifact_row = session.get_one(ArtifactRow, delivery.artifact_id)
        if not _due(delivery, attempt):
            return  # made and recorded before a crash, or no longer wanted
        with step(self._node, "deliver", delivery.analysis_id):
            destination = self._destinations.get(delivery.destination)
            if destination is None:
                self.hold(delivery_id, attempt, "this destination is no longer configured")
                return
            artifact = self._artifact(delivery, artifact_row)
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

    def _artifact(self, delivery: DeliveryRow, row: ArtifactRow) -> Artifact:
        """The bytes that this delivery was started for, whatever became of the artifact since."""
        data = self._node.blobs.get(delivery.digest or row.digest)
        return Artifact(ArtifactKind(row.kind), row.media_type, data, delivery.uid or row.uid, row.sop_class_uid)

    def _finish(self, delivery_id: str, attempt: int, reference: str) -> None:
        with self._node.begin() as session:
            row = _locked(session, delivery_id)
            superseded = row.state == DeliveryState.SUPERSEDED
            row.attempts, row.reference, row.delivered_at, row.next_attempt_at = attempt, reference, utc_now(), None
            record_state(self._node, session, row, DeliveryState.DELIVERED)
            artifact = session.get_one(ArtifactRow, row.artifact_id)
            if superseded:
                self._put_last(session, row, artifact)
            elif artifact.sop_class_uid and asks(self._node.settings, row.destination):
                row.commitment, row.commitment_id = CommitmentState.WAITING.value, ""
            settle(session, row.analysis_id)
            ask_when_settled(self._node, session, row.analysis_id, row.destination)

    def _retry(self, delivery_id: str, attempt: int, error: Unavailable) -> None:
        settings = self._node.settings
        pause = pause_before(
            attempt,
            settings.delivery_backoff_seconds,
            settings.delivery_backoff_limit_seconds,
            error.retry_after or 0.0,
        )
        with self._node.begin() as session:
            row = _locked(session, delivery_id)
            if not _still_due(row, attempt):
                return
            record_state(self._node, session, row, DeliveryState.RETRYING, str(error))
            start_attempt(self._node, session, row, pause=pause)
            ask_when_settled(self._node, session, row.analysis_id, row.destination)

    def hold(self, delivery_id: str, attempt: int, reason: str) -> None:
        """Stop trying and leave the delivery to a person."""
        with self._node.begin() as session:
            row = _locked(session, delivery_id)
            if not _still_due(row, attempt):
                return
            hold_delivery(self._node, session, row, reason)
            settle(session, row.analysis_id)
            ask_when_settled(self._node, session, row.analysis_id, row.destination)

    def _start(self, session: Session, artifact: ArtifactRow, destination: Destination) -> bool:
        if ArtifactKind(artifact.kind) not in destination.accepts:
            return False
        delivery_id = derive_id("delivery", artifact.id, destination.name)
        row = session.get(DeliveryRow, delivery_id)
        if row is not None and row.digest and row.digest != artifact.digest:
            delivery_id = derive_id("delivery", artifact.id, destination.name, artifact.digest)
            row = session.get(DeliveryRow, delivery_id)
        if row is not None and row.state != DeliveryState.SUPERSEDED:
            return True
        self._supersede(session, artifact, "amended", destination.name)
        if row is None:
            row = DeliveryRow(
                id=delivery_id,
                analysis_id=artifact.analysis_id,
                artifact_id=artifact.id,
                destination=destination.name,
                kind=artifact.kind,
                state="",
                uid=artifact.uid,
                digest=artifact.digest,
            )
            session.add(row)
        else:
            row.attempts += 1  # the attempt that was called off: a workflow of its name will not run again
        row.state = DeliveryState.PENDING.value
        session.flush()
        start_attempt(self._node, session, row)
        settle(session, artifact.analysis_id)
        return True

    def _supersede(self, session: Session, artifact: ArtifactRow, reason: str, destination: str = "") -> None:
        """Stop deliveries (to one destination, or to all); those that arrived stay as they are."""
        earlier = select(DeliveryRow).where(
            col(DeliveryRow.artifact_id) == artifact.id,
            col(DeliveryRow.state).not_in([DeliveryState.DELIVERED.value, DeliveryState.SUPERSEDED.value]),
        )
        if destination:
            earlier = earlier.where(col(DeliveryRow.destination) == destination)
        for row in session.execute(earlier).scalars():
            row.next_attempt_at = None
            record_state(self._node, session, row, DeliveryState.SUPERSEDED, reason)
            close_hold(self._node, session, row, ACTOR, f"superseded: {reason}")

    def _put_last(self, session: Session, row: DeliveryRow, artifact: ArtifactRow) -> None:
        """An earlier revision has arrived after all; where it overwrites the present one, that is sent once more."""
        if row.uid != artifact.uid:
            return
        present = select(DeliveryRow).where(
            col(DeliveryRow.artifact_id) == artifact.id,
            col(DeliveryRow.destination) == row.destination,
            col(DeliveryRow.digest) == artifact.digest,
            col(DeliveryRow.state) == DeliveryState.DELIVERED.value,
        )
        for later in session.execute(present).scalars():
            later.state = DeliveryState.PENDING.value
            start_attempt(self._node, session, later)


def send_again(node: Node, hold_id: str, *, by: str, resolution: str) -> None:
    """Have a held delivery sent again. Raises `Rejected` where it is not held any more."""
    with node.begin() as session:
        found = session.get(HoldRow, hold_id)
        row = session.get(DeliveryRow, found.subject_id) if found is not None else None
        if row is None:
            raise Rejected("nothing is left to send behind this hold: dismiss it")
        row = _locked(session, row.id)
        if row.state != DeliveryState.HELD or not close_hold(node, session, row, by, resolution):
            raise Rejected("this delivery is not held any more")
        row.state, row.unconfirmed, row.commitment, row.commitment_id = DeliveryState.PENDING.value, 0, "", ""
        start_attempt(node, session, row)
        append(node, session, row, "delivery.sent_again", actor=by)
        settle(session, row.analysis_id)


def held_deliveries(node: Node, destination: str) -> list[str]:
    """Holds of the deliveries to one destination that wait for a person, oldest first."""
    with node.begin() as session:
        query = (
            select(HoldRow.id)
            .join(DeliveryRow, col(DeliveryRow.id) == col(HoldRow.subject_id))
            .where(
                col(HoldRow.kind) == "delivery",
                col(HoldRow.resolved_at).is_(None),
                col(DeliveryRow.destination) == destination,
                col(DeliveryRow.state) == DeliveryState.HELD.value,
            )
            .order_by(col(HoldRow.created_at))
        )
        return list(session.execute(query).scalars())


def send_again_to(node: Node, destination: str, *, by: str, resolution: str) -> int:
    """Have every held delivery to ``destination`` sent again; how many there were."""
    sent = 0
    for hold_id in held_deliveries(node, destination):
        try:
            send_again(node, hold_id, by=by, resolution=resolution)
        except Rejected:  # somebody else was faster
            continue
        sent += 1
    return sent


def _due(delivery: DeliveryRow, attempt: int) -> bool:
    return delivery.attempts < attempt and delivery.state in _UNDER_WAY


def _still_due(row: DeliveryRow, attempt: int) -> bool:
    """Count ``attempt``, which failed; whether it is news: the delivery may be called off or committed to meanwhile, or
    the failure was recorded and only a later checkpoint broke.
    """
    due = _due(row, attempt)
    row.attempts = max(row.attempts, attempt)
    return due


def _locked(session: Session, delivery_id: str) -> DeliveryRow:
    lock_analysis(session, session.get_one(DeliveryRow, delivery_id).analysis_id)
    return session.get_one(DeliveryRow, delivery_id, populate_existing=True)


def _route(session: Session, analysis_id: str) -> Route:
    """What was decided about the image of this analysis when it came."""
    query = (
        select(InstanceRow.route)
        .join(AnalysisRow, col(AnalysisRow.instance_id) == col(InstanceRow.id))
        .where(AnalysisRow.id == analysis_id)
    )
    return Route.from_text(session.execute(query).scalar_one())
