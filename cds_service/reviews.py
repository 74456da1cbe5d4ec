"""What a clinician says of a result: checked, recorded for good, and the amended results started, all in one step.

Reviews are added, never changed. Who writes one says how many were seen; another number means that somebody else was
faster, and the second person looks again before saying anything.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import sqlalchemy as sa
import structlog
from opentelemetry import metrics
from sqlalchemy.orm import Session
from sqlmodel import col

from cds_service.api.refusals import (
    AlreadyDecided,
    FieldError,
    InvalidRequest,
    NotFound,
    NotReady,
    ReviewConflict,
)
from cds_service.authorization import Caller
from cds_service.node import Node
from dermoscopy.codes import SITES
from dermoscopy.domain import LesionClass, PatientIdentity, Review, Verdict, derive_id, report_status
from dermoscopy.outline import outline_fault
from dermoscopy.ports import AuditEntry
from dermoscopy.reviews import reviews_of, standing
from dermoscopy.tables import AnalysisRow, InstanceRow, ReviewRow, utc_now
from dermoscopy.workqueue import AMEND

log = structlog.get_logger(__name__)
_reviews = metrics.get_meter(__name__).create_counter("cds_reviews", description="reviews by clinicians")

MAX_COMMENT = 2000
LATERALITIES = ("L", "R", "B", "U")
_FINISHED = ("rendered", "complete")
_NEW_LINES = frozenset("\n\r\t")


@dataclass(frozen=True, slots=True)
class ReviewDraft:
    """What a clinician is about to say; the fields mean what they mean in `dermoscopy.domain.Review`."""

    verdict: Verdict
    lesion_class: LesionClass | None = None
    outline: tuple[tuple[float, float], ...] = ()
    body_site_code: str = ""
    laterality: str = ""
    comment: str = ""

    @property
    def corrects(self) -> bool:
        """Whether anything but words is given."""
        return bool(self.lesion_class or self.outline or self.body_site_code or self.laterality)


def record_review(node: Node, analysis_id: str, draft: ReviewDraft, *, caller: Caller, seen: int) -> Review:
    """Add a review, its audit leaf and the new report status, and start the amended results: all of it or nothing.

    ``seen`` is the number of reviews that the person saw. The same review by the same person sent again (an answer was
    lost) is answered again and not added twice.

    Raises `NotFound`, `NotReady` (no result yet), `AlreadyDecided` (the analysis failed), `InvalidRequest` (the draft
    is impossible) and `ReviewConflict` (somebody else added a review meanwhile).
    """
    _check(draft)
    with node.begin() as session:
        row, won = _claim(session, analysis_id, caller, seen)
        before = reviews_of(session, analysis_id)
        if not won:
            return _answer_again(row, before, draft, caller, seen)
        _check_against(session, row, before, draft)
        review = _review(analysis_id, draft, caller, revision=seen + 1)
        session.add(_row(review))
        status = report_status((*before, review))
        row.report_status = status.value
        node.audit.append(session, _leaf(row, review, status.value))
        session.flush()
        if review.changes_report:
            node.queue.start(session, AMEND, f"amend:{review.id}", analysis_id, review.id)
    _reviews.add(1, {"verdict": review.verdict.value})
    log.info("review.recorded", analysis_id=analysis_id, revision=review.revision, verdict=review.verdict.value)
    return review


def _claim(session: Session, analysis_id: str, caller: Caller, seen: int) -> tuple[AnalysisRow, bool]:
    """The analysis, and whether this transaction holds the next review.

    The first statement is the comparison and the change in one, so that on either database two persons at once wait for
    each other here, and the second finds another number.
    """
    claimed = session.execute(
        sa.update(AnalysisRow)
        .where(col(AnalysisRow.id) == analysis_id, col(AnalysisRow.reviews) == seen)
        .values(reviews=seen + 1)
        .returning(col(AnalysisRow.id))
    ).scalar_one_or_none()
    row = session.get(AnalysisRow, analysis_id)
    if row is None or not caller.may_see(PatientIdentity(row.issuer, row.patient_id)):
        raise NotFound("There is no analysis with this id.")
    if row.state == "failed":
        raise AlreadyDecided("This analysis failed: there is no result to review.", report_id=analysis_id)
    if row.state not in _FINISHED:
        raise NotReady("The analysis is under way: review it when its result is there.", report_id=analysis_id)
    return row, claimed is not None


def _answer_again(
    row: AnalysisRow, before: tuple[Review, ...], draft: ReviewDraft, caller: Caller, seen: int
) -> Review:
    """The review that stands in this place, if it is the very one that is sent again."""
    if 0 <= seen < len(before):
        there = before[seen]
        said = ReviewDraft(
            there.verdict,
            there.lesion_class,
            there.outline,
            there.body_site_code,
            there.laterality,
            there.comment,
        )
        if there.reviewer == caller.name and said == draft:
            return there
    raise ReviewConflict(
        f"You saw {seen} reviews of this result and it has {row.reviews} now: somebody else reviewed it meanwhile. "
        "Open the result again, read what was said, and send your review with the new number as seen.",
        report_id=row.id,
    )


# -------------------------------------------------------------------------------------------------- what may be said


def _check(draft: ReviewDraft) -> None:
    """What is wrong whatever the analysis is. Raises `InvalidRequest`."""
    errors = []
    if draft.body_site_code and draft.body_site_code not in SITES:
        errors.append(FieldError(pointer="#/body_site_code", detail="not a SNOMED CT code of a skin site known here"))
    if draft.laterality and draft.laterality not in LATERALITIES:
        errors.append(FieldError(pointer="#/laterality", detail="must be L, R, B or U"))
    if len(draft.comment) > MAX_COMMENT:
        errors.append(FieldError(pointer="#/comment", detail=f"at most {MAX_COMMENT} characters"))
    if not _plain(draft.comment):
        errors.append(FieldError(pointer="#/comment", detail="holds a control character: write plain text"))
    if draft.verdict is Verdict.CORRECTED and not draft.corrects:
        text = "a correction gives another class, outline or body site; to say that all is right, use confirmed"
        errors.append(FieldError(pointer="#/verdict", detail=text))
    if draft.verdict is not Verdict.CORRECTED and draft.corrects:
        text = f"{draft.verdict.value} changes nothing: use corrected for another class, outline or body site"
        errors.append(FieldError(pointer="#/verdict", detail=text))
    if draft.verdict is Verdict.COMMENTED and not draft.comment.strip():
        errors.append(FieldError(pointer="#/comment", detail="a comment has words"))
    if errors:
        raise InvalidRequest(errors)


def _plain(text: str) -> bool:
    """No control characters but new lines and tabs, and nothing that cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return not any((ord(c) < 32 and c not in _NEW_LINES) or 127 <= ord(c) < 160 for c in text)


