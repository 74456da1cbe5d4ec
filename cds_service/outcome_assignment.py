"""A person says which lesion a held outcome belongs to, or what it found where its code is not known here."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from cds_service.api.refusals import AlreadyDecided, FieldError, InvalidRequest, NotFound
from cds_service.api.stored import READY
from cds_service.authorization import Caller
from cds_service.node import Node
from cds_service.outcomes import append_leaf, settle, watch_for_missed
from dermoscopy.database import one_at_a_time
from dermoscopy.domain import MALIGNANT, LesionClass, PatientIdentity
from dermoscopy.outcomes import OutcomeState
from dermoscopy.tables import AnalysisRow, OutcomeRow

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the person says. ``lesion_class`` or ``malignant`` only where the source's code is not known here."""

    analysis_id: str
    lesion_class: LesionClass | None = None
    malignant: bool | None = None


def assign(node: Node, outcome_id: str, decision: Decision, *, caller: Caller) -> OutcomeRow:
    """Attach an outcome to an analysis of the same patient; the same again changes nothing.

    Raises `NotFound`, `AlreadyDecided` (withdrawn, or attached to another analysis without doubt) and `InvalidRequest`
    (another patient, no result, nothing said of what was found).
    """
    with node.begin() as session:
        one_at_a_time(session, f"outcome {outcome_id}")  # SQLite knows no lock of a row
        row = session.get(OutcomeRow, outcome_id, with_for_update=True)
        if row is None:
            raise NotFound("There is no outcome with this id.")
        if row.state == OutcomeState.WITHDRAWN:
            raise AlreadyDecided("This report was withdrawn: it is about no lesion any more.")
        if row.state == OutcomeState.MATCHED and row.matched_by != "person":
            if row.analysis_id == decision.analysis_id:
                return _detached(session, row)
            raise AlreadyDecided("This outcome was matched without doubt.", report_id=row.analysis_id)
        analysis = _analysis(session, row, decision, caller)
        was, row.analysis_id = row.analysis_id, analysis.id
        row.matched_by, row.assigned_by = "person", caller.name
        row.issuer, row.patient_id = analysis.issuer, analysis.patient_id
        _say(row, decision)
        settle(node, session, row, "", by=caller.name)
        append_leaf(node, session, "outcome.assigned", row, caller.name, before=was)
        session.flush()
        for analysis_id in {was, row.analysis_id} - {""}:
            watch_for_missed(node, session, analysis_id, by=caller.name)
        log.info("outcome.assigned", outcome_id=row.id, analysis_id=row.analysis_id)
        return _detached(session, row)


def _analysis(session: Session, row: OutcomeRow, decision: Decision, caller: Caller) -> AnalysisRow:
    analysis = session.get(AnalysisRow, decision.analysis_id)
    patient = PatientIdentity(analysis.issuer, analysis.patient_id) if analysis else None
    if analysis is None or patient is None or not caller.may_see(patient):
        raise _wrong("analysis_id", "there is no analysis with this id")
    if row.patient_id and patient != PatientIdentity(row.issuer, row.patient_id):
        raise _wrong("analysis_id", "this analysis is of another patient than the report: it is never attached to it")
    if analysis.state not in READY:
        raise _wrong("analysis_id", "this analysis has no result")
    return analysis


def _say(row: OutcomeRow, decision: Decision) -> None:
    """What a person read in a report whose code is not known here."""
    stated = decision.lesion_class is not None or decision.malignant is not None
    if row.malignant is not None and not row.doubt:
        if stated:
            raise _wrong("lesion_class", "the report states its diagnosis by a code that is known: nothing replaces it")
        return
    if decision.lesion_class is not None:
        row.lesion_class, row.malignant = decision.lesion_class.value, decision.lesion_class in MALIGNANT
    elif decision.malignant is not None:
        row.lesion_class, row.malignant = "", decision.malignant
    elif row.malignant is None:
        raise _wrong("lesion_class", f"say what the report found (lesion_class or malignant): {row.doubt}")


def _wrong(field: str, detail: str) -> InvalidRequest:
    return InvalidRequest([FieldError(pointer=f"#/{field}", detail=detail)])


def _detached(session: Session, row: OutcomeRow) -> OutcomeRow:
    session.flush()
    session.expunge(row)
    return row
