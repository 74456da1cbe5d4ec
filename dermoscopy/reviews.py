"""Reviews: what clinicians said of an analysis, kept in the order in which it was said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session
from sqlmodel import col, select

from dermoscopy.domain import LesionClass, ReportStatus, Review, Verdict, report_status
from dermoscopy.tables import ReviewRow


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands after all reviews together; what nobody corrected is absent here and stands as it was.

    ``lesion_class``, ``outline``, ``body_site_code`` and ``laterality`` are the last that a clinician gave. ``last`` is
    the review that set the status: who answers for the report as it is now.
    """

    status: ReportStatus
    last: Review | None = None
    lesion_class: LesionClass | None = None
    outline: tuple[tuple[float, float], ...] = ()
    body_site_code: str = ""
    laterality: str = ""

    @property
    def withdrawn(self) -> bool:
        return self.status is ReportStatus.ENTERED_IN_ERROR


UNREVIEWED = Standing(ReportStatus.PRELIMINARY)


def standing(reviews: Sequence[Review]) -> Standing:
    """What stands after ``reviews``, oldest first."""
    lesion_class: LesionClass | None = None
    outline: tuple[tuple[float, float], ...] = ()
    site = laterality = ""
    last = None
    for review in reviews:
        if not review.changes_report:
            continue
        last = review
        if review.verdict is Verdict.CORRECTED:
            lesion_class = review.lesion_class or lesion_class
            outline = review.outline or outline
            site = review.body_site_code or site
            laterality = review.laterality or laterality
    return Standing(report_status(reviews), last, lesion_class, outline, site, laterality)


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
