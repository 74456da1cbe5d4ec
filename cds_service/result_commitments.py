"""Storage commitment of our own results: a PACS that was sent them is asked to keep them, and says whether it does.

One transaction covers what one analysis has sent to one PACS. It is recorded before it is asked, so that the report is
known whenever it comes and to whichever process. What is not confirmed (a failure, or no report in time) is sent again
and asked about again, after pauses that double, and after so many times held for a person.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

import sqlalchemy as sa
import structlog
from opentelemetry import metrics
from sqlalchemy.orm import Session
from sqlmodel import col, func, select

from cds_service.delivery_attempts import (
    close_hold,
    hold_delivery,
    lock_analysis,
    pause_before,
    record_state,
    settle,
    start_attempt,
)
from cds_service.node import Node
from cds_service.steps import ACTOR
from dermoscopy.domain import CommitmentState, DeliveryState, derive_id
from dermoscopy.errors import Rejected, Unavailable
from dermoscopy.ports import AuditEntry, JsonValue
from dermoscopy.settings import PacsDestination, Settings
from dermoscopy.tables import AnalysisRow, ArtifactRow, DeliveryRow, ResultCommitmentRow, utc_now
from dermoscopy.workqueue import ASK_COMMITMENT, END_COMMITMENT

if TYPE_CHECKING:
    from dicom_listener.commitment_request import CommitmentReport, CommitmentRequester

log = structlog.get_logger(__name__)
_objects = metrics.get_meter(__name__).create_counter(
    "cds_result_commitments", description="objects that a PACS was asked to keep, by destination and outcome"
)

_MAY_BE_REPORTED = ("pending", "asked", "unreported", "not_taken")
"""States in which a report is news: a PACS may answer before we note that it was asked, and long after we gave up."""


def asks(settings: Settings, destination: str) -> PacsDestination | None:
    """The PACS of this name where it is to be asked for commitment."""
    return next((pacs for pacs in settings.pacs if pacs.name == destination and pacs.commitment), None)


def peer_of(pacs: PacsDestination) -> tuple[str, int, str]:
    """Host, port and AE title of what is asked at this PACS."""
    return (
        pacs.commitment_host or pacs.host,
        pacs.commitment_port or pacs.port,
        (pacs.commitment_ae_title or pacs.ae_title).strip(),
    )


def ask_when_settled(node: Node, session: Session, analysis_id: str, destination: str) -> None:
    """Start a transaction about what waits for one, once no attempt of this analysis at this PACS is due.

    Objects that are tried again later, or held, do not keep the others waiting. The analysis must be locked.
    """
    pacs = asks(node.settings, destination)
    if pacs is None:
        return
    session.flush()
    here = (col(DeliveryRow.analysis_id) == analysis_id, col(DeliveryRow.destination) == destination)
    retried = col(DeliveryRow.state) == DeliveryState.RETRYING.value
    due = (col(DeliveryRow.state) == DeliveryState.PENDING.value) | (
        retried & (col(DeliveryRow.next_attempt_at) <= utc_now())
    )
    if session.execute(select(func.count()).where(*here, due)).scalar_one():
        return
    stored = select(DeliveryRow, ArtifactRow.sop_class_uid).join(
        ArtifactRow, col(ArtifactRow.id) == col(DeliveryRow.artifact_id)
    )
    waiting = session.execute(
        stored.where(
            *here,
            col(DeliveryRow.commitment) == CommitmentState.WAITING.value,
            col(DeliveryRow.commitment_id) == "",
            col(DeliveryRow.state) == DeliveryState.DELIVERED.value,
        ).order_by(col(DeliveryRow.kind))
    ).all()
    if not waiting:
        return
    transaction_uid = f"2.25.{uuid.uuid4().int}"
    row = ResultCommitmentRow(
        id=derive_id("result-commitment", transaction_uid),
        transaction_uid=transaction_uid,
        analysis_id=analysis_id,
        destination=destination,
        peer=peer_of(pacs)[2],
        asked_for=json.dumps([[delivery.id, sop_class, delivery.uid] for delivery, sop_class in waiting]),
        state="pending",
        created_at=utc_now(),
    )
    session.add(row)
    for delivery, _ in waiting:
        delivery.commitment_id = row.id
    node.queue.start(session, ASK_COMMITMENT, f"{row.id}:1", row.id, "1")


class ResultCommitments:
    """Asks, in a worker, and notices that no report has come."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._requesters: dict[str, CommitmentRequester] = {}

    def ask(self, commitment_id: str, attempt: int) -> None:
        """One attempt; a PACS that is away is asked again after a pause, as often as it takes."""
        from dicom_listener.commitment import Reference

        with self._node.begin() as session:
            row = session.get_one(ResultCommitmentRow, commitment_id)
            if row.state != "pending" or row.attempts >= attempt:
                return  # made and recorded before a crash, or reported meanwhile
            pacs = asks(self._node.settings, row.destination)
            if pacs is not None and row.peer != peer_of(pacs)[2]:
                row.peer = peer_of(pacs)[2]  # the settings were changed since
        if pacs is None:
            self._drop(commitment_id)
            return
        references = [Reference(sop_class, uid) for _, sop_class, uid in json.loads(row.asked_for)]
        began = utc_now()
        try:
            taken = self._requester(pacs).ask(row.transaction_uid, references)
        except Unavailable as error:
            self._retry(commitment_id, attempt, error)
            return
        except Rejected as error:
            self.refuse(commitment_id, attempt, str(error))
            return
        with self._node.begin() as session:
            row = _locked(session, commitment_id)
            row.attempts, row.asked_at = attempt, began
            for delivery in _deliveries(session, row):
                if delivery.commitment_id == row.id:
                    delivery.asked_at = began
                    if delivery.commitment == CommitmentState.WAITING:
                        delivery.commitment = CommitmentState.ASKED.value
            objects = [uid for _, _, uid in json.loads(row.asked_for)]
            _append(self._node, session, row, "result_commitment.asked", objects=objects)
            if row.state != "pending":
                return  # the report was faster
            if taken:
                row.state = "asked"
                wait = pacs.commitment_wait_seconds
                self._node.queue.start(session, END_COMMITMENT, f"{row.id}:end", row.id, delay_seconds=wait)
            else:
                row.state = "not_taken"
                reason = f"{row.destination} did not take the storage commitment request"
                _unconfirmed(self._node, session, row, _deliveries(session, row), reason)

    def end(self, commitment_id: str) -> None:
        """The time for the report is over."""
        with self._node.begin() as session:
            row = _locked(session, commitment_id)
            if row.state != "asked":
                return
            row.state = "unreported"
            reason = f"{row.destination} sent no storage commitment report in time"
            _unconfirmed(self._node, session, row, _deliveries(session, row), reason)

    def refuse(self, commitment_id: str, attempt: int, reason: str) -> None:
        """It cannot be asked: leave its objects to a person."""
        with self._node.begin() as session:
            row = _locked(session, commitment_id)
            if row.state not in ("pending", "asked"):
                return
            row.attempts, row.state = max(row.attempts, attempt), "refused"
            _unconfirmed(self._node, session, row, _deliveries(session, row), reason, for_good=True)

    def _retry(self, commitment_id: str, attempt: int, error: Unavailable) -> None:
        settings = self._node.settings
        pause = pause_before(
            attempt,
            settings.delivery_backoff_seconds,
            settings.delivery_backoff_limit_seconds,
            error.retry_after or 0.0,
        )
        with self._node.begin() as session:
            row = _locked(session, commitment_id)
            row.attempts, row.last_error = attempt, str(error)
            following = str(attempt + 1)
            self._node.queue.start(
                session, ASK_COMMITMENT, f"{row.id}:{following}", row.id, following, delay_seconds=pause
            )
        log.info("result_commitment.retrying", commitment_id=commitment_id, attempt=attempt, reason=str(error))

    def _drop(self, commitment_id: str) -> None:
        with self._node.begin() as session:
            row = _locked(session, commitment_id)
            row.state = "dropped"
            for delivery in _deliveries(session, row):
                if delivery.commitment_id == row.id:
                    delivery.commitment, delivery.commitment_id = "", ""
        log.warning("result_commitment.dropped", commitment_id=commitment_id, destination=row.destination)

    def _requester(self, pacs: PacsDestination) -> CommitmentRequester:
        made = self._requesters.get(pacs.name)
        if made is None:
            from cds_service.listening import commitment_requester

            made = commitment_requester(self._node, pacs)
            made = self._requesters.setdefault(pacs.name, made)
        return made


