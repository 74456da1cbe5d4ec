"""What was found out of a lesion after its analysis (histopathology, follow-up), and which analysis it belongs to.

Pure: no database. A result that is attached to the wrong lesion would teach and reassure wrongly, so that only one way
to read who and where counts as a match; everything else waits for a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from dermoscopy.codes import SITE_SKIN, SITES
from dermoscopy.domain import LesionClass
from dermoscopy.identifiers import dicom_urn, report_identifier


class Certainty(StrEnum):
    """How it was found out."""

    HISTOPATHOLOGY = "histopathology"
    FOLLOW_UP = "clinical-follow-up"


class OutcomeStatus(StrEnum):
    """Standing of what was reported."""

    FINAL = "final"
    AMENDED = "amended"
    ENTERED_IN_ERROR = "entered-in-error"


class OutcomeState(StrEnum):
    """Where an outcome is here."""

    MATCHED = "matched"
    HELD = "held"
    """A person decides which analysis it belongs to, or what it says."""
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One diagnosis of one specimen or lesion, as a source stated it. Empty strings stand for absent values."""

    status: OutcomeStatus
    certainty: Certainty
    diagnosed_at: datetime | None
    """When the specimen was taken, else when it was examined; UTC. Only the day is meant where ``timed`` is false."""
    timed: bool = True
    """Whether a time of day was stated."""
    lesion_class: LesionClass | None = None
    malignant: bool | None = None
    """``None``: not known."""
    diagnosis_system: str = ""
    diagnosis_code: str = ""
    diagnosis: str = ""
    """Display of the code, by our own table."""
    doubt: str = ""
    """Why there is no diagnosis; empty where there is one."""
    references: tuple[str, ...] = ()
    """Accession numbers, order and report identifiers, and UIDs that it names."""
    body_site_code: str = ""
    laterality: str = ""
    alone: bool = True
    """Whether the report is about one specimen; else its order says not which lesion this is."""

    @property
    def known(self) -> bool:
        return self.malignant is not None

    @property
    def melanoma(self) -> bool:
        return self.lesion_class is LesionClass.MEL


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image of the same patient, with what clinicians corrected of its place."""

    analysis_id: str
    """Its newest finished analysis; what stands for the image where it has none (``ready`` is false)."""
    taken_at: datetime
    accession_number: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    body_site_code: str = ""
    laterality: str = ""
    tracking_uid: str = ""
    """Which lesion the source says that it shows."""
    ready: bool = True
    """Whether its analysis is finished: other images count too, since the outcome may be theirs."""

    @property
    def sited(self) -> bool:
        return self.body_site_code not in ("", SITE_SKIN.code)


@dataclass(frozen=True, slots=True)
class Matched:
    """The one analysis, and ``by`` what; or why none can be told (``analysis_id`` empty)."""

    analysis_id: str = ""
    by: str = ""
    reason: str = ""


def match(outcome: Outcome, candidates: Sequence[Candidate], *, days: int) -> Matched:
    """Which of ``candidates`` the outcome is about. Patients are compared before; ``days``: specimen after image.

    In this order: our report or an object of ours is named; the accession number of the image's order is named; body
    site and side agree and the specimen was taken in time. Each must leave exactly one lesion.
    """
    if not candidates:
        return Matched(reason="there is no image of this patient")
    named = [one for one in candidates if not _own(one).isdisjoint(outcome.references)]
    if named:
        return _only(named, outcome, "report", "it names several of our reports")
    ordered = [one for one in candidates if not _orders(one).isdisjoint(outcome.references)]
    if ordered:
        return _only(ordered, outcome, "accession", "several lesions were imaged under the order that it names")
    if outcome.body_site_code in ("", SITE_SKIN.code):
        return Matched(reason="it names neither an order that we know nor a body site")
    if outcome.diagnosed_at is None:
        return Matched(reason="it names no order that we know, and says not when the specimen was taken")
    timely = [one for one in candidates if _in_time(outcome, one, days)]
    if not timely:
        return Matched(reason=f"no image of this patient was taken in the {days} days before the specimen")
    possible = [one for one in timely if _may_be(outcome, one)]
    if not possible:
        return Matched(reason="no image of this patient in question shows the body site that it names")
    sure = [one for one in possible if _agrees(outcome, one)]
    if len(sure) < len(possible):
        return Matched(reason="images that may show this lesion state no body site or side")
    return _only(sure, outcome, "site", "several images show this body site and side")


def _own(one: Candidate) -> set[str]:
    uids = {uid for uid in (one.sop_instance_uid, one.tracking_uid) if uid}
    return {report_identifier(one.analysis_id), one.analysis_id, *uids, *map(dicom_urn, uids)}


def _orders(one: Candidate) -> set[str]:
    """What names the visit or order of an image, which may be about several lesions."""
    study = {one.study_instance_uid, dicom_urn(one.study_instance_uid)} if one.study_instance_uid else set()
    return {one.accession_number, *study} - {""}


def _only(found: Sequence[Candidate], outcome: Outcome, by: str, several: str) -> Matched:
    """The newest image of the one lesion that ``found`` shows."""
    fitting = [one for one in found if _may_be(outcome, one)]
    if not fitting:
        return Matched(reason="the order or report agrees, but the body site or side is another one")
    if len({one.tracking_uid or one.analysis_id for one in fitting}) > 1:
        return Matched(reason=several)
    if by == "accession" and not outcome.alone and not all(one.sited and _agrees(outcome, one) for one in fitting):
        return Matched(reason="the report is about several specimens, and the body site does not tell which it is")
    before = [one for one in fitting if not _after(outcome, one)]
    if not before:
        return Matched(reason="the image was taken after the specimen")
    newest = max(before, key=lambda one: (one.ready, one.taken_at, one.analysis_id))
    if not newest.ready:
        return Matched(reason="the image that it belongs to has no finished analysis")
    return Matched(newest.analysis_id, by)


def _may_be(outcome: Outcome, one: Candidate) -> bool:
    """Whether nothing that both state differs. Sites are compared where both are of the one list (CID 4029)."""
    sites = {site for site in (outcome.body_site_code, one.body_site_code) if site in SITES and site != SITE_SKIN.code}
    if len(sites) > 1:
        return False
    sides = {side for side in (outcome.laterality, one.laterality) if side}
    return len(sides) < 2


def _agrees(outcome: Outcome, one: Candidate) -> bool:
    """Whether both state the same place; where neither states a side, none is needed."""
    return outcome.body_site_code == one.body_site_code and outcome.laterality == one.laterality


def _after(outcome: Outcome, one: Candidate) -> bool:
    """Whether the image was taken after the specimen: it shows a scar, not what was examined."""
    if outcome.diagnosed_at is None:
        return False
    if outcome.timed:
        return one.taken_at > outcome.diagnosed_at
    return _day(one.taken_at) > _day(outcome.diagnosed_at)


def _in_time(outcome: Outcome, one: Candidate, days: int) -> bool:
    if outcome.diagnosed_at is None or _after(outcome, one):
        return False
    return _day(outcome.diagnosed_at) - _day(one.taken_at) <= timedelta(days=days)


def _day(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


_GRAVITY = (Certainty.FOLLOW_UP, Certainty.HISTOPATHOLOGY)


def gravity(outcome: Outcome) -> tuple[int, bool, bool]:
    """Sorts outcomes of one lesion: certainty, then melanoma, then malignant."""
    return _GRAVITY.index(outcome.certainty), outcome.melanoma, bool(outcome.malignant)
