"""What changed of a lesion between two pictures, and what of it is more than two pictures of one lesion differ by.

The floor of each measure (`models.manifest.Repeatability`) was measured on real pairs of pictures of one lesion through
the whole algorithm, so the outline's own scatter is in it. Without a floor, with different models, a doubtful match, or
an answer that the algorithm itself doubts, nothing is called unchanged: ``beyond_noise`` is ``None``. Nothing here
lowers or raises a tier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from dermoscopy.domain import LesionMeasurements
from dermoscopy.errors import AnalysisFailed
from dermoscopy.lesions import SAME_VISIT, SIZE, Candidates, Change, Fact, Match, MatchState, Sighting
from dermoscopy.ports import Pictured
from models.manifest import Repeatability
from models.register import REGISTERED, Registration, find_structures, overlap, register

OVERLAP_LEAST = 0.5
"""Outlines that cover less of each other than this, once the pictures are laid over each other, are of two lesions."""
SCALES_AGREE = 0.15
"""Natural logarithm by which the zoom by stated scales may differ from the zoom of the skin beside the lesion."""
_TWO_SIDED = 1.96

_PLAIN: tuple[tuple[str, str], ...] = (
    ("asymmetry", "Asymmetry"),
    ("border_irregularity", "Border irregularity"),
    ("colour_count", "Colours"),
    ("colour_variety", "Colour variety"),
)
_RISKS: tuple[tuple[str, str], ...] = (("melanoma_risk", "Melanoma risk"), ("malignancy_risk", "Malignancy risk"))


@dataclass(frozen=True, slots=True)
class _Pair:
    """One earlier picture laid over the present one, as far as that goes."""

    sighting: Sighting
    before: Pictured
    registration: Registration | None
    overlap: float | None

    @property
    def points(self) -> int:
        return 0 if self.registration is None else self.registration.points

    @property
    def apart(self) -> bool:
        """Whether the pictures agree, but another lesion was outlined."""
        return self.confirmed and self.overlap is not None and self.overlap < OVERLAP_LEAST

    @property
    def confirmed(self) -> bool:
        return self.registration is not None and self.registration.confirmed


class LesionComparison:
    """Implements `dermoscopy.ports.CompareLesions` with the ``floor`` of the answering model (``None``: unmeasured)."""

    def __init__(self, floor: Repeatability | None) -> None:
        self._floor = floor

    def __call__(
        self, now: Pictured, sighting: Sighting, found: Candidates, load: Callable[[Sighting], Pictured | None]
    ) -> Change | None:
        """The change since the best of ``found``; ``None`` where there is no earlier image.

        Raises `AnalysisFailed` when the pictures cannot be searched.
        """
        try:
            return self._compared(now, sighting, found, load)
        except cv2.error as error:
            raise AnalysisFailed("the pictures could not be searched for common structures") from error

    def _compared(
        self, now: Pictured, sighting: Sighting, found: Candidates, load: Callable[[Sighting], Pictured | None]
    ) -> Change | None:
        structures = find_structures(now.image)
        pairs = []
        for earlier in _newest_visit(found.earlier) if found.stated else found.earlier:
            before = load(earlier)
            if before is not None:
                lesions = before.analysis.finding.mask, now.analysis.finding.mask
                laid = register(find_structures(before.image), structures, lesions)
                share = (
                    overlap(laid, *lesions) if laid is not None and laid.confirmed and _outlined(before, now) else None
                )
                pairs.append(_Pair(earlier, _without_pictures(before), laid, share))
        if not found.earlier:
            return None
        if not pairs:
            words = "Not compared with earlier images of this lesion or body site: they cannot be read any more."
            return Change(Match(MatchState.NOT_COMPARED, words), sighting.taken_at, dated=sighting.dated)
        chosen, match = _chosen(found, pairs)
        count = len(found.earlier) + found.left_out
        if chosen is None:
            return Change(match, sighting.taken_at, candidates=count, dated=sighting.dated)
        return Change(
            match,
            sighting.taken_at,
            prior_id=chosen.sighting.analysis_id,
            prior_taken_at=chosen.sighting.taken_at,
            dated=sighting.dated and chosen.sighting.dated,
            facts=tuple(facts(chosen.before, now, chosen.registration, match, self._floor)),
            candidates=count,
        )


def _without_pictures(one: Pictured) -> Pictured:
    """What the facts need of an earlier image: a dozen large pictures at once would fill the memory."""
    finding = replace(one.analysis.finding, mask=np.zeros((0, 0), bool), heatmap=np.zeros((0, 0), np.float32))
    image = replace(one.image, pixels=np.zeros((0, 0, 3), np.uint8))
    return Pictured(replace(one.analysis, finding=finding), image)


def _newest_visit(earlier: Sequence[Sighting]) -> list[Sighting]:
    return [one for one in earlier if earlier[0].taken_at - one.taken_at < SAME_VISIT]


def _outlined(before: Pictured, now: Pictured) -> bool:
    return before.analysis.finding.measurements is not None and now.analysis.finding.measurements is not None


def _chosen(found: Candidates, pairs: Sequence[_Pair]) -> tuple[_Pair | None, Match]:
    if found.stated:
        best = max(pairs, key=lambda pair: pair.points)
        words = "Both images are tracked as one lesion by their source."
        if best.apart:
            words += " The outlines lie on different places of the skin: one of them may be of another lesion."
        elif not best.confirmed:
            words += " The pictures could not be laid over each other."
        return best, _match(MatchState.SAME_LESION, words, best)
    agreeing = [pair for pair in pairs if pair.confirmed and not pair.apart]
    if agreeing:
        visit = [pair for pair in agreeing if agreeing[0].sighting.taken_at - pair.sighting.taken_at < SAME_VISIT]
        best = max(visit, key=lambda pair: pair.points)
        words = (
            f"Probably the same lesion: body site and side agree, and so do {best.points} structures of the pictures."
        )
        return best, _match(MatchState.LIKELY, words, best)
    count = len(found.earlier) + found.left_out
    if count == 1 and not found.rivals:
        words = "It is not certain that this is the same lesion: body site and side agree, the pictures do not show it."
        return pairs[0], _match(MatchState.UNCERTAIN, words, pairs[0])
    images = "1 earlier image" if count == 1 else f"{count} earlier images"
    words = (
        f"Not compared with earlier images: there {'is' if count == 1 else 'are'} {images} of this body site, and none "
        "can be told to show this lesion. This says nothing about whether it changed."
    )
    return None, Match(MatchState.NOT_COMPARED, words)


def _match(state: MatchState, words: str, pair: _Pair) -> Match:
    laid = pair.registration
    if laid is None or not laid.confirmed:
        return Match(state, words, pair.points)
    return Match(state, words, laid.points, pair.overlap, laid.turn_degrees, laid.zoom, laid.zoom_error)


# ---------------------------------------------------------------------------------------------------------- the facts


def facts(
    before: Pictured, after: Pictured, laid: Registration | None, match: Match, floor: Repeatability | None
) -> list[Fact]:
    """Each measure then and now. ``laid`` says how the pictures lie over each other, where they do."""
    old, new = before.analysis.finding, after.analysis.finding
    floor = floor if old.model == new.model else None
    apart = match.overlap is not None and match.overlap < OVERLAP_LEAST
    usable = old.quality.usable and new.quality.usable
    certain = match.state is not MatchState.UNCERTAIN and not apart and usable  # a doubt silences no warning
    said: list[Fact] = []
    if old.measurements is not None and new.measurements is not None:
        said += _sizes(before, after, None if apart else laid, floor, certain)
        for name, title in _PLAIN:
            values = float(getattr(old.measurements, name)), float(getattr(new.measurements, name))
            digits = 0 if name == "colour_count" else 2
            said.append(_plain(name, title, values, _limit(floor, name), certain, digits))
    for name, title in _RISKS:
        shares = 100.0 * float(getattr(old, name)), 100.0 * float(getattr(new, name))
        limit = _limit(floor, name)
        said.append(_plain(name, title, shares, None if limit is None else 100.0 * limit, certain, 1, "%"))
    then, tier = old.triage.tier.value, new.triage.tier.value
    words = f"Triage then {then}, now {tier}." if then != tier else f"Triage then and now {tier}."
    return [*said, Fact("tier", "Triage", then, tier, words)]


def _sizes(
    before: Pictured, after: Pictured, laid: Registration | None, floor: Repeatability | None, certain: bool
) -> list[Fact]:
    old, new = before.analysis.finding.measurements, after.analysis.finding.measurements
    assert old is not None and new is not None
    confirmed = laid if laid is not None and laid.confirmed else None
    limit = _limit(floor, "area_log")
    if _in_millimetres(old) and _in_millimetres(new):
        if confirmed is not None and _scales_contradict(before, after, confirmed):
            words = "The sizes are not compared: the scales of the two images contradict what the skin around shows."
            return [Fact(SIZE, "Size", "not comparable", "not comparable", words)]
        areas = float(old.area_mm2 or 0.0), float(new.area_mm2 or 0.0)
        across = float(old.equivalent_diameter_mm or 0.0), float(new.equivalent_diameter_mm or 0.0)
        return [
            _grown("area", "Area", areas, "mm2", limit, certain),
            _grown("equivalent_diameter", "Diameter", across, "mm", None if limit is None else limit / 2.0, certain),
        ]
    if confirmed is None:
        words = "The sizes are not compared: not both images have a scale, and the pictures do not give a common one."
        return [Fact(SIZE, "Size", "not comparable", "not comparable", words)]
    ratio = new.area_px * after.image.aspect / (old.area_px * before.image.aspect * confirmed.zoom**2)
    spread = 2.0 * _TWO_SIDED * confirmed.zoom_error
    both = None if limit is None else math.hypot(limit, spread)
    on_skin = confirmed.beside >= REGISTERED
    fact = _grown("area", "Area, relative", (100.0, 100.0 * ratio), "%", both, certain, reassures=on_skin)
    return [fact]


def _in_millimetres(measured: LesionMeasurements) -> bool:
    return bool(measured.area_mm2) and bool(measured.equivalent_diameter_mm)


def _scales_contradict(before: Pictured, after: Pictured, laid: Registration) -> bool:
    """Only the skin beside the lesion may contradict a scale: a lesion that grows takes its structures along."""
    return laid.beside >= REGISTERED and abs(math.log(laid.zoom * _width(after) / _width(before))) > SCALES_AGREE


def _width(pictured: Pictured) -> float:
    """Millimetres to a pixel's width."""
    measured = pictured.analysis.finding.measurements
    assert measured is not None and measured.area_mm2
    return math.sqrt(measured.area_mm2 / (measured.area_px * pictured.image.aspect))


