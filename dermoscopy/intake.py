"""The one door in: store the bytes durably, then instance row, audit leaf and start of the work in one transaction.

A sender may be told "success" when `Intake.accept` has returned, and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
import structlog
from opentelemetry import metrics, propagate, trace
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlmodel import SQLModel, select

from dermoscopy.database import UnitOfWork, one_at_a_time
from dermoscopy.domain import ImageHeader, ModelReference, PatientIdentity, derive_id
from dermoscopy.errors import Rejected, Unavailable
from dermoscopy.ports import AuditEntry, AuditLog, BlobStore, WorkQueue
from dermoscopy.routing import EVERYTHING, Action, Route
from dermoscopy.tables import AnalysisRow, HoldRow, InstanceRow, utc_now
from dermoscopy.workqueue import ANALYSE

log = structlog.get_logger(__name__)
_tracer = trace.get_tracer(__name__)
_received = metrics.get_meter(__name__).create_counter("cds_instances_received", description="images taken in")

DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout)
"""What SQLAlchemy raises when the database cannot be reached, is locked for too long, or goes away in the middle."""

NO_PATIENT = "no_patient_id"
UID_CONFLICT = "uid_conflict"
PATIENT_CONFLICT = "patient_conflict"
SEVERAL_FRAMES = "several_frames"

_HOLD_REASONS = {
    NO_PATIENT: "the object names no patient: say whose image it is",
    UID_CONFLICT: "this patient already has an object with the same UID but other bytes: decide which one is right",
    PATIENT_CONFLICT: "another patient already has an object with this UID: decide whose image it is",
    SEVERAL_FRAMES: "the object holds several pictures and is kept unanalysed: have each sent as an image of its own, "
    "then dismiss this",
}


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an accepted object. ``analysis_id`` is empty while it is held."""

    instance_id: str
    analysis_id: str
    duplicate: bool
    hold: str = ""
    """Kind of hold (`NO_PATIENT`, `UID_CONFLICT`, `PATIENT_CONFLICT`, `SEVERAL_FRAMES`) or empty."""

    @property
    def hold_reason(self) -> str:
        return _HOLD_REASONS.get(self.hold, "")


