"""Live sensitivity for melanoma and specificity for harmless lesions, from what became of them.

Two sources, never mixed: histopathology, and what clinicians said in reviews. Each analysis counts once, by the
gravest diagnosis. Only lesions that somebody biopsied have histopathology, and those are the ones that looked
suspicious (verification bias, Begg and Greenes 1983, https://doi.org/10.2307/2530820): melanomas that nobody cut out
are not in it. Intervals are Wilson's score intervals (Wilson 1927).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from dermoscopy.domain import MALIGNANT, LesionClass, ReportStatus, TriageTier
from dermoscopy.outcomes import Certainty, OutcomeState
from dermoscopy.reviews import reviews_of, standing
from dermoscopy.tables import AnalysisRow, OutcomeRow

WARNING = (
    "Only biopsied lesions have histopathology, and those looked suspicious: melanomas that nobody biopsied are not "
    "counted, so that the true sensitivity is likely lower and the true specificity likely higher than shown."
)
REVIEW_WARNING = "A clinician's word is no histopathology, and was given in sight of the algorithm's answer."
_READY = ("rendered", "complete")
_Z = 1.959964


class Source(StrEnum):
    """Who says what the lesion is."""

    HISTOPATHOLOGY = "histopathology"
    REVIEWS = "reviews"


class Truth(StrEnum):
    """What the lesion is."""

    MELANOMA = "melanoma"
    MALIGNANT = "other_malignant"
    BENIGN = "benign"


class Result(StrEnum):
    """What the algorithm's tier had said."""

    FLAGGED = "flagged"
    """Urgent or expedited."""
    ABSTAINED = "abstained"
    REASSURED = "reassured"
    """Routine or monitor."""


_RESULTS = {
    TriageTier.URGENT: Result.FLAGGED,
    TriageTier.EXPEDITED: Result.FLAGGED,
    TriageTier.UNDETERMINED: Result.ABSTAINED,
    TriageTier.ROUTINE: Result.REASSURED,
    TriageTier.MONITOR: Result.REASSURED,
}


@dataclass(frozen=True, slots=True)
class Share:
    """``hits`` of ``number`` with the 95 % Wilson interval; no share of nothing."""

    hits: int
    number: int

    @property
    def value(self) -> float | None:
        return self.hits / self.number if self.number else None

    @property
    def interval(self) -> tuple[float, float] | None:
        return wilson(self.hits, self.number) if self.number else None


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts of one model in one period, by one source. ``period`` is a month (``2026-11``), or empty for all."""

    source: Source
    model: str
    period: str
    counts: Counter[tuple[Truth, Result]] = field(default_factory=Counter)

    def count(self, truth: Truth, *results: Result) -> int:
        """Lesions that are ``truth``, of any result if none is named."""
        return sum(self.counts[truth, result] for result in (results or tuple(Result)))

    @property
    def sensitivity(self) -> Share:
        """Melanomas that were flagged, of those that the algorithm answered for; abstentions are told apart."""
        answered = self.count(Truth.MELANOMA, Result.FLAGGED, Result.REASSURED)
        return Share(self.count(Truth.MELANOMA, Result.FLAGGED), answered)

    @property
    def specificity(self) -> Share:
        """Harmless lesions that were not flagged, of those that the algorithm answered for."""
        answered = self.count(Truth.BENIGN, Result.FLAGGED, Result.REASSURED)
        return Share(self.count(Truth.BENIGN, Result.REASSURED), answered)


@dataclass(frozen=True, slots=True)
class Judged:
    """One lesion image with what it is and what the algorithm said of it."""

    source: Source
    model: str
    taken_in: datetime
    truth: Truth
    result: Result


def wilson(hits: int, number: int) -> tuple[float, float]:
    """95 % score interval of a share (https://doi.org/10.1080/01621459.1927.10502953); ``number`` is positive."""
    share, squared = hits / number, _Z**2
    middle = (share + squared / (2 * number)) / (1 + squared / number)
    half = _Z / (1 + squared / number) * math.sqrt(share * (1 - share) / number + squared / (4 * number**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def judged(session: Session, *, since: datetime | None = None) -> Iterator[Judged]:
    """Every lesion image about which something is known, by each source; ``since``: images of this time and later."""
    for source, analysis, truth in (*_histopathology(session, since), *_reviewed(session, since)):
        yield Judged(
            source=source,
            model=f"{analysis.model_name}=={analysis.model_version}",
            taken_in=analysis.created_at,
            truth=truth,
            result=_RESULTS[TriageTier(analysis.tier)],
        )


def figures(lesions: Iterable[Judged]) -> list[Figures]:
    """One for each source, model and month, and one over all months."""
    found: dict[tuple[Source, str, str], Figures] = {}
    for one in lesions:
        for period in ("", f"{one.taken_in:%Y-%m}"):
            key = (one.source, one.model, period)
            found.setdefault(key, Figures(*key)).counts[one.truth, one.result] += 1
    return [found[key] for key in sorted(found)]


def counts(engine: sa.Engine) -> dict[tuple[str, str, str, str], int]:
    """(source, model, truth, result) → lesion images, for the gauges."""
    with Session(engine) as session:
        return Counter((one.source.value, one.model, one.truth.value, one.result.value) for one in judged(session))


def _histopathology(session: Session, since: datetime | None) -> Iterator[tuple[Source, AnalysisRow, Truth]]:
    query = (
        select(OutcomeRow, AnalysisRow)
        .join(AnalysisRow, col(AnalysisRow.id) == col(OutcomeRow.analysis_id))
        .where(
            col(OutcomeRow.state) == OutcomeState.MATCHED.value,
            col(OutcomeRow.certainty) == Certainty.HISTOPATHOLOGY.value,
            col(OutcomeRow.malignant).is_not(None),
            *_shown(since),
        )
    )
    gravest: dict[str, tuple[AnalysisRow, Truth]] = {}
    order = list(Truth)
    for outcome, analysis in session.execute(query):
        truth = _truth(outcome.lesion_class, bool(outcome.malignant))
        there = gravest.get(analysis.id)
        if there is None or order.index(truth) < order.index(there[1]):
            gravest[analysis.id] = (analysis, truth)
    yield from ((Source.HISTOPATHOLOGY, *one) for one in gravest.values())


def _reviewed(session: Session, since: datetime | None) -> Iterator[tuple[Source, AnalysisRow, Truth]]:
    query = select(AnalysisRow).where(
        col(AnalysisRow.report_status).in_((ReportStatus.FINAL.value, ReportStatus.AMENDED.value)),
        *_shown(since),
    )
    for analysis in session.execute(query).scalars():
        said = standing(reviews_of(session, analysis.id)).lesion_class
        label = said.value if said else analysis.primary_class
        if label:  # a confirmed abstention names no class
            yield Source.REVIEWS, analysis, _truth(label, LesionClass(label) in MALIGNANT)


def _shown(since: datetime | None) -> tuple[sa.ColumnElement[bool], ...]:
    made = (
        col(AnalysisRow.state).in_(_READY),
        col(AnalysisRow.tier) != "",
        col(AnalysisRow.report_status) != ReportStatus.ENTERED_IN_ERROR.value,
    )
    return made if since is None else (*made, col(AnalysisRow.created_at) >= since)


def _truth(label: str, malignant: bool) -> Truth:
    if label == LesionClass.MEL.value:
        return Truth.MELANOMA
    return Truth.MALIGNANT if malignant else Truth.BENIGN
