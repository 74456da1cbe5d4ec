"""How an outcome is shown; nothing of it says who the patient is."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from cds_service.outcome_rows import gravest_of
from dermoscopy.domain import LesionClass
from dermoscopy.outcomes import Certainty, OutcomeState, OutcomeStatus
from dermoscopy.tables import OutcomeRow


class OutcomeAnswer(BaseModel):
    """What pathology or follow-up found of one lesion."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    outcome_id: str
    report_id: str | None = Field(description="The analysis it belongs to; null until that is known")
    state: OutcomeState
    reason: str = Field(default="", description="Why it is held")
    status: OutcomeStatus
    certainty: Certainty
    lesion_class: LesionClass | None = Field(description="Null for a diagnosis that is none of the seven classes")
    malignant: bool | None = Field(description="Cancer (also in situ) or actinic keratosis; null: not known")
    diagnosis: str = Field(default="", description="What the code means")
    diagnosis_system: str = ""
    diagnosis_code: str = ""
    diagnosed_at: datetime | None = Field(default=None, description="When the specimen was taken, else examined")
    matched_by: str = Field(default="", description="report, accession, site or person")
    origin: str = Field(description="Server or API token that told it")
    received_at: datetime


def outcome_answer(row: OutcomeRow) -> OutcomeAnswer:
    """One outcome, as the API shows it."""
    return OutcomeAnswer(
        outcome_id=row.id,
        report_id=row.analysis_id or None,
        state=OutcomeState(row.state),
        reason=row.reason,
        status=OutcomeStatus(row.status),
        certainty=Certainty(row.certainty),
        lesion_class=LesionClass(row.lesion_class) if row.lesion_class else None,
        malignant=row.malignant,
        diagnosis=row.diagnosis,
        diagnosis_system=row.diagnosis_system,
        diagnosis_code=row.diagnosis_code,
        diagnosed_at=row.diagnosed_at,
        matched_by=row.matched_by,
        origin=row.origin,
        received_at=row.received_at,
    )


def standing_outcome(session: Session, analysis_id: str) -> OutcomeAnswer | None:
    """What stands of the lesion of an analysis (`dermoscopy.outcomes.gravest`); ``None`` where nothing is known."""
    row = gravest_of(session, [analysis_id]).get(analysis_id)
    return outcome_answer(row) if row is not None else None