def receive(node: Node, report: CommitmentReport) -> None:
    """Record what a PACS reports, in whichever process it arrives.

    Raises `Rejected` for a report that is not believed: of no transaction of ours, from another AE title than was
    asked, or about objects that were not. Nothing is changed then.
    """
    with node.begin() as session:
        found = session.execute(
            select(ResultCommitmentRow.id).where(
                ResultCommitmentRow.transaction_uid == report.transaction_uid,
                ResultCommitmentRow.peer == report.caller,
            )
        ).scalar_one_or_none()
        if found is None:  # one answer for both, which tells a stranger nothing
            raise Rejected("no transaction of this UID was asked of this AE title")
        row = _locked(session, found)
        asked = {(sop_class, uid): delivery_id for delivery_id, sop_class, uid in json.loads(row.asked_for)}
        named = {(r.sop_class_uid, r.sop_instance_uid) for r in (*report.committed, *report.failed)}
        if not named <= asked.keys():
            raise Rejected("the report names objects that were not asked about")
        if row.state not in _MAY_BE_REPORTED:
            log.info("result_commitment.reported_again", commitment_id=row.id)
            return
        row.state, row.reported_at = "reported", utc_now()
        reasons = {(r.sop_class_uid, r.sop_instance_uid): r.failure for r in report.failed}
        kept = {(r.sop_class_uid, r.sop_instance_uid) for r in report.committed} - reasons.keys()
        committed = {asked[reference] for reference in kept}
        told = _told(row.destination, list(reasons.values()))
        deliveries = _deliveries(session, row)
        for delivery in deliveries:
            if delivery.id in committed:
                _commit(node, session, delivery)
        missing = [delivery for delivery in deliveries if delivery.id not in committed]
        if missing:
            _unconfirmed(node, session, row, missing, told, by=report.caller)
        else:
            _append(node, session, row, "result_commitment.committed", actor=report.caller, objects=len(committed))
        settle(session, row.analysis_id)
        _objects.add(len(committed), {"destination": row.destination, "outcome": "committed"})
        log.info("result_commitment.reported", commitment_id=row.id, committed=len(committed), failed=len(missing))