_INSERT_INSTANCE = sa.insert(SQLModel.metadata.tables["instance"])
_INSERT_ANALYSIS = sa.insert(SQLModel.metadata.tables["analysis"])
_NOT_YET = {"tier": "", "primary_class": "", "abstention": "", "document": "", "embedding": b"", "error": ""}
"""Columns of an analysis that its finding fills in."""
_TOLD = ("digest", "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "accession_number")
"""What the audit log says of an instance besides its size."""


class Intake:
    """Takes objects in for one champion model; safe to call from many threads and processes."""

    def __init__(
        self,
        begin: UnitOfWork,
        blobs: BlobStore,
        audit: AuditLog,
        queue: WorkQueue,
        champion: ModelReference,
        *,
        default_issuer: str = "",
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._begin = begin
        self._blobs = blobs
        self._audit = audit
        self._queue = queue
        self._champion = champion
        self._default_issuer = default_issuer
        self._clock = clock

    def accept(
        self, data: bytes, header: ImageHeader, *, source: str, caller: str, route: Route = EVERYTHING
    ) -> Receipt:
        """Keep ``data`` and start its analysis; the same image of the same patient twice is one instance.

        Where ``route`` says so it is kept and not analysed, and never held: nothing would be said of a patient.
        ``data`` is a DICOM dataset without file meta information or a PNG or JPEG file. Raises `StorageFull` (nothing
        was kept) or `Unavailable` (the database is away, nothing was promised).
        """
        with _tracer.start_as_current_span("intake.accept", attributes={"cds.source": source}) as span:
            digest = self._blobs.put(data)
            header = self._with_issuer(header)
            arguments = (digest, len(data), header, source, caller, route)
            try:
                receipt = self._recorded(*arguments)
            except DATABASE_AWAY as error:  # the sender must hear that it may send again
                raise Unavailable("the database is away, nothing was kept: send again later", retry_after=5) from error
            span.set_attribute("cds.instance_id", receipt.instance_id)
            _received.add(1, {"source": source, "outcome": receipt.hold or _outcome(receipt)})
            log.info(
                "instance.accepted",
                instance_id=receipt.instance_id,
                analysis_id=receipt.analysis_id,
                duplicate=receipt.duplicate,
                hold=receipt.hold,
                rule=route.rule,
                source=source,
                bytes=len(data),
            )
            return receipt

    def reject(self, error: Rejected, *, digest: str, source: str, caller: str, header: ImageHeader | None) -> None:
        """Record that an object was refused; nothing of it is kept but its digest."""
        patient = header.patient if header else PatientIdentity("", "")
        with self._begin() as session:
            self._audit.append(
                session,
                AuditEntry(
                    action="instance.rejected",
                    actor=caller,
                    subject_type="object",
                    subject_id=digest,
                    outcome="failure",
                    patient_issuer=patient.issuer,
                    patient_id=patient.patient_id,
                    details={"source": source, "error": type(error).__name__, "reason": str(error)},
                ),
            )
        _received.add(1, {"source": source, "outcome": "rejected"})
        log.warning("instance.rejected", error=type(error).__name__, reason=str(error), source=source, digest=digest)

    def resolve_hold(
        self, hold_id: str, *, by: str, patient: PatientIdentity | None, resolution: str
    ) -> Receipt | None:
        """A person decides about a held object: analyse it for ``patient``, or (``None``) leave it unanalysed for good.

        Raises `Rejected` when the hold does not exist, is no instance, or was decided already.
        """
        with self._begin() as session:
            one_at_a_time(session, f"hold {hold_id}")
            hold = session.get(HoldRow, hold_id)
            if hold is None or hold.kind not in _HOLD_REASONS:
                raise Rejected(f"no held image {hold_id}")
            if hold.resolved_at is not None:
                raise Rejected(f"hold {hold_id} was decided already: {hold.resolution}")
            if hold.kind == SEVERAL_FRAMES and patient is not None:
                raise Rejected(f"it cannot be analysed: {_HOLD_REASONS[SEVERAL_FRAMES]}")
            row = session.get_one(InstanceRow, hold.subject_id)
            hold.resolved_at, hold.resolved_by, hold.resolution = self._clock(), by, resolution
            self._append(session, "hold.resolved", by, row.model_dump(), resolution=resolution, hold=hold.kind)
            if patient is None:
                row.state = "dismissed"
                return None
            if patient == PatientIdentity(row.issuer, row.patient_id):
                row.state = "accepted"
                return Receipt(row.id, self._start(session, row.id, patient), duplicate=False)
            row.state = "reassigned"
            moved = replace(header_of(row), patient=patient)
            chosen = derive_id("instance", patient.issuer, patient.patient_id, row.sop_instance_uid or row.digest)
            there = session.get(InstanceRow, chosen)
            if there is not None and there.digest != row.digest:  # other bytes under this UID: these are kept beside it
                parts = (patient.issuer, patient.patient_id, row.sop_instance_uid, row.digest)
                chosen = derive_id("instance", *parts)
                there = session.get(InstanceRow, chosen)
            if there is None:
                route = Route.from_text(row.route)
                self._insert(session, chosen, row.digest, row.size, moved, row.source, by, hold="", route=route)
            return Receipt(chosen, self._start(session, chosen, patient), duplicate=False)

    def _with_issuer(self, header: ImageHeader) -> ImageHeader:
        patient = header.patient
        if patient.issuer or not patient.known or not self._default_issuer:
            return header
        return replace(header, patient=PatientIdentity(self._default_issuer, patient.patient_id))

    def _recorded(self, *arguments: Any) -> Receipt:
        try:
            with self._begin() as session:
                return self._record(session, *arguments)
        except IntegrityError:  # another thread or process recorded the same object first
            with self._begin() as session:
                return self._record(session, *arguments)

    def _record(
        self, session: Session, digest: str, size: int, header: ImageHeader, source: str, caller: str, route: Route
    ) -> Receipt:
        if header.sop_instance_uid:
            one_at_a_time(session, f"uid {header.sop_instance_uid}")
        patient = header.patient
        only_stored = route.action is Action.STORE
        instance_id = derive_id("instance", patient.issuer, patient.patient_id, header.sop_instance_uid or digest)
        known = session.get(InstanceRow, instance_id)
        hold = SEVERAL_FRAMES if header.frames > 1 else "" if patient.known else NO_PATIENT
        if known is not None and known.digest != digest:
            hold = hold if hold == SEVERAL_FRAMES else UID_CONFLICT
            instance_id = derive_id("instance", patient.issuer, patient.patient_id, header.sop_instance_uid, digest)
            known = session.get(InstanceRow, instance_id)
        elif known is None and not hold and header.sop_instance_uid and self._belongs_to_other(session, header):
            hold = PATIENT_CONFLICT
        if known is not None:
            self._append(session, "instance.received_again", caller, known.model_dump(), source=source, rule=route.rule)
            if known.state == "stored" and not only_stored:  # wanted now: another sender, or new rules
                if not hold and self._belongs_to_other(session, header):
                    hold = PATIENT_CONFLICT
                known.state, known.route = "held" if hold else "accepted", route.to_text()
                if hold:
                    self._hold(session, hold, known.id)
            if known.state != "accepted" or only_stored:
                waiting = select(HoldRow.kind).where(HoldRow.subject_id == known.id)
                return Receipt(known.id, "", duplicate=True, hold=session.execute(waiting).scalars().first() or "")
            return Receipt(known.id, self._start(session, known.id, patient), duplicate=True)
        if only_stored:
            hold = ""
        self._insert(session, instance_id, digest, size, header, source, caller, hold, route)
        if hold or only_stored:
            return Receipt(instance_id, "", duplicate=False, hold=hold)
        return Receipt(instance_id, self._start(session, instance_id, patient, new=True), duplicate=False)

    def _insert(
        self,
        session: Session,
        instance_id: str,
        digest: str,
        size: int,
        header: ImageHeader,
        source: str,
        caller: str,
        hold: str,
        route: Route,
    ) -> None:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        state = "held" if hold else "stored" if route.action is Action.STORE else "accepted"
        values: dict[str, Any] = {
            "id": instance_id,
            "digest": digest,
            "size": size,
            "source": source,
            "caller": caller,
            "received_at": self._clock(),
            "state": state,
            "media_type": header.media_type,
            "issuer": header.patient.issuer,
            "patient_id": header.patient.patient_id,
            "sop_class_uid": header.sop_class_uid,
            "sop_instance_uid": header.sop_instance_uid,
            "study_instance_uid": header.study_instance_uid,
            "series_instance_uid": header.series_instance_uid,
            "accession_number": header.accession_number,
            "transfer_syntax_uid": header.transfer_syntax_uid,
            "rows": header.rows,
            "columns": header.columns,
            "body_site_code": header.body_site_code,
            "laterality": header.laterality,
            "trace": carrier.get("traceparent", ""),
            "route": route.to_text(),
        }
        # Plain inserts: a mapped object per row would cost more than everything else in this transaction.
        session.execute(_INSERT_INSTANCE, values)
        if hold:
            self._hold(session, hold, instance_id)
        self._append(session, f"instance.{state}", caller, values, source=source, hold=hold, rule=route.rule)

    def _hold(self, session: Session, kind: str, instance_id: str) -> None:
        session.add(
            HoldRow(
                id=derive_id("hold", kind, instance_id),
                kind=kind,
                subject_id=instance_id,
                reason=_HOLD_REASONS[kind],
                created_at=self._clock(),
            )
        )

    def _start(self, session: Session, instance_id: str, patient: PatientIdentity, *, new: bool = False) -> str:
        """Queue the champion's analysis of an instance unless it is there already."""
        analysis_id = derive_id("analysis", instance_id, self._champion.digest)
        if new or session.get(AnalysisRow, analysis_id) is None:
            session.execute(
                _INSERT_ANALYSIS,
                {
                    "id": analysis_id,
                    "instance_id": instance_id,
                    "issuer": patient.issuer,
                    "patient_id": patient.patient_id,
                    "state": "queued",
                    "created_at": self._clock(),
                    "model_name": self._champion.name,
                    "model_version": self._champion.version,
                    "model_digest": self._champion.digest,
                    **_NOT_YET,
                },
            )
            self._queue.start(session, ANALYSE, analysis_id, analysis_id)
        return analysis_id

    def _belongs_to_other(self, session: Session, header: ImageHeader) -> bool:
        others = select(InstanceRow.id).where(
            InstanceRow.sop_instance_uid == header.sop_instance_uid,
            (InstanceRow.issuer != header.patient.issuer) | (InstanceRow.patient_id != header.patient.patient_id),
            InstanceRow.patient_id != "",
        )
        return session.execute(others.limit(1)).first() is not None

    def _append(self, session: Session, action: str, actor: str, instance: Mapping[str, Any], **details: str) -> None:
        told = {name: instance[name] for name in _TOLD}
        self._audit.append(
            session,
            AuditEntry(
                action=action,
                actor=actor,
                subject_type="instance",
                subject_id=instance["id"],
                patient_issuer=instance["issuer"],
                patient_id=instance["patient_id"],
                details={**told, "bytes": instance["size"], **{k: v for k, v in details.items() if v}},
            ),
        )


def header_of(row: InstanceRow) -> ImageHeader:
    """The header an instance was accepted with."""
    return ImageHeader(
        media_type=row.media_type,
        patient=PatientIdentity(row.issuer, row.patient_id),
        rows=row.rows,
        columns=row.columns,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        accession_number=row.accession_number,
        transfer_syntax_uid=row.transfer_syntax_uid,
        body_site_code=row.body_site_code,
        laterality=row.laterality,
    )


def _outcome(receipt: Receipt) -> str:
    return "duplicate" if receipt.duplicate else "accepted"
