"""Which earlier images may show the same lesion, and what is said of its change. Pure: no database, no pixels.

A wrong match must not reassure. Only a Tracking UID that the source states is certain (0062,0021). Body site and side
alone say little, since many lesions share them; the pictures themselves must agree (`models.register`), and what is
left in doubt is said to be in doubt, or is not compared at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from dermoscopy.codes import SITE_SKIN

SAME_VISIT = timedelta(hours=12)
"""Pictures taken nearer to each other than this show one visit: nothing grows meanwhile."""
SIZE = "size"
"""Name of the fact that says why sizes are not compared."""
MOST_CANDIDATES = 12
"""So many earlier pictures of a site are looked at, the newest; more are many lesions and not one."""


class MatchState(StrEnum):
    """How sure it is that two images show one lesion."""

    SAME_LESION = "same_lesion"
    """The source states one Tracking UID for both."""
    LIKELY = "likely"
    """Body site and side agree, and so do the pictures."""
    UNCERTAIN = "uncertain"
    """Body site and side agree, but the pictures do not show it."""
    NOT_COMPARED = "not_compared"
    """Earlier images might show it, but none can be told to, or none can be read: the words say why."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What a source object says of time and lesion. Empty and ``None`` where it does not."""

    taken_at: datetime | None = None
    tracking_uid: str = ""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One analysed image of a patient, as far as the search for earlier ones needs it.

    ``taken_at`` is UTC: what the source states (``dated``), else when the image was received.
    """

    analysis_id: str
    instance_id: str
    taken_at: datetime
    dated: bool
    tracking_uid: str = ""
    body_site_code: str = ""
    laterality: str = ""

    @property
    def sited(self) -> bool:
        """Whether a place on the body is known; just "skin" is none."""
        return self.body_site_code not in ("", SITE_SKIN.code)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Earlier images that may show the same lesion, newest first; ``stated`` where the source says that they do.

    ``left_out`` counts further ones beyond `MOST_CANDIDATES`; ``rivals`` other images of the same visit and place,
    which may as well be the ones that an earlier image belongs to.
    """

    earlier: tuple[Sighting, ...] = ()
    stated: bool = False
    left_out: int = 0
    rivals: int = 0


@dataclass(frozen=True, slots=True)
class Match:
    """Which earlier image is compared, and how sure it is that it shows the same lesion, for people in ``words``."""

    state: MatchState
    words: str
    points: int = 0
    """Distinct structures that both pictures show in one arrangement."""
    overlap: float | None = None
    """Share (0…1) of the smaller outline that the other covers then."""
    turn_degrees: float | None = None
    zoom: float | None = None
    zoom_error: float | None = None
    """Relative standard error of ``zoom``."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One measure then and now. ``name`` is for machines; ``words`` is the whole sentence.

    ``noise`` is what 95 % of picture pairs of one lesion differ by at most, in ``unit``; ``beyond_noise`` is whether
    the difference is more than that, and ``None`` where that cannot be told: then it reassures nobody.
    """

    name: str
    title: str
    before: str
    """As people read it, with its unit."""
    after: str
    words: str
    unit: str = ""
    """UCUM."""
    before_value: float | None = None
    after_value: float | None = None
    difference: float | None = None
    noise: float | None = None
    beyond_noise: bool | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What changed since an earlier image of the lesion, or why nothing was compared (``prior_id`` empty)."""

    match: Match
    taken_at: datetime
    prior_id: str = ""
    """Analysis of the earlier image."""
    prior_taken_at: datetime | None = None
    dated: bool = True
    """Whether both sources state when they were taken; else the time of receipt stands in."""
    facts: tuple[Fact, ...] = ()
    candidates: int = 1
    """How many earlier images were in question."""

    @property
    def days(self) -> int | None:
        """Whole days between the two images; ``None`` where nothing is compared."""
        return None if self.prior_taken_at is None else round((self.taken_at - self.prior_taken_at) / timedelta(days=1))

    @property
    def since(self) -> str:
        """When the earlier image was taken, for people."""
        if self.prior_taken_at is None:
            return ""
        received = "" if self.dated else " (when it was received; the images state no date)"
        return f"{self.prior_taken_at:%Y-%m-%d}, {self.days} {'day' if self.days == 1 else 'days'} before{received}"

    @property
    def summary(self) -> str:
        """The whole change in two or three sentences. It never says that nothing changed."""
        if not self.prior_id:
            return self.match.words
        found = [fact.words for fact in self.facts if fact.beyond_noise]
        plain = [
            fact.words
            for fact in self.facts
            if fact.before_value is None and (fact.before != fact.after or fact.name == SIZE)
        ]
        unknown = [
            fact.title.lower() for fact in self.facts if fact.beyond_noise is None and fact.before_value is not None
        ]
        said = [f"Compared with the image of {self.since}.", self.match.words, *found, *plain]
        if not found and any(fact.beyond_noise is False for fact in self.facts):
            said.append(
                "No measured difference is larger than between two pictures of one lesion; that excludes no change."
            )
        if unknown:
            said.append(f"It cannot be told whether this changed: {', '.join(unknown)}.")
        return " ".join(said)


def candidates(now: Sighting, others: Sequence[Sighting]) -> Candidates:
    """Earlier images of the same patient that may show the lesion of ``now``; ``others`` are all of that patient.

    Images of the same visit are no earlier ones. What the source tracks as another lesion is never a candidate.
    """
    past = sorted(
        (one for one in others if one.instance_id != now.instance_id and one.taken_at <= now.taken_at - SAME_VISIT),
        key=lambda one: (one.taken_at, one.analysis_id),
        reverse=True,
    )
    past = _one_of_each_image(past)
    tracked = [one for one in past if now.tracking_uid and one.tracking_uid == now.tracking_uid]
    if tracked:
        return Candidates(tuple(tracked[:MOST_CANDIDATES]), stated=True, left_out=len(tracked[MOST_CANDIDATES:]))
    if not now.sited:
        return Candidates()
    placed = [one for one in past if _same_place(now, one)]
    beside = [
        one
        for one in _one_of_each_image(others)
        if one.instance_id != now.instance_id
        and abs(one.taken_at - now.taken_at) < SAME_VISIT
        and _same_place(now, one)
    ]
    return Candidates(tuple(placed[:MOST_CANDIDATES]), False, len(placed[MOST_CANDIDATES:]), len(beside))


def concerned(earlier: Sighting, others: Sequence[Sighting]) -> list[Sighting]:
    """Images of the same patient whose comparison may be another once ``earlier`` is known."""
    return [
        one
        for one in others
        if one.instance_id != earlier.instance_id
        and one.taken_at > earlier.taken_at - SAME_VISIT
        and (_same_place(one, earlier) or bool(one.tracking_uid and one.tracking_uid == earlier.tracking_uid))
    ]


def _same_place(one: Sighting, other: Sighting) -> bool:
    if one.tracking_uid and other.tracking_uid and one.tracking_uid != other.tracking_uid:
        return False  # the source says that they are different lesions
    return one.sited and (one.body_site_code, one.laterality) == (other.body_site_code, other.laterality)


def _one_of_each_image(sightings: Sequence[Sighting]) -> list[Sighting]:
    """The first analysis of each image in the order given: an image that two models analysed is one picture."""
    found: dict[str, Sighting] = {}
    for one in sightings:
        found.setdefault(one.instance_id, one)
    return list(found.values())
