"""Outcome rows as outcomes, and what stands of each lesion."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy.orm import Session
from sqlmodel import col, select

from dermoscopy.domain import LesionClass
from dermoscopy.outcomes import Certainty, Outcome, OutcomeState, OutcomeStatus, gravity
from dermoscopy.tables import OutcomeRow


def outcome_of(row: OutcomeRow) -> Outcome:
    """The outcome that a row holds."""
    return Outcome(
        status=OutcomeStatus(row.status),
        certainty=Certainty(row.certainty),
        diagnosed_at=row.diagnosed_at,
        timed=row.timed,
        lesion_class=LesionClass(row.lesion_class) if row.lesion_class else None,
        malignant=row.malignant,
        diagnosis_system=row.diagnosis_system,
        diagnosis_code=row.diagnosis_code,
        diagnosis=row.diagnosis,
        doubt=row.doubt,
        references=tuple(json.loads(row.references)),
        body_site_code=row.body_site_code,
        laterality=row.laterality,
    )


def gravest_of(session: Session, analyses: Sequence[str]) -> dict[str, OutcomeRow]:
    """Analysis → the matched outcome that stands: histopathology before follow-up, and of it the gravest.

    A second excision that finds a scar does not undo the melanoma that the first one found.
    """
    if not analyses:
        return {}
    query = select(OutcomeRow).where(
        col(OutcomeRow.analysis_id).in_(analyses), col(OutcomeRow.state) == OutcomeState.MATCHED.value
    )
    rows = sorted(session.execute(query).scalars(), key=lambda row: (gravity(outcome_of(row)), row.received_at))
    return {row.analysis_id: row for row in rows}
