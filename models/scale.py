"""Millimetres from a ruler in the image: a straight line of regular ticks, every fifth of them longer.

Many contact dermoscopes carry an etched scale. What counts as one here: the thin dark marks of the image (black
top-hat) hold a long straight baseline (Hough); close beside it, darkness along the line is periodic (Fourier); and of
the ticks so found, those at every fifth place reach farther. Only this whole pattern is a ruler, so that hair, skin
ridges, cloth or a row of dots are none. What a tick means is then fixed by the field of view: divisions of 1 mm and of
0.1 mm differ by ten, and a dermoscope shows between the two ends of `FIELD_MM`. Where a link is missing there is no
scale: a wrong millimetre is worse than none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dermoscopy.domain import RGBPixels

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]

WORKING_SIDE = 1024
"""Longer side, in pixels, at which ticks are read: a tenth of a millimetre is five pixels there in a 20 mm field."""
SEARCHED_SIDE = 320
"""The same for finding the baseline, which survives where ticks do not."""
FIELD_MM = (5.0, 45.0)
"""What the longer side of the picture can be on the skin: contact plates are 10 to 30 mm wide."""
DIVISIONS_MM = (1.0, 0.1)
"""What the shortest division of a metric ruler with longer fifth ticks can be."""
PERIODS = (2.6, 48.0)
"""Distance of neighbouring ticks, least and most, in working pixels."""
FEWEST_TICKS = 20
"""Ticks in a row that make a ruler."""
LEAST_PERIODIC = 0.25
"""Share of the variation along the line that its mean over all periods explains."""
LEAST_LONGER = 8.0
"""By how many standard errors every fifth tick must reach farther than the others."""
LARGEST_ERROR = 0.02
"""Relative standard error of the scale from which on it is not used."""
_SHORTEST_LINE = 0.2
_MOST_LINES = 6


@dataclass(frozen=True, slots=True)
class Ruler:
    """What was read, in pixels of the source image.

    ``line`` is (row, column) of both ends of the baseline; ``period_px`` the distance of neighbouring ticks, of which
    ``ticks`` were counted, ``tick_mm`` apart on the skin. ``relative_error`` is the standard error of the scale by the
    scatter of the ticks about a regular comb; distortion by the lens is not in it.
    """

    pixels_per_mm: float
    relative_error: float
    period_px: float
    tick_mm: float
    ticks: int
    line: tuple[tuple[float, float], tuple[float, float]]

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """mm per pixel along rows and along columns, as an image states it; the same in both directions."""
        return 1.0 / self.pixels_per_mm, 1.0 / self.pixels_per_mm


@dataclass(frozen=True, slots=True)
class _Strip:
    """Marks beside a line: ``marks`` [2 · half + 1, n], the line along the middle row, one working pixel per sample."""

    marks: Float32
    half: int


@dataclass(frozen=True, slots=True)
class _Comb:
    """Regular ticks along a strip: ``first`` + k · ``period`` in samples, ``error`` of the period."""

    period: float
    first: float
    error: float
    ticks: int


def read_ruler(pixels: RGBPixels) -> Ruler | None:
    """The ruler in uint8 RGB ``pixels`` [rows, columns, 3], or ``None`` where none can be read with certainty."""
    longest = max(pixels.shape[:2])
    scale = min(1.0, WORKING_SIDE / longest)
    grey = np.asarray(cv2.cvtColor(_shrunk(pixels, scale), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    lines = list(_lines(grey))
    if not lines:
        return None
    marks = np.asarray(cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, np.ones((9, 9), np.uint8)), dtype=np.uint8)
    for start, end in lines:
        strip = _strip(marks, start, end)
        comb = _comb(strip)
        if comb is None:
            continue
        period = comb.period / scale
        fitting = [mm for mm in DIVISIONS_MM if FIELD_MM[0] <= longest / period * mm <= FIELD_MM[1]]
        if len(fitting) != 1 or comb.error > LARGEST_ERROR * comb.period:
            continue
        (x0, y0), (x1, y1) = (point / scale for point in (start, end))
        line = ((float(y0), float(x0)), (float(y1), float(x1)))
        return Ruler(period / fitting[0], comb.error / comb.period, period, fitting[0], comb.ticks, line)
    return None


def _shrunk(pixels: npt.NDArray[np.uint8], scale: float) -> UInt8:
    if scale >= 1.0:
        return pixels
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _lines(grey: UInt8) -> Iterator[tuple[Float64, Float64]]:
    """Long straight thin dark lines, (x, y) of both ends, longest first, of neighbouring ones the first."""
    scale = min(1.0, SEARCHED_SIDE / max(grey.shape))
    small = _shrunk(grey, scale)
    side = max(small.shape)
    marks = cv2.morphologyEx(small, cv2.MORPH_BLACKHAT, np.ones((7, 7), np.uint8))
    binary = (marks >= max(8.0, float(np.percentile(marks, 92)))).astype(np.uint8)
    found = cv2.HoughLinesP(
        binary, 1, math.pi / 180, round(0.6 * _SHORTEST_LINE * side), minLineLength=_SHORTEST_LINE * side, maxLineGap=5
    )
    if found is None:
        return
    segments = np.asarray(found, dtype=np.float64).reshape(-1, 2, 2)
    taken: list[tuple[Float64, Float64]] = []
    for index in np.argsort(-np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1), kind="stable"):
        start, end = segments[index]
        middle = (start + end) / 2.0
        if any(_distance(middle, *other) < 6.0 for other in taken):
            continue
        taken.append((start, end))
        yield start / scale, end / scale
        if len(taken) == _MOST_LINES:
            return


def _distance(point: Float64, start: Float64, end: Float64) -> float:
    """From a point to a segment."""
    along = end - start
    share = min(1.0, max(0.0, float((point - start) @ along) / float(along @ along)))
    return float(np.linalg.norm(point - start - share * along))


def _strip(marks: UInt8, start: Float64, end: Float64) -> _Strip:
    """The surroundings of a line, straightened; the line is first turned and moved to where the marks are darkest."""
    half = max(12, round(0.06 * max(marks.shape)))
    reach = math.ceil(4.0 + 0.02 * float(np.linalg.norm(end - start)))
    rough = _sampled(marks, start, end, 0.0, 0.0, 2 * reach)
    parts = min(24, rough.shape[1])  # a line shorter than that has fewer columns than parts
    chunks = np.stack([part.mean(axis=1) for part in np.array_split(rough, parts, axis=1)])
    shifts = np.arange(-reach, reach + 0.25, 0.5)
    turned = shifts[:, None, None] + shifts[None, :, None] * np.linspace(-1.0, 1.0, parts)[None, None, :] + 2 * reach
    below = np.clip(np.floor(turned).astype(int), 0, 4 * reach - 1)
    share = turned - below
    which = np.arange(parts)
    darkness = (chunks[which, below] * (1.0 - share) + chunks[which, below + 1] * share).mean(axis=2)
    shift, turn = np.unravel_index(int(darkness.argmax()), darkness.shape)
    return _Strip(_sampled(marks, start, end, float(shifts[shift]), float(shifts[turn]), half), half)


def _sampled(marks: UInt8, start: Float64, end: Float64, shift: float, turn: float, half: int) -> Float32:
    """float32 [2 · half + 1, n]: lines parallel to one that is moved by ``shift`` and turned so that its ends move by
    ``turn`` more, a pixel apart.
    """
    length = float(np.linalg.norm(end - start))
    along = (end - start) / length
    places = np.arange(int(length) + 1, dtype=np.float64)
    depths = np.arange(-half, half + 1)[:, None] + shift + turn * (2.0 * places / length - 1.0)[None, :]
    x = start[0] + places * along[0] - depths * along[1]
    y = start[1] + places * along[1] + depths * along[0]
    return np.asarray(
        cv2.remap(marks, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderValue=0), np.float32
    )


def _comb(strip: _Strip) -> _Comb | None:
    """The ticks on either side of the line, or ``None`` where none are regular with every fifth one longer."""
    for side in (strip.marks[: strip.half][::-1], strip.marks[strip.half + 1 :]):
        for nearest, farthest in ((1, 3), (2, 5)):
            profile = side[nearest:farthest].mean(axis=0).astype(np.float64)
            profile = np.minimum(profile, float(np.percentile(profile, 97)))
            for period in _periods(profile):
                comb = _ticks(profile, period)
                if comb is not None and _fifth_is_longer(side, comb):
                    return comb
    return None


def _periods(profile: Float64) -> list[float]:
    """The likeliest periods of a darkness along a line: highest peaks of its spectrum, and multiples of the first,
    since the overtones of narrow ticks are as high as the ground tone.
    """
    size = 1 << (4 * len(profile)).bit_length()
    smooth = cv2.blur(profile[None], (51, 1), borderType=cv2.BORDER_REFLECT)[0]
    power = np.abs(np.fft.rfft((profile - smooth) * np.hanning(len(profile)), size)) ** 2
    frequency = np.arange(len(power)) / size
    peak = np.zeros(len(power), dtype=bool)
    peak[1:-1] = (power[1:-1] > power[:-2]) & (power[1:-1] >= power[2:])
    peak &= (frequency >= 1.0 / PERIODS[1]) & (frequency <= 1.0 / PERIODS[0])
    found = [float(1.0 / frequency[index]) for index in np.flatnonzero(peak)[np.argsort(-power[peak])][:4]]
    return found + [times * found[0] for times in range(2, 13) if found and times * found[0] <= PERIODS[1]]


def _ticks(profile: Float64, period: float) -> _Comb | None:
    """The regular comb of about this period in a darkness along a line, if it explains what is seen there."""
    places = np.arange(len(profile))
    bins = max(4, round(period))
    phase = np.floor((places % period) / period * bins).astype(int).clip(0, bins - 1)
    folded = (np.bincount(phase, profile, bins) / np.maximum(np.bincount(phase, minlength=bins), 1))[phase]
    if float(folded.var()) < LEAST_PERIODIC * max(float(profile.var()), 1e-9):
        return None
    wave = np.exp(2j * math.pi * places / period) @ (profile - profile.mean())
    first = (float(np.angle(wave)) / (2.0 * math.pi) * period) % period
    count = int((len(profile) - 1 - first) / period) + 1
    if count < FEWEST_TICKS:
        return None
    expected = first + period * np.arange(count)
    window = np.linspace(-0.5, 0.5, 9) * period
    near = np.interp(expected[:, None] + window, places, profile)
    near -= near.min(axis=1, keepdims=True)
    centres = expected + (near * window).sum(axis=1) / np.maximum(near.sum(axis=1), 1e-9)
    numbers = np.arange(count)
    (slope, start), covariance = np.polyfit(numbers, centres, 1, cov=True)
    on = np.interp(start + slope * numbers, places, profile)
    # a comb of several true periods would leave ticks between its own
    between = (1 / 2, 1 / 3, 2 / 3) if period < 10.0 else (1 / 2, 1 / 3, 2 / 3, 1 / 5, 2 / 5, 1 / 7, 2 / 7, 3 / 7)
    off = np.max([np.interp(start + slope * (numbers[:-1] + part), places, profile) for part in between], axis=0)
    present = on[1:] > off
    if present.mean() < 0.8 or abs(slope / period - 1.0) > 0.05:
        return None
    return _Comb(float(slope), float(start), math.sqrt(float(covariance[0, 0])), count)


def _fifth_is_longer(side: Float32, comb: _Comb) -> bool:
    """Whether the ticks at every fifth place reach farther from the line than the others, which are alike."""
    places, numbers = np.arange(side.shape[1]), np.arange(comb.ticks)
    on = comb.first + comb.period * numbers
    depths = side[1 : 2 + min(len(side) - 2, math.ceil(9.0 * comb.period))]
    level = float(np.median(np.interp(on, places, depths[:3].mean(axis=0))))
    beside = [on - comb.period / 2.0, on + comb.period / 2.0]
    reach = np.zeros(comb.ticks)
    for row in np.minimum(depths, 1.5 * level):
        reach += np.interp(on, places, row) - 0.5 * sum(np.interp(where, places, row) for where in beside)
    best = max(range(5), key=lambda phase: float(reach[numbers % 5 == phase].mean()))
    longer, others = reach[numbers % 5 == best], reach[numbers % 5 != best]
    error = math.sqrt(float(others.var()) * (1.0 / len(longer) + 1.0 / len(others)))
    distinct = float(np.mean(longer > np.percentile(others, 75)))
    return bool((longer.mean() - others.mean()) >= LEAST_LONGER * max(error, 1e-9) and distinct >= 0.7)
