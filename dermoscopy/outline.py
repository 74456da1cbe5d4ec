"""A hand-drawn outline: a polygon of (column, row) corners in pixels of the source, and the mask that it stands for.

(0, 0) is the upper left corner of the upper left pixel, as in DICOM's SCOORD (PS3.3 C.18.6.1.2) and on an HTML canvas;
the centre of that pixel is (0.5, 0.5), and a pixel belongs to the outline when its centre does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dermoscopy.domain import Mask

Outline = Sequence[tuple[float, float]]
FEWEST, MOST = 3, 2000
"""Corners of an outline."""

_Float = npt.NDArray[np.float64]


def outline_fault(outline: Outline, rows: int, columns: int) -> str:
    """What is wrong with an outline in an image of this size and what to do; empty if nothing is."""
    if not FEWEST <= len(outline) <= MOST:
        return f"an outline has {FEWEST} to {MOST} corners, this one has {len(outline)}: draw it with fewer or more"
    if not all(math.isfinite(x) and math.isfinite(y) for x, y in outline):
        return "a corner is not a number"
    if not all(0 <= x <= columns and 0 <= y <= rows for x, y in outline):
        return f"a corner lies outside the image of {columns} columns and {rows} rows: keep the outline inside"
    corners = np.asarray(outline, dtype=np.float64)
    if (corners == np.roll(corners, -1, axis=0)).all(axis=1).any():
        return "two corners that follow each other are the same: leave one out (the outline closes by itself)"
    if _crosses_itself(corners):
        return "the outline crosses or touches itself: draw one closed line around the lesion"
    if not outline_mask(outline, rows, columns).any():
        return "the outline holds no pixel of the image: draw it around the lesion"
    return ""


def outline_mask(outline: Outline, rows: int, columns: int) -> Mask:
    """Pixels whose centre lies inside ``outline``, bool [rows, columns] (even-odd rule, scan line by scan line)."""
    mask = np.zeros((rows, columns), dtype=bool)
    start = np.asarray(outline, dtype=np.float64)
    end = np.roll(start, -1, axis=0)
    (x0, y0), (x1, y1) = start.T, end.T
    first = max(0, math.floor(float(y0.min()) - 0.5))
    last = min(rows, math.ceil(float(y0.max()) + 0.5))
    for row in range(first, last):
        middle = row + 0.5
        met = (y0 <= middle) != (y1 <= middle)
        if not met.any():
            continue
        crossings = np.sort(x0[met] + (middle - y0[met]) / (y1[met] - y0[met]) * (x1[met] - x0[met]))
        borders = np.clip(np.ceil(crossings - 0.5), 0, columns).astype(int)
        for left, right in zip(borders[::2], borders[1::2], strict=True):
            mask[row, left:right] = True
    return mask


def _crosses_itself(corners: _Float) -> bool:
    """Whether two sides that are no neighbours meet, or neighbours run back over each other."""
    start, end = corners, np.roll(corners, -1, axis=0)
    count = len(corners)
    for index in range(count):
        following = (index + 1) % count
        if _folds_back(start[index], end[index], end[following]):
            return True
        others = np.arange(index + 2, count if index > 0 else count - 1)
        if others.size and _meet(start[index], end[index], start[others], end[others]).any():
            return True
    return False


def _folds_back(a: _Float, b: _Float, c: _Float) -> bool:
    there, back = b - a, c - b
    return bool(there[0] * back[1] - there[1] * back[0] == 0 and float(there @ back) < 0)


def _meet(a: _Float, b: _Float, c: _Float, d: _Float) -> npt.NDArray[np.bool_]:
    """Whether the segment a–b shares a point with each of the segments c[n]–d[n]."""
    one, other = _side(c, d, a), _side(c, d, b)
    third, fourth = _side(a, b, c), _side(a, b, d)
    crossing = (one * other < 0) & (third * fourth < 0)
    touching = (
        ((one == 0) & _between(c, d, a))
        | ((other == 0) & _between(c, d, b))
        | ((third == 0) & _between(a, b, c))
        | ((fourth == 0) & _between(a, b, d))
    )
    return np.asarray(crossing | touching, dtype=bool)


def _side(a: _Float, b: _Float, point: _Float) -> _Float:
    """Sign of the turn a → b → point; broadcasts over the first axis."""
    across = (b[..., 0] - a[..., 0]) * (point[..., 1] - a[..., 1])
    return np.sign(across - (b[..., 1] - a[..., 1]) * (point[..., 0] - a[..., 0]))


def _between(a: _Float, b: _Float, point: _Float) -> npt.NDArray[np.bool_]:
    low, high = np.minimum(a, b), np.maximum(a, b)
    return np.asarray(((low <= point) & (point <= high)).all(axis=-1), dtype=bool)
