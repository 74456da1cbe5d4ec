"""What clinicians say of a result: confirmed, corrected, not usable, or a comment (docs/reviews.md)."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from cds_service.api.analyses import note_read
from cds_service.api.answers import ReviewAnswer, ReviewList
from cds_service.api.integers import Whole
from cds_service.api.refusals import problems
from cds_service.api.stored import find_analysis, node_of, review_answer
from cds_service.authorization import Reader, Reviewer
from cds_service.reviews import MAX_COMMENT, ReviewDraft, record_review
from dermoscopy.domain import LesionClass, ReportStatus, Verdict
from dermoscopy.outline import FEWEST, MOST
from dermoscopy.reviews import reviews_of

router = APIRouter(prefix="/api/v1/analyses", tags=["reviews"])

AnalysisId = Annotated[UUID, Path(description="``report_id`` of the analysis")]
Coordinate = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class NewReview(BaseModel):
    """One clinician's word on one result."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seen: Whole = Field(
        ge=0, le=1_000_000, description="How many reviews were there when you looked; another number now is a 409"
    )
    verdict: Verdict
    lesion_class: LesionClass | None = Field(default=None, description="The right class; with corrected only")
    outline: Annotated[list[tuple[Coordinate, Coordinate]], Field(min_length=FEWEST, max_length=MOST)] | None = Field(
        default=None,
        description="Corners (column, row) of the right outline in pixels of the source, (0, 0) being the upper left "
        "corner of the image; it closes by itself and must not cross itself",
    )
    body_site_code: Annotated[str, Field(pattern=r"^[1-9][0-9]{5,17}$")] | None = Field(
        default=None, description="SNOMED CT code of the right skin site (PS3.16 CID 4029)", examples=["66643007"]
    )
    laterality: Literal["L", "R", "B", "U"] | None = None
    comment: Annotated[str, Field(max_length=MAX_COMMENT)] = Field(
        default="", description="Words; shown with the result, never in the audit log"
    )


@router.post(
    "/{analysis_id:uuid}/reviews",
    status_code=201,
    summary="Review a result",
    responses=problems(400, 401, 403, 404, 409, 413, 421, 422, 503),
)
def add_review(request: Request, caller: Reviewer, analysis_id: AnalysisId, said: NewReview) -> ReviewAnswer:
    """Recorded for good; the amended outputs are drawn and sent from here on. The same again changes nothing."""
    draft = ReviewDraft(
        verdict=said.verdict,
        lesion_class=said.lesion_class,
        outline=tuple(said.outline or ()),
        body_site_code=said.body_site_code or "",
        laterality=said.laterality or "",
        comment=said.comment,
    )
    return review_answer(record_review(node_of(request), str(analysis_id), draft, caller=caller, seen=said.seen))


@router.get(
    "/{analysis_id:uuid}/reviews", summary="Reviews of a result", responses=problems(401, 403, 404, 421, 422, 503)
)
def list_reviews(request: Request, caller: Reader, analysis_id: AnalysisId) -> ReviewList:
    """Oldest first."""
    node = node_of(request)
    with node.begin() as session:
        row = find_analysis(session, str(analysis_id))
        said = reviews_of(session, row.id)
        note_read(node, session, caller, row, "reviews")
    return ReviewList(
        report_id=row.id, report_status=ReportStatus(row.report_status), reviews=[review_answer(one) for one in said]
    )
