"""Hair over the skin: found as thin, long, straight-ish structure, dark or light, and left out of what is measured.

After DullRazor (Lee, Ng, Gallagher, Coldman, McLean, "DullRazor: a software approach to hair removal from images",
Comput Biol Med 27:533, 1997), which takes a morphological closing in several directions and calls hair what the closing
fills; its check that such a pixel lies in a long, thin structure is an opening by straight lines here, which dots and
globules do not survive, nor most of a pigment network. The network never sees the result: it reads the image as it is
(the manifest's preprocessing). Ruler marks and the lens's rim are thin lines, too, and may be called hair; both are
rightly left out of colours.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from dermoscopy.domain import Mask, RGBPixels

UInt8 = npt.NDArray[np.uint8]

WORKING_SIDE = 288
"""Longer side, in pixels, at which hair is looked for."""
WIDEST = 7
"""Pixels at that size that the closing spans: wider dark structure is no hair."""
STRAIGHT = 15
"""Pixels at that size over which a hair runs straight somewhere."""
PURE = 0.5
"""Share of thin structure around a hair that lies on such straight lines: less in the mesh of a pigment network."""
_AROUND = 31
DARKER, LIGHTER = 11, 22
"""Grey levels (0…255) by which a hair differs from the skin beside it. Light structures must differ more, since holes
of a network, scales and small reflections are light and thin as well."""
_DIRECTIONS = 12


def find_hair(pixels: RGBPixels) -> Mask:
    """Where hair lies in uint8 RGB ``pixels`` [rows, columns, 3]: bool [rows, columns].

    Work is done at `WORKING_SIDE` or less; the answer is a pixel wider on each side there than the hair itself.
    """
    rows, columns = int(pixels.shape[0]), int(pixels.shape[1])
    scale = min(1.0, WORKING_SIDE / max(rows, columns))
    small = pixels
    if scale < 1.0:
        size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
        small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    found = _long(grey, cv2.MORPH_BLACKHAT, DARKER) | _long(grey, cv2.MORPH_TOPHAT, LIGHTER)
    found = np.asarray(cv2.dilate(found, np.ones((3, 3), np.uint8)), dtype=np.uint8)
    if scale < 1.0:
        found = np.asarray(cv2.resize(found, (columns, rows), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    return np.asarray(found, dtype=bool)


def without_hair(pixels: RGBPixels, hair: Mask) -> RGBPixels:
    """``pixels`` with what lies under ``hair`` filled in from beside it (Telea, J Graphics Tools 9:23, 2004)."""
    return np.asarray(cv2.inpaint(np.ascontiguousarray(pixels), hair.astype(np.uint8), 3, cv2.INPAINT_TELEA), np.uint8)


def crossing(hair: Mask, lesion: Mask) -> Mask:
    """``hair`` without what lies wholly inside ``lesion`` (both bool [rows, columns]).

    Hardly a hair begins and ends within a lesion; streaks and the thick lines of a pigment network do.
    """
    _, labels = cv2.connectedComponents(hair.astype(np.uint8), connectivity=8)
    reaching = np.unique(labels[hair & ~lesion])
    return np.asarray(hair & np.isin(labels, reaching), dtype=bool)


def hair_over(pixels: RGBPixels, lesion: Mask) -> Mask:
    """Implements `dermoscopy.ports.FindHair`: hair on the skin and across the lesion, bool [rows, columns]."""
    return crossing(find_hair(pixels), lesion)


def _long(grey: UInt8, operation: int, least: int) -> UInt8:
    """1 where a pixel stands out by ``least`` from both sides of a line through it that belongs to a long one."""
    across = np.zeros_like(grey)
    for direction in range(0, _DIRECTIONS, 3):
        kernel = _line(WIDEST, math.pi * direction / _DIRECTIONS)
        np.maximum(across, np.asarray(cv2.morphologyEx(grey, operation, kernel), np.uint8), out=across)
    lines = (across >= least).astype(np.uint8)
    straight = np.zeros_like(lines)
    for direction in range(_DIRECTIONS):
        kernel = _line(STRAIGHT, math.pi * direction / _DIRECTIONS)
        straight |= np.asarray(cv2.morphologyEx(lines, cv2.MORPH_OPEN, kernel), np.uint8)
    if not straight.any():
        return straight
    around = (_AROUND, _AROUND)
    thin = np.asarray(cv2.boxFilter(lines, cv2.CV_32F, around), np.float32)
    pure = np.asarray(cv2.boxFilter(straight, cv2.CV_32F, around), np.float32) >= PURE * thin
    beside = np.asarray(cv2.dilate(straight, np.ones((5, 5), np.uint8)), np.uint8) & lines
    return beside & np.asarray(pure, dtype=np.uint8)


def _line(length: int, angle: float) -> UInt8:
    """A line through the middle of a square of odd ``length``, as a structuring element."""
    reach = length // 2
    kernel = np.zeros((length, length), np.uint8)
    down, right = round(reach * math.sin(angle)), round(reach * math.cos(angle))
    cv2.line(kernel, (reach - right, reach - down), (reach + right, reach + down), 1, 1)
    return kernel