def _commit(node: Node, session: Session, delivery: DeliveryRow) -> None:
    """The PACS keeps it. True also of one that was to be sent again, or held, because the report came late."""
    delivery.commitment, delivery.committed_at = CommitmentState.COMMITTED.value, utc_now()
    if delivery.delivered_at is None or delivery.state in (DeliveryState.DELIVERED, DeliveryState.SUPERSEDED):
        return
    delivery.next_attempt_at = None
    close_hold(node, session, delivery, ACTOR, "the PACS has committed to it after all")
    record_state(node, session, delivery, DeliveryState.DELIVERED)


def _unconfirmed(
    node: Node,
    session: Session,
    row: ResultCommitmentRow,
    deliveries: Sequence[DeliveryRow],
    reason: str,
    *,
    by: str = ACTOR,
    for_good: bool = False,
) -> None:
    """Have objects sent and asked about again, or held. Those that a later transaction asks about are left to that."""
    row.last_error = reason
    present = [
        delivery
        for delivery in deliveries
        if delivery.commitment_id == row.id
        and delivery.state == DeliveryState.DELIVERED
        and delivery.commitment != CommitmentState.COMMITTED
    ]
    _append(
        node,
        session,
        row,
        "result_commitment.failed",
        actor=by,
        failed=True,
        reason=reason,
        objects=[delivery.uid for delivery in deliveries],
    )
    pacs = asks(node.settings, row.destination)
    for delivery in present:
        delivery.commitment, delivery.commitment_id = CommitmentState.UNCONFIRMED.value, ""
        delivery.unconfirmed += 1
        if pacs is None:
            delivery.commitment = ""
        elif for_good or delivery.unconfirmed >= pacs.commitment_attempts:
            hold_delivery(node, session, delivery, reason)
        else:
            first = pacs.commitment_backoff_seconds
            pause = pause_before(delivery.unconfirmed, first, max(first, node.settings.delivery_backoff_limit_seconds))
            record_state(node, session, delivery, DeliveryState.RETRYING, reason)
            start_attempt(node, session, delivery, pause=pause)
    settle(session, row.analysis_id)
    _objects.add(len(present), {"destination": row.destination, "outcome": "unconfirmed"})


def _told(destination: str, reasons: Sequence[int]) -> str:
    codes = ", ".join(f"{code:04X}" for code in sorted(set(reasons)) if code)
    return f"{destination} does not commit to it" + (f" (failure reason {codes})" if codes else "")


def _locked(session: Session, commitment_id: str) -> ResultCommitmentRow:
    lock_analysis(session, session.get_one(ResultCommitmentRow, commitment_id).analysis_id)
    return session.get_one(ResultCommitmentRow, commitment_id, populate_existing=True)


def _deliveries(session: Session, row: ResultCommitmentRow) -> list[DeliveryRow]:
    ids = [delivery_id for delivery_id, _, _ in json.loads(row.asked_for)]
    return list(session.execute(sa.select(DeliveryRow).where(col(DeliveryRow.id).in_(ids))).scalars())


def _append(
    node: Node,
    session: Session,
    row: ResultCommitmentRow,
    action: str,
    *,
    actor: str = ACTOR,
    failed: bool = False,
    **details: JsonValue,
) -> None:
    analysis = session.get_one(AnalysisRow, row.analysis_id)
    node.audit.append(
        session,
        AuditEntry(
            action=action,
            actor=actor,
            subject_type="result_commitment",
            subject_id=row.id,
            outcome="failure" if failed else "success",
            patient_issuer=analysis.issuer,
            patient_id=analysis.patient_id,
            details={
                "analysis_id": row.analysis_id,
                "destination": row.destination,
                "transaction_uid": row.transaction_uid,
                "attempt": row.attempts,
                **details,
            },
        ),
    )
