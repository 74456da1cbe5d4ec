"""Which revision of the report an object belongs to, when that was made, and the UID that follows from it.

A report and its picture are new with every review that changes the report. A segmentation is new only when it really
changes (outline or body site) or comes back after it was withdrawn: confirming a result moves no pixel.
"""

from __future__ import annotations

from datetime import datetime

from dermoscopy.domain import ArtifactKind, Review, Verdict, derive_uid
from dermoscopy.ports import RenderInput


def revision_of(kind: ArtifactKind, what: RenderInput) -> int:
    """0 for an object as the algorithm gave it, else the number of the review (of those that count) that made it."""
    return _made_by(kind, what)[0]


def made_at(kind: ArtifactKind, what: RenderInput) -> datetime:
    """When the content of our object of ``kind`` came to be: at the analysis, or at the review that changed it."""
    return _made_by(kind, what)[1]


def result_uid(kind: ArtifactKind, what: RenderInput) -> str:
    """SOP Instance UID of our object of ``kind``: derived, so that a repeat is the same object."""
    revision = revision_of(kind, what)
    return derive_uid(kind.value, what.analysis.id, *([str(revision)] if revision else []))


def _made_by(kind: ArtifactKind, what: RenderInput) -> tuple[int, datetime]:
    revision, found = 0, (0, what.analysis.created_at)
    for review in what.reviews:
        if review.changes_report:
            revision += 1
            if kind is not ArtifactKind.SEG or _redraws(review):
                found = (revision, review.at)
    return found


def _redraws(review: Review) -> bool:
    return review.verdict is Verdict.UNUSABLE or bool(review.outline or review.body_site_code)
