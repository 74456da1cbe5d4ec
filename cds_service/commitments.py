"""Storage commitment for those who send to us: recorded durably, looked up, reported, and retried like a delivery.

A report says which of the objects are safe here: their bytes are in the object store and the database knows them.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.orm import Session
from sqlmodel import col, select

from cds_service.node import Node
from cds_service.steps import hold
from dermoscopy.domain import DeliveryState, derive_id
from dermoscopy.errors import Misconfigured, Rejected, Unavailable
from dermoscopy.ports import AuditEntry, JsonValue
from dermoscopy.settings import Settings
from dermoscopy.tables import ArtifactRow, CommitmentRow, FormerArtifactRow, InstanceRow, utc_now
from dermoscopy.workqueue import COMMIT

if TYPE_CHECKING:
    from dicom_listener.commitment import CommitmentRequest, Reference

log = structlog.get_logger(__name__)

_TOGETHER = 500
"""References that are looked up in one query."""


def report_address(settings: Settings, caller: str, address: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS, where ``caller`` takes reports. Raises `Misconfigured` when nobody said.

    From its entry in ``dicom_peers`` (its own address where that names no host), else from ``pacs``.
    """
    for peer in settings.dicom_peers:
        if peer.ae_title.strip() == caller and peer.report_port:
            return peer.report_host or address, peer.report_port, peer.report_tls
    for pacs in settings.pacs:
        if pacs.ae_title.strip() == caller:
            return pacs.host, pacs.port, pacs.tls
    raise Misconfigured(f"report_port is not set for {caller} in dicom_peers, and it is no destination in pacs")


def record(node: Node, request: CommitmentRequest) -> None:
    """Keep the request and start its report, in one transaction; asking again is answered again.

    Raises `Misconfigured` when it is not known where to report.
    """
    report_address(node.settings, request.caller, request.address)
    commitment_id = derive_id("commitment", request.caller, request.transaction_uid)
    references = json.dumps([[r.sop_class_uid, r.sop_instance_uid] for r in request.references])
    with node.begin() as session:
        row = session.get(CommitmentRow, commitment_id, with_for_update=True)
        if row is None:
            row = CommitmentRow(
                id=commitment_id,
                transaction_uid=request.transaction_uid,
                caller=request.caller,
                address=request.address,
                asked_for=references,
                state=DeliveryState.PENDING.value,
                requested_at=utc_now(),
            )
            session.add(row)
        elif row.state in (DeliveryState.PENDING, DeliveryState.RETRYING):
            return  # the report is on its way
        row.asked_for, row.address, row.state = references, request.address, DeliveryState.PENDING.value
        _append(node, session, row, "requested", objects=len(request.references))
        attempt = row.attempts + 1
        node.queue.start(session, COMMIT, f"{commitment_id}:{attempt}", commitment_id, str(attempt))


class Commitments:
    """Makes the reports, in a worker."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def report(self, commitment_id: str, attempt: int) -> None:
        """One attempt; a requester that is away is tried again after a pause, one that refuses is left to a person."""
        from cds_service.listening import report_tls
        from dicom_listener.commitment import send_report

        settings = self._node.settings
        with self._node.begin() as session:
            row = session.get_one(CommitmentRow, commitment_id)
            if row.attempts >= attempt:
                return  # made and recorded before a crash
            references = self._looked_up(session, row)
        try:
            host, port, secured = report_address(settings, row.caller, row.address)
            send_report(
                row.transaction_uid,
                references,
                host=host,
                port=port,
                called_ae=row.caller,
                calling_ae=settings.ae_title,
                tls=report_tls(settings) if secured else None,
            )
        except Unavailable as error:
            self._retry(commitment_id, attempt, error)
        except (Rejected, Misconfigured) as error:
            self.hold(commitment_id, attempt, str(error))
        else:
            failed = sum(1 for reference in references if reference.failure)
            with self._node.begin() as session:
                row = self._recorded(session, commitment_id, attempt, DeliveryState.DELIVERED, "")
                _append(self._node, session, row, "reported", committed=len(references) - failed, failed=failed)

    def hold(self, commitment_id: str, attempt: int, reason: str) -> None:
        """Stop trying and leave the report to a person."""
        with self._node.begin() as session:
            row = self._recorded(session, commitment_id, attempt, DeliveryState.HELD, reason)
            hold(session, "commitment", commitment_id, reason)
            _append(self._node, session, row, "held", reason=reason)

    def _retry(self, commitment_id: str, attempt: int, error: Unavailable) -> None:
        settings = self._node.settings
        limit = settings.delivery_backoff_limit_seconds
        pause = min(limit, settings.delivery_backoff_seconds * 2 ** min(attempt - 1, 20))
        with self._node.begin() as session:
            row = self._recorded(session, commitment_id, attempt, DeliveryState.RETRYING, str(error))
            row.next_attempt_at = utc_now() + timedelta(seconds=pause)
            _append(self._node, session, row, "retrying", reason=str(error))
            following = f"{commitment_id}:{attempt + 1}"
            self._node.queue.start(session, COMMIT, following, commitment_id, str(attempt + 1), delay_seconds=pause)

    def _recorded(
        self, session: Session, commitment_id: str, attempt: int, state: DeliveryState, error: str
    ) -> CommitmentRow:
        row = session.get_one(CommitmentRow, commitment_id)
        row.attempts, row.state, row.last_error, row.next_attempt_at = attempt, state.value, error, None
        if state is DeliveryState.DELIVERED:
            row.reported_at = utc_now()
        return row

    def _looked_up(self, session: Session, row: CommitmentRow) -> list[Reference]:
        """Each object with the reason why it is not safe here, if so."""
        from dicom_listener.commitment import CLASS_CONFLICT, NO_SUCH_OBJECT, Reference

        asked = [(sop_class, sop_instance) for sop_class, sop_instance in json.loads(row.asked_for)]
        known: dict[str, list[tuple[str, str]]] = {}
        for start in range(0, len(asked), _TOGETHER):
            uids = [uid for _, uid in asked[start : start + _TOGETHER]]
            for query in (
                select(InstanceRow.sop_instance_uid, InstanceRow.sop_class_uid, InstanceRow.digest).where(
                    col(InstanceRow.sop_instance_uid).in_(uids)
                ),
                select(ArtifactRow.uid, ArtifactRow.sop_class_uid, ArtifactRow.digest).where(
                    col(ArtifactRow.uid).in_(uids)
                ),
                select(FormerArtifactRow.uid, FormerArtifactRow.sop_class_uid, FormerArtifactRow.digest).where(
                    col(FormerArtifactRow.uid).in_(uids)
                ),
            ):
                for uid, sop_class, digest in session.execute(query):
                    known.setdefault(uid, []).append((sop_class, digest))
        references = []
        for sop_class, uid in asked:
            safe = [kept for kept, digest in known.get(uid, []) if self._node.blobs.exists(digest)]
            failure = 0 if sop_class in safe else CLASS_CONFLICT if safe else NO_SUCH_OBJECT
            references.append(Reference(sop_class, uid, failure))
        return references


def _append(node: Node, session: Session, row: CommitmentRow, action: str, **details: JsonValue) -> None:
    node.audit.append(
        session,
        AuditEntry(
            action=f"commitment.{action}",
            actor=row.caller,
            subject_type="commitment",
            subject_id=row.id,
            outcome="failure" if action in ("held", "retrying") else "success",
            details={"transaction_uid": row.transaction_uid, "attempt": row.attempts, **details},
        ),
    )
    log.info(f"commitment.{action}", commitment_id=row.id, caller=row.caller, **details)