def _check_against(session: Session, row: AnalysisRow, before: tuple[Review, ...], draft: ReviewDraft) -> None:
    """What is wrong for this image and after these reviews. Raises `InvalidRequest`."""
    if draft.verdict is not Verdict.CORRECTED:
        return
    document = json.loads(row.document)
    if draft.outline:
        fault = outline_fault(draft.outline, document["rows"], document["columns"])
        if fault:
            raise InvalidRequest([FieldError(pointer="#/outline", detail=fault)])
    now = standing(before)
    image = session.get_one(InstanceRow, row.instance_id)
    standing_class = now.lesion_class.value if now.lesion_class else row.primary_class
    changes = (
        draft.lesion_class is not None and draft.lesion_class.value != standing_class,
        bool(draft.outline) and draft.outline != now.outline,
        bool(draft.body_site_code) and draft.body_site_code != (now.body_site_code or image.body_site_code),
        bool(draft.laterality) and draft.laterality != (now.laterality or image.laterality),
    )
    if not any(changes) and not now.withdrawn:
        text = "all of this stands already: to say that it is right, use confirmed"
        raise InvalidRequest([FieldError(pointer="#/verdict", detail=text)])


# ------------------------------------------------------------------------------------------------------ what is kept


def _review(analysis_id: str, draft: ReviewDraft, caller: Caller, *, revision: int) -> Review:
    return Review(
        id=derive_id("review", analysis_id, str(revision)),
        analysis_id=analysis_id,
        revision=revision,
        at=utc_now(),
        reviewer=caller.name,
        reviewer_name=caller.full_name,
        verdict=draft.verdict,
        lesion_class=draft.lesion_class,
        outline=draft.outline,
        body_site_code=draft.body_site_code,
        laterality=draft.laterality,
        comment=draft.comment,
    )


def _row(review: Review) -> ReviewRow:
    return ReviewRow(
        id=review.id,
        analysis_id=review.analysis_id,
        revision=review.revision,
        at=review.at,
        reviewer=review.reviewer,
        reviewer_name=review.reviewer_name,
        verdict=review.verdict.value,
        lesion_class=review.lesion_class.value if review.lesion_class else "",
        outline=_corners(review),
        body_site_code=review.body_site_code,
        laterality=review.laterality,
        comment=review.comment,
    )


def _corners(review: Review) -> str:
    return json.dumps(review.outline) if review.outline else ""


def _leaf(row: AnalysisRow, review: Review, status: str) -> AuditEntry:
    """Everything that was said but the comment, which may name a patient: its length and digest stand for it."""
    return AuditEntry(
        action="review.recorded",
        actor=review.reviewer,
        subject_type="analysis",
        subject_id=review.analysis_id,
        patient_issuer=row.issuer,
        patient_id=row.patient_id,
        details={
            "review_id": review.id,
            "revision": review.revision,
            "verdict": review.verdict.value,
            "report_status": status,
            "lesion_class": review.lesion_class.value if review.lesion_class else "",
            "body_site_code": review.body_site_code,
            "laterality": review.laterality,
            "outline_corners": len(review.outline),
            "outline_sha256": _digest(_corners(review)),
            "comment_characters": len(review.comment),
            "comment_sha256": _digest(review.comment),
        },
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest() if text else ""
