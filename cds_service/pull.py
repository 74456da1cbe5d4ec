"""A patient's earlier images fetched from a PACS: find → leave out what is here → fetch → look what has come.

Pulling again is harmless: what is here is not asked for, and every object goes through intake's one door. What the
source says of another patient is not followed; an object of another patient is refused at the door (`asked`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import structlog
from opentelemetry import metrics, trace
from sqlalchemy.orm import Session
from sqlmodel import col, select

from cds_service.node import Node
from cds_service.pull_sources import Source, open_source
from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import DermoscopyError, Rejected
from dermoscopy.ports import AuditEntry, JsonValue
from dermoscopy.tables import ArtifactRow, InstanceRow

log = structlog.get_logger(__name__)
_tracer = trace.get_tracer(__name__)
_pulled = metrics.get_meter(__name__).create_counter("cds_pulled", description="earlier images asked for, by outcome")

_TOGETHER = 500
"""UIDs that are looked up in one query."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be pulled. ``source``: name in the settings, empty for the only one; ``since``: ``YYYYMMDD``."""

    patient: PatientIdentity
    source: str = ""
    since: str = ""
    dry_run: bool = False
    """Look, fetch nothing."""
    store_only: bool = False
    """Keep what comes, analyse nothing of it."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """How a pull ended, as numbers of objects; ``other_patient`` counts studies."""

    found: int = 0
    known: int = 0
    """Here already."""
    own: int = 0
    """Results of this service: never pulled."""
    taken: int = 0
    held: int = 0
    """Taken in, and held for a person (a conflict of identifiers)."""
    failed: int = 0
    """Asked for and not here: the source did not send it, or it was refused (its `instance.rejected` says why)."""
    misfiled: int = 0
    """Sent under another patient than the one it was found under; kept under the patient that it names."""
    other_patient: int = 0
    """Studies in the answer that are of another patient than the one asked for; not followed."""

    @property
    def complete(self) -> bool:
        """Whether everything that was found is here now, and nothing was of somebody else."""
        return not (self.failed or self.misfiled or self.other_patient)


def pull(node: Node, asked: Asked, *, actor: str, source: Source | None = None) -> Pulled:
    """Pull once; ``actor`` stands in the audit log. ``source`` replaces the configured one.

    Raises `Rejected` (no such source, no such question, or refused there), `Unavailable` (try again; what
    has come by then is kept).
    """
    patient = node.issuers.canonical(asked.patient)
    if not patient.known:
        raise Rejected("say whose images are wanted: a patient id")
    chosen = source or open_source(node, asked.source)
    name = asked.source or next(iter(node.settings.sources), "")
    record = _Record(node, str(uuid.uuid4()), actor, patient, name)
    record.append("started", since=asked.since, dry_run=asked.dry_run, store_only=asked.store_only)
    with _tracer.start_as_current_span("pull", attributes={"cds.source": name}):
        try:
            done = _pull(node, asked, patient, chosen)
        except DermoscopyError as error:
            record.append("failed", error=type(error).__name__, reason=str(error))
            log.warning("pull.failed", source=name, error=type(error).__name__, reason=str(error))
            raise
    counts = asdict(done)
    record.append("completed", good=done.complete, dry_run=asked.dry_run, **counts)
    for outcome in ("known", "own", "taken", "held", "failed", "misfiled"):
        if counts[outcome]:
            _pulled.add(counts[outcome], {"source": name, "outcome": outcome})
    (log.info if done.complete else log.warning)("pull.completed", source=name, dry_run=asked.dry_run, **counts)
    return done


def _pull(node: Node, asked: Asked, patient: PatientIdentity, source: Source) -> Pulled:
    from dicom_listener.query import Wanted

    canonical = node.issuers.canonical
    wanted = Wanted(patient, node.settings.pull_modalities, asked.since)
    found = source.find(wanted, lambda answered: canonical(answered) == patient)
    uids = [match.sop_instance_uid for match in found.matches]
    with node.begin() as session:
        before = [(uid, canonical(whose)) for uid, whose, _ in _here(session, uids)]
        known = {uid for uid, whose in before if whose == patient}
        own = _own(session, uids) - known
    missing = [match for match in found.matches if match.sop_instance_uid not in known | own]
    counted = Pulled(len(uids), len(known), len(own), other_patient=len(found.of_others))
    if asked.dry_run or not missing:
        return counted
    source.bring(missing, patient, store_only=asked.store_only)
    states: dict[str, str] = {}
    elsewhere: set[str] = set()
    with node.begin() as session:
        for uid, whose, state in _here(session, [match.sop_instance_uid for match in missing]):
            if canonical(whose) == patient:
                states[uid] = state
            else:
                elsewhere.add(uid)
    held = sum(state == "held" for state in states.values())
    misfiled = len(elsewhere - set(states) - {uid for uid, _ in before})
    return Pulled(
        found=counted.found,
        known=counted.known,
        own=counted.own,
        taken=len(states) - held,
        held=held,
        failed=len(missing) - len(states) - misfiled,
        misfiled=misfiled,
        other_patient=counted.other_patient,
    )


def _here(session: Session, uids: Sequence[str]) -> Iterator[tuple[str, PatientIdentity, str]]:
    """(SOP Instance UID, patient, state) of the images that are here; one UID may stand under several patients."""
    columns = (InstanceRow.sop_instance_uid, InstanceRow.issuer, InstanceRow.patient_id, InstanceRow.state)
    for some in _slices(uids):
        for uid, issuer, patient_id, state in session.execute(
            select(*columns).where(col(InstanceRow.sop_instance_uid).in_(some))
        ):
            yield uid, PatientIdentity(issuer, patient_id), state


def _own(session: Session, uids: Sequence[str]) -> set[str]:
    """Those that are results of ours."""
    return {
        uid
        for some in _slices(uids)
        for uid in session.execute(select(ArtifactRow.uid).where(col(ArtifactRow.uid).in_(some))).scalars()
    }


def _slices(uids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(uids), _TOGETHER):
        yield uids[start : start + _TOGETHER]


@dataclass(frozen=True, slots=True)
class _Record:
    """Writes the leaves of one pull."""

    node: Node
    pull_id: str
    actor: str
    patient: PatientIdentity
    source: str

    def append(self, what: str, *, good: bool = True, **details: JsonValue) -> None:
        with self.node.begin() as session:
            self.node.audit.append(
                session,
                AuditEntry(
                    action=f"pull.{what}",
                    actor=self.actor,
                    subject_type="pull",
                    subject_id=self.pull_id,
                    outcome="success" if good and what != "failed" else "failure",
                    patient_issuer=self.patient.issuer,
                    patient_id=self.patient.patient_id,
                    details={"source": self.source, **details},
                ),
            )
