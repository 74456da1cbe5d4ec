"""Reviews: what clinicians said of an analysis, kept in the order in which it was said."""

from __future__ import annotations

import json

from sqlalchemy.orm import Session
from sqlmodel import col, select

from dermoscopy.domain import LesionClass, Review, Verdict
from dermoscopy.tables import ReviewRow


def reviews_of(session: Session, analysis_id: str) -> tuple[Review, ...]:
    """Every review of an analysis, oldest first."""
    query = select(ReviewRow).where(ReviewRow.analysis_id == analysis_id).order_by(col(ReviewRow.revision))
    return tuple(_review(row) for row in session.execute(query).scalars())


def _review(row: ReviewRow) -> Review:
    return Review(
        id=row.id,
        analysis_id=row.analysis_id,
        revision=row.revision,
        at=row.at,
        reviewer=row.reviewer,
        reviewer_name=row.reviewer_name,
        verdict=Verdict(row.verdict),
        lesion_class=LesionClass(row.lesion_class) if row.lesion_class else None,
        outline=tuple((float(x), float(y)) for x, y in json.loads(row.outline)) if row.outline else (),
        body_site_code=row.body_site_code,
        laterality=row.laterality,
        comment=row.comment,
    )
