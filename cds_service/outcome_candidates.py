"""The images of a patient that an outcome may belong to."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session
from sqlmodel import col, or_, select

from cds_service.api.stored import READY
from dermoscopy.domain import PatientIdentity
from dermoscopy.outcomes import Candidate
from dermoscopy.reviews import reviews_of, standing
from dermoscopy.tables import AnalysisRow, InstanceRow, LesionImageRow

_SIDES = ("L", "R", "B")


def candidates_of(session: Session, patients: Sequence[PatientIdentity]) -> list[Candidate]:
    """One for each image of ``patients``, all of them one person; also of those that have no finished analysis."""
    if not patients:
        return []
    whose = or_(
        *((col(InstanceRow.issuer) == p.issuer) & (col(InstanceRow.patient_id) == p.patient_id) for p in patients)
    )
    images = session.execute(select(InstanceRow).where(whose)).scalars().all()
    runs = (
        select(AnalysisRow, LesionImageRow)
        .join(InstanceRow, col(AnalysisRow.instance_id) == col(InstanceRow.id))
        .outerjoin(LesionImageRow, col(LesionImageRow.analysis_id) == col(AnalysisRow.id))
        .where(whose, col(AnalysisRow.state).in_(READY))
        .order_by(col(AnalysisRow.created_at))
    )
    newest = {analysis.instance_id: (analysis, stated) for analysis, stated in session.execute(runs)}
    return [_candidate(session, image, *newest.get(image.id, (None, None))) for image in images]


def _candidate(
    session: Session, image: InstanceRow, analysis: AnalysisRow | None, stated: LesionImageRow | None
) -> Candidate:
    said = standing(reviews_of(session, analysis.id)) if analysis is not None and analysis.reviews else None
    side = (said.laterality if said else "") or image.laterality
    return Candidate(
        analysis_id=analysis.id if analysis is not None else image.id,
        taken_at=stated.taken_at if stated is not None else image.received_at,
        accession_number=image.accession_number,
        sop_instance_uid=image.sop_instance_uid,
        study_instance_uid=image.study_instance_uid,
        body_site_code=(said.body_site_code if said else "") or image.body_site_code,
        laterality=side if side in _SIDES else "",
        tracking_uid=stated.tracking_uid if stated is not None else "",
        ready=analysis is not None,
    )
