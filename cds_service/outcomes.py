"""Outcomes taken in: kept with every version, matched to the lesion, or held for a person (docs/outcomes.md).

The bytes come first, then one transaction with the version, what it says of each lesion, holds and audit leaves. The
same version again changes nothing; an amended one takes the former's place, a withdrawn one its effect.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import sqlalchemy as sa
import structlog
from opentelemetry import metrics
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import SQLModel, col, or_, select

from cds_service.holding import close
from cds_service.node import Node
from cds_service.outcome_candidates import candidates_of
from cds_service.outcome_rows import outcome_of
from cds_service.steps import hold
from dermoscopy.domain import LesionClass, PatientIdentity, TriageTier, derive_id
from dermoscopy.errors import UnknownPatient
from dermoscopy.outcomes import Certainty, Matched, Outcome, OutcomeState, OutcomeStatus, match
from dermoscopy.ports import AuditEntry, JsonValue
from dermoscopy.tables import AnalysisRow, HoldRow, OutcomeRow, utc_now
from fhir_adapters.pathology import Part, Told
from fhir_adapters.read import patient_identities

log = structlog.get_logger(__name__)
_received = metrics.get_meter(__name__).create_counter(
    "cds_outcomes_received", description="outcomes that came in, by what became of them"
)
_VERSIONS = SQLModel.metadata.tables["outcome_version"]

HOLD = "outcome"
MISSED = "missed_melanoma"
REASSURED = (TriageTier.ROUTINE, TriageTier.MONITOR)
"""Tiers by which a melanoma was missed."""
_TRIES = 3


Result = Literal["recorded", "duplicate", "superseded", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a resource came: ``origin`` is the server that was asked, or the caller that sent it."""

    origin: str
    way: str
    """``post`` or ``poll``."""
    caller: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of one resource."""

    told: Told
    result: Result
    rows: tuple[OutcomeRow, ...]


def record(node: Node, told: Told, body: bytes, arrival: Arrival) -> Recorded:
    """Keep what ``body`` told. Raises `Unavailable` (nothing was kept: send it again)."""
    digest = node.blobs.put(body)
    found = _recorded(node, told, digest, arrival)
    for row in found.rows if found.result in ("recorded", "withdrawn") else ():
        _received.add(1, {"way": arrival.way, "result": row.state})
    log.info("outcome.taken", result=found.result, way=arrival.way, states=[row.state for row in found.rows])
    return found


def _recorded(node: Node, told: Told, digest: str, arrival: Arrival) -> Recorded:
    for left in reversed(range(_TRIES)):
        try:
            with node.begin() as session:
                found = _record(node, session, told, digest, arrival)
                session.flush()
                session.expunge_all()
            return found
        except IntegrityError:  # another version of the same report at the same moment
            if not left:
                raise
    raise AssertionError  # the last try returns or raises


def _record(node: Node, session: Session, told: Told, digest: str, arrival: Arrival) -> Recorded:
    source = _key(arrival.origin, told.resource_type, told.resource_id or told.business or digest)
    business = _key(told.resource_type, told.business) if told.business else ""
    fresh = _add_version(session, source, told, digest, arrival)
    known = col(OutcomeRow.source_key) == source
    if business:
        known = or_(known, col(OutcomeRow.business_key) == business)
    query = select(OutcomeRow).where(known).order_by(col(OutcomeRow.part)).with_for_update()
    before = {row.part: row for row in session.execute(query).scalars()}
    if not fresh:
        return Recorded(told, "duplicate", tuple(before.values()))
    if any(_older(told, row, source) for row in before.values()):
        session.execute(
            sa.update(_VERSIONS)
            .where(_VERSIONS.c.source_key == source, _VERSIONS.c.version == told.version)
            .values(superseded=True)
        )
        return Recorded(told, "superseded", tuple(before.values()))
    rows = []
    for part in told.parts:
        row = before.pop(part.key, None) or _new_row(session, source, part.key)
        row.business_key = business or row.business_key
        _tell(node, session, row, told, part, arrival, digest)
        rows.append(row)
    for row in before.values():
        _withdraw(node, session, row, told, arrival, digest)
    result: Result = "withdrawn" if told.status is OutcomeStatus.ENTERED_IN_ERROR else "recorded"
    return Recorded(told, result, (*rows, *before.values()))


def _add_version(session: Session, source: str, told: Told, digest: str, arrival: Arrival) -> bool:
    """Whether this version is new; of the same one at once from two sides, one waits here and finds it."""
    values = {
        "id": derive_id("outcome-version", source, told.version),
        "source_key": source,
        "version": told.version,
        "version_at": told.version_at,
        "digest": digest,
        "way": arrival.way,
        "caller": arrival.caller,
        "received_at": utc_now(),
        "superseded": False,
        "told": json.dumps([_said(part.outcome) | {"part": part.key} for part in told.parts]),
    }
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    added = session.execute(insert(_VERSIONS).values(values).on_conflict_do_nothing().returning(_VERSIONS.c.id))
    return added.scalar_one_or_none() is not None


def _older(told: Told, row: OutcomeRow, source: str) -> bool:
    """Whether a later version stands already: by its number where one server gave both, else by its time."""
    if row.source_key == source and told.version.isdigit() and row.version.isdigit():
        return int(told.version) < int(row.version)
    return bool(told.version_at and row.version_at and told.version_at < row.version_at)


def _new_row(session: Session, source: str, part: str) -> OutcomeRow:
    row = OutcomeRow(
        id=derive_id("outcome", source, part),
        source_key=source,
        part=part,
        origin="",
        resource_type="",
        version="",
        status="",
        state=OutcomeState.HELD.value,
        certainty="",
        received_at=utc_now(),
    )
    session.add(row)
    return row


# ------------------------------------------------------------------------------------------- what one part now says


def _tell(node: Node, session: Session, row: OutcomeRow, told: Told, part: Part, arrival: Arrival, digest: str) -> None:
    outcome, first = part.outcome, not row.version
    same_basis = not first and _basis(outcome_of(row)) == _basis(outcome)
    patients, doubt = _patients(node, told)
    former = PatientIdentity(row.issuer, row.patient_id)
    moved = bool(not first and former.known and patients) and former not in patients
    was = row.analysis_id
    _write(row, told, outcome, arrival)
    found = Matched(was, row.matched_by) if was and same_basis and not moved else None
    if found is None:
        choice = candidates_of(session, patients)
        found = Matched(reason=doubt) if doubt else match(outcome, choice, days=node.settings.outcome_days)
    if moved:
        found = Matched(reason="an earlier version of this report named another patient")
    row.analysis_id, row.matched_by = found.analysis_id, found.by
    analysis = session.get(AnalysisRow, found.analysis_id) if found.analysis_id else None
    if analysis is not None:
        row.issuer, row.patient_id = analysis.issuer, analysis.patient_id
    elif patients:
        here = {PatientIdentity(*pair) for pair in _known_patients(session, patients)}
        patient = next((one for one in patients if one in here), patients[0])
        row.issuer, row.patient_id = patient.issuer, patient.patient_id
    settle(node, session, row, found.reason or outcome.doubt, by=arrival.caller)
    append_leaf(node, session, "outcome.recorded", row, arrival.caller, digest=digest, way=arrival.way)
    session.flush()
    for analysis_id in {was, row.analysis_id} - {""}:
        watch_for_missed(node, session, analysis_id, by=arrival.caller)


def _write(row: OutcomeRow, told: Told, outcome: Outcome, arrival: Arrival) -> None:
    row.origin, row.resource_type, row.resource_id = arrival.origin, told.resource_type, told.resource_id
    row.version, row.version_at, row.status = told.version, told.version_at, outcome.status.value
    row.certainty = outcome.certainty.value
    row.lesion_class = outcome.lesion_class.value if outcome.lesion_class else ""
    row.malignant = outcome.malignant
    row.diagnosis_system, row.diagnosis_code = outcome.diagnosis_system, outcome.diagnosis_code
    row.diagnosis, row.doubt = outcome.diagnosis, outcome.doubt
    row.diagnosed_at, row.timed = outcome.diagnosed_at, outcome.timed
    row.body_site_code, row.laterality = outcome.body_site_code, outcome.laterality
    row.references = json.dumps(outcome.references)


def settle(node: Node, session: Session, row: OutcomeRow, reason: str, *, by: str) -> None:
    """Hold the outcome for ``reason``, or let it count where there is none."""
    row.state = (OutcomeState.HELD if reason or not row.analysis_id else OutcomeState.MATCHED).value
    row.reason = reason
    if row.state == OutcomeState.HELD:
        hold(session, HOLD, row.id, f"{row.resource_type}: {reason}")
    else:
        _close_hold(node, session, HOLD, row.id, by=by, resolution=f"matched by {row.matched_by}")


def _withdraw(node: Node, session: Session, row: OutcomeRow, told: Told, arrival: Arrival, digest: str) -> None:
    """What is withdrawn, or no longer said by an amended report, counts no more; what it said stays in its versions."""
    row.version, row.version_at = told.version, told.version_at
    row.status, row.state, row.reason = OutcomeStatus.ENTERED_IN_ERROR.value, OutcomeState.WITHDRAWN.value, ""
    _close_hold(node, session, HOLD, row.id, by=arrival.caller, resolution="the report was withdrawn")
    append_leaf(node, session, "outcome.withdrawn", row, arrival.caller, digest=digest, way=arrival.way)
    session.flush()
    if row.analysis_id:
        watch_for_missed(node, session, row.analysis_id, by=arrival.caller)


def _patients(node: Node, told: Told) -> tuple[list[PatientIdentity], str]:
    """Whom the report is about, under our names; or why that is not clear."""
    if not told.identifiers:
        return [], "it names its patient by no identifier"
    stated = [{"system": system, "value": value} for system, value in told.identifiers]
    try:
        found = patient_identities({"resourceType": "Patient", "identifier": stated}, node.issuers.issuer_of_system)
    except UnknownPatient:
        return [], "its patient has several identifiers of one system"
    return [node.issuers.canonical(one) for one in found], ""


def _known_patients(session: Session, patients: Sequence[PatientIdentity]) -> list[tuple[str, str]]:
    whose = or_(
        *((col(AnalysisRow.issuer) == p.issuer) & (col(AnalysisRow.patient_id) == p.patient_id) for p in patients)
    )
    columns = select(AnalysisRow.issuer, AnalysisRow.patient_id).where(whose).distinct()
    return [(issuer, patient_id) for issuer, patient_id in session.execute(columns)]


# ------------------------------------------------------------------------------------------------------ missed melanoma


def watch_for_missed(node: Node, session: Session, analysis_id: str, *, by: str) -> None:
    """Tell a person of a melanoma whose image was called routine or harmless; take it back when it was no melanoma."""
    melanoma = session.execute(
        select(OutcomeRow.id).where(
            col(OutcomeRow.analysis_id) == analysis_id,
            col(OutcomeRow.state) == OutcomeState.MATCHED.value,
            col(OutcomeRow.lesion_class) == LesionClass.MEL.value,
        )
    ).first()
    analysis = session.get_one(AnalysisRow, analysis_id)
    known = session.get(HoldRow, derive_id("hold", MISSED, analysis_id))
    if melanoma is None or analysis.tier not in REASSURED:
        _close_hold(node, session, MISSED, analysis_id, by=by, resolution="the melanoma was withdrawn or amended")
        return
    if known is not None and (known.resolved_at is None or not known.resolution.startswith("the melanoma was")):
        return  # told already
    hold(session, MISSED, analysis_id, f"melanoma was found; the algorithm's tier had been {analysis.tier}")
    node.audit.append(
        session,
        AuditEntry(
            action="outcome.missed_melanoma",
            actor=by,
            subject_type="analysis",
            subject_id=analysis_id,
            outcome="failure",
            patient_issuer=analysis.issuer,
            patient_id=analysis.patient_id,
            details={
                "outcome_id": melanoma[0],
                "tier": analysis.tier,
                "model": f"{analysis.model_name}=={analysis.model_version}",
            },
        ),
    )
    log.critical("outcome.missed_melanoma", analysis_id=analysis_id, tier=analysis.tier, model=analysis.model_version)


def _close_hold(node: Node, session: Session, kind: str, subject_id: str, *, by: str, resolution: str) -> None:
    row = session.get(HoldRow, derive_id("hold", kind, subject_id))
    if row is not None and row.resolved_at is None:
        close(node, session, row, by=by, resolution=resolution)


# ------------------------------------------------------------------------------------------------------------- shared


def _basis(outcome: Outcome) -> Outcome:
    """What a match rests on."""
    return replace(
        outcome,
        status=OutcomeStatus.FINAL,
        certainty=Certainty.HISTOPATHOLOGY,
        lesion_class=None,
        malignant=None,
        diagnosis_system="",
        diagnosis_code="",
        diagnosis="",
        doubt="",
        alone=True,
    )


def _said(outcome: Outcome) -> dict[str, JsonValue]:
    return {
        "status": outcome.status.value,
        "certainty": outcome.certainty.value,
        "lesion_class": outcome.lesion_class.value if outcome.lesion_class else "",
        "malignant": outcome.malignant,
        "diagnosis_system": outcome.diagnosis_system,
        "diagnosis_code": outcome.diagnosis_code,
        "diagnosed_at": outcome.diagnosed_at.isoformat() if outcome.diagnosed_at else "",
        "body_site_code": outcome.body_site_code,
        "laterality": outcome.laterality,
        "doubt": outcome.doubt,
    }


def append_leaf(node: Node, session: Session, action: str, row: OutcomeRow, actor: str, **details: JsonValue) -> None:
    """An audit leaf about one outcome; its patient stands in the columns for that alone."""
    node.audit.append(
        session,
        AuditEntry(
            action=action,
            actor=actor,
            subject_type="outcome",
            subject_id=row.id,
            patient_issuer=row.issuer,
            patient_id=row.patient_id,
            details={
                **_said(outcome_of(row)),
                "origin": row.origin,
                "resource_type": row.resource_type,
                "version": row.version,
                "state": row.state,
                "reason": row.reason,
                "analysis_id": row.analysis_id,
                "matched_by": row.matched_by,
                **details,
            },
        ),
    )


def _key(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