def _grown(
    name: str,
    title: str,
    values: tuple[float, float],
    unit: str,
    limit: float | None,
    certain: bool,
    *,
    reassures: bool = True,
) -> Fact:
    """A size, whose noise is a factor: ``limit`` is the natural logarithm of it."""
    old, new = values
    shown = {"mm2": "mm²"}.get(unit, unit)
    before, after = f"{old:.1f} {shown}", f"{new:.1f} {shown}"
    percent = 100.0 * (new / old - 1.0)
    words = f"{title} then {before}, now {after} ({percent:+.0f} %)."
    beyond: bool | None = None
    noise = None
    if limit is not None:
        noise = old * math.expm1(limit)
        outside = abs(math.log(new / old)) > limit
        beyond = True if outside else False if certain and reassures else None
        usual = f"two pictures of one lesion differ by up to {100.0 * math.expm1(limit):.0f} %"
        if outside:
            words = f"{title} {'grew' if new > old else 'shrank'} from {before} to {after} ({percent:+.0f} %); {usual}."
        elif not reassures:
            words += " The common scale rests on the lesion itself, so that growth of everything alike cannot be seen."
    return Fact(name, title, before, after, words, unit, old, new, new - old, noise, beyond)


def _plain(
    name: str,
    title: str,
    values: tuple[float, float],
    limit: float | None,
    certain: bool,
    digits: int,
    unit: str = "",
) -> Fact:
    old, new = values
    shown = f" {unit}" if unit else ""
    before, after = f"{old:.{digits}f}{shown}", f"{new:.{digits}f}{shown}"
    words = f"{title} then {before}, now {after}."
    beyond: bool | None = None
    if limit is not None:
        outside = abs(new - old) > limit
        beyond = True if outside else False if certain else None
        if outside:
            way = "rose" if new > old else "fell"
            words = f"{title} {way} from {before} to {after}; two pictures of one lesion differ by up to "
            words += f"{limit:.{digits}f}{shown}."
    return Fact(name, title, before, after, words, unit or "1", old, new, new - old, limit, beyond)


def _limit(floor: Repeatability | None, name: str) -> float | None:
    return None if floor is None else float(getattr(floor, name))
