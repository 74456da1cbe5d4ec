"""Is there writing in the picture? Captions, dates and names that a device or a program burned into the pixels.

Nothing is read: a region is taken for writing by its shape. Letters are strokes of one width and one colour that differ
sharply from what surrounds them, much alike in height, set in a row. Hair is longer, ruler ticks are single bars, and
the dots of a lesion are compact and lie anywhere. What is asked for is that no writing passes, so a picture without any
may be suspected: then a person looks.

A second question is where the skin is: `field` finds what surrounds the round or framed field of a dermoscope. Nothing
there is of any use, so it is blacked as a whole and no letter in it has to be found.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dermoscopy.domain import Mask, RGBPixels

UInt8 = npt.NDArray[np.uint8]

HEIGHTS = (7, 26)
"""Height of letters in pixels of the scale at which they are looked for, least and most."""
SCALES = (2.0, 1.0, 0.5, 0.25)
"""Scales, so that letters of 4 to 104 pixels are found."""
WORKING_SIDE = 1600
"""Longer side of the picture at scale 1."""
STANDS_OUT = ((40, 3), (30, 5))
"""Grey levels by which a stroke differs from what surrounds it, and letters in a row that make writing then: of faint
ones it takes more."""
SURROUND_TOLERANCE = 6
"""Grey levels between neighbouring pixels that still belong to one even surround."""
LEAST_SURROUND = 0.02
"""Share of the frame from which on an even area at the border counts as the surround of a field."""
BLACKEST, WHITEST = 40, 250
"""Brightest channel of a black surround, darkest of a white one; skin in full light is not as white as paper."""
LEAST_FIELD, LEAST_CONVEX = 0.2, 0.93
"""Share of the frame that a field has at least, and share of its convex hull: it is a disc, or a disc cut by the frame.
A lesion on white skin is no disc, and must not be cut out."""


@dataclass(frozen=True, slots=True)
class Letter:
    """Box of one letter-like stroke: top row, left column, height, width, in working pixels."""

    top: int
    left: int
    height: int
    width: int
    compact: bool
    """A bar or a blob, which letters may be and other things are far more often."""


@dataclass(frozen=True, slots=True)
class Writing:
    """Boxes of what looks like lines of writing, in pixels of the picture: top, left, bottom, right (exclusive)."""

    boxes: tuple[tuple[int, int, int, int], ...]

    @property
    def found(self) -> bool:
        return bool(self.boxes)


def find_writing(pixels: RGBPixels) -> Writing:
    """What looks like writing in uint8 RGB ``pixels`` [rows, columns, 3], upright or turned by a quarter."""
    boxes: list[tuple[int, int, int, int]] = []
    base = min(1.0, WORKING_SIDE / max(pixels.shape[:2]))
    for scale in (base * one for one in SCALES):
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        if min(size) < 3 * HEIGHTS[0]:
            continue
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        shown = np.asarray(cv2.resize(pixels, size, interpolation=way), dtype=np.uint8)
        for channel in _channels(shown):
            for turned in (False, True):
                plane = np.ascontiguousarray(channel.T if turned else channel)
                for top, left, bottom, right in _lines(plane):
                    box = (left, top, right, bottom) if turned else (top, left, bottom, right)
                    boxes.append(_scaled(box, scale, pixels.shape[0], pixels.shape[1]))
    return Writing(tuple(sorted(set(boxes))))


def field(pixels: RGBPixels) -> Mask:
    """Where the dermoscopic field is, bool [rows, columns]: everything but an even surround that reaches the border.

    The field is filled, so that letters in the surround do not belong to it unless they touch it. Where no even
    area of some size lies at the border, or what it leaves has not the shape of a field, the whole frame is field.
    """
    rows, columns = int(pixels.shape[0]), int(pixels.shape[1])
    scale = min(1.0, 512 / max(rows, columns))
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    surround = _even_border(small)
    if surround.mean() < LEAST_SURROUND:
        return np.ones((rows, columns), dtype=bool)
    inside = np.asarray(~surround, dtype=np.uint8)
    inside = np.asarray(cv2.morphologyEx(inside, cv2.MORPH_OPEN, _disc(9)), dtype=np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=4)
    if count < 2:
        return np.ones((rows, columns), dtype=bool)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    outlines, _ = cv2.findContours((labels == largest).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = np.zeros(inside.shape, np.uint8)
    cv2.drawContours(filled, list(outlines), -1, 1, cv2.FILLED)
    hull = cv2.contourArea(cv2.convexHull(np.concatenate(outlines)))
    if filled.mean() < LEAST_FIELD or filled.sum() < LEAST_CONVEX * hull:
        return np.ones((rows, columns), dtype=bool)
    back = cv2.resize(filled, (columns, rows), interpolation=cv2.INTER_NEAREST)
    return np.asarray(back, dtype=bool)


def _even_border(small: UInt8) -> npt.NDArray[np.bool_]:
    """Area of ``small`` that is black or white and hangs together with the border of the frame."""
    grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    gradient = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    plain = (small.max(axis=2) <= BLACKEST) | (small.min(axis=2) >= WHITEST)
    even = np.asarray((gradient <= SURROUND_TOLERANCE) & plain, dtype=np.uint8)
    _, labels = cv2.connectedComponents(even, connectivity=4)
    at_border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return np.asarray(np.isin(labels, at_border[at_border > 0]), dtype=bool)


def _channels(shown: UInt8) -> tuple[UInt8, ...]:
    """Where writing of any colour stands out on skin: grey for most, single channels for letters of other colours.

    The last is how much greener than red a pixel is: skin never is, and letters often are.
    """
    grey = np.asarray(cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    red, green, blue = (np.ascontiguousarray(shown[..., index]) for index in range(3))
    return grey, red, blue, np.asarray(cv2.subtract(green, red), dtype=np.uint8)


def _lines(plane: UInt8) -> list[tuple[int, int, int, int]]:
    """Boxes of rows of letters in ``plane``, light on dark and dark on light."""
    found = []
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (HEIGHTS[0] + 2, HEIGHTS[0] + 2))
    for way in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
        strokes = np.asarray(cv2.morphologyEx(plane, way, kernel), dtype=np.uint8)
        for contrast, fewest in STANDS_OUT:
            found += _rows(_letters(strokes, contrast), fewest)
    return found


def _letters(strokes: UInt8, contrast: int) -> list[Letter]:
    marks = np.asarray(strokes >= contrast, dtype=np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(marks, connectivity=8)
    letters = []
    for index in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[index])
        if not HEIGHTS[0] <= height <= HEIGHTS[1] or width > 2.2 * height or area < 6:
            continue
        part = labels[top : top + height, left : left + width] == index
        if not _crisp(strokes[top : top + height, left : left + width], part, contrast):
            continue
        points = cv2.findNonZero(part.astype(np.uint8))
        hull = cv2.contourArea(cv2.convexHull(points)) + 0.5 * (width + height)
        bar = width < 0.35 * height or area > 0.80 * hull
        letters.append(Letter(top, left, height, width, bar))
    return letters


def _crisp(strength: UInt8, part: npt.NDArray[np.bool_], contrast: int) -> bool:
    """Whether a mark has one strength over most of its length, as a drawn stroke has and a shadow has not."""
    values = strength[part].astype(np.float32)
    return float(np.percentile(values, 75)) >= 1.4 * contrast


def _rows(letters: list[Letter], fewest: int) -> list[tuple[int, int, int, int]]:
    """Boxes around letters that stand in a row, near each other and alike in height."""
    letters = sorted(letters, key=lambda one: one.left)
    taken: set[int] = set()
    boxes = []
    for first, letter in enumerate(letters):
        if first in taken:
            continue
        row = [first]
        for index in range(first + 1, len(letters)):
            last, other = letters[row[-1]], letters[index]
            gap = other.left - (last.left + last.width)
            if gap > 1.6 * letter.height:
                break
            alike = 0.6 <= other.height / letter.height <= 1.67
            level = abs((other.top + other.height) - (last.top + last.height)) <= 0.3 * letter.height
            if alike and level and gap >= -0.2 * letter.height:
                row.append(index)
        members = [letters[index] for index in row]
        if len(members) >= fewest and sum(not one.compact for one in members) >= 2:
            taken.update(row)
            boxes.append(
                (
                    min(one.top for one in members),
                    min(one.left for one in members),
                    max(one.top + one.height for one in members),
                    max(one.left + one.width for one in members),
                )
            )
    return boxes


def _scaled(box: tuple[int, int, int, int], scale: float, rows: int, columns: int) -> tuple[int, int, int, int]:
    top, left, bottom, right = (value / scale for value in box)
    return max(0, int(top) - 1), max(0, int(left) - 1), min(rows, int(bottom) + 2), min(columns, int(right) + 2)


def _disc(size: int) -> UInt8:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)), dtype=np.uint8)
