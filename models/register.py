"""Do two pictures show the same piece of skin? Local structures are matched, and the turn, shift and zoom between them.

SIFT features (Lowe, IJCV 60:91, 2004; compared as RootSIFT, Arandjelović and Zisserman, CVPR 2012) of both pictures are
paired, and the similarity transform that most pairs obey is sought (RANSAC: Fischler and Bolles, CACM 24:381, 1981).
How many distinct pairs obey it is the score: pairs of different lesions agree by chance in a handful at most, pictures
of one lesion in dozens (docs/change.md has the measured rates). A low score refutes nothing: a lesion that changed
much, another light or a blurred picture leave few common structures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dermoscopy.domain import DermoscopicImage, Mask

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]

WORKING_SIDE = 256
"""Shorter side, in pixels, at which structures are sought: the size at which the rates were measured."""
REGISTERED = 10
"""Distinct pairs that make a registration; the most that different lesions agreed in by chance is far below it."""
_FEATURES = 600
_CLEARLY_NEARER = 0.85
"""A pair counts when its descriptors are nearer than this share of the distance to the next best (Lowe's ratio)."""
_PLAY = 4.0
"""Pixels at the working size by which a pair may miss the transform: skin stretches."""
_SAME_PLACE = 3.0
_ZOOM = (0.4, 2.5)
_MARGIN = 0.05
"""Share of the lesion's diameter by which a structure must lie off its outline to be skin and not border."""
_DARK = 30
"""Grey level (0…255) of the lens's black rim, whose edge is in every picture of a device."""


@dataclass(frozen=True, slots=True)
class Structures:
    """What `find_structures` saw in one picture: ``places`` float32 [n, 2] (column, row) at the working size,
    ``descriptors`` float32 [n, 128], and ``shrunk``, the factors (column, row) from source to working pixels.
    """

    places: Float32
    descriptors: Float32
    shrunk: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Registration:
    """How a later picture lies over an earlier one. ``points`` is the score: distinct pairs that agree.

    ``matrix`` float64 [2, 3] takes (column, row, 1) of the earlier picture's pixels to the later one's; ``zoom`` is a
    length in the later picture over the same length in the earlier one, in pixel widths of each, ``zoom_error`` its
    relative standard error by the scatter of the pairs. ``beside`` counts the pairs that lie clear of both lesions:
    without them the zoom rests on the lesion itself, whose even growth then looks like a closer picture.
    """

    points: int
    beside: int
    matrix: Float64
    zoom: float
    zoom_error: float
    turn_degrees: float

    @property
    def confirmed(self) -> bool:
        return self.points >= REGISTERED


def find_structures(image: DermoscopicImage) -> Structures:
    """Local structures of ``image``; the lens's rim and what lies outside it are left out."""
    factor = WORKING_SIDE / min(image.rows * image.aspect, image.columns)
    size = (max(1, round(image.columns * factor)), max(1, round(image.rows * image.aspect * factor)))
    way = cv2.INTER_AREA if factor < 1.0 else cv2.INTER_LINEAR
    grey = cv2.resize(cv2.cvtColor(image.pixels, cv2.COLOR_RGB2GRAY), size, interpolation=way)
    seen = cv2.erode((grey > _DARK).astype(np.uint8), np.ones((9, 9), np.uint8))
    even = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(grey)
    finder = cv2.SIFT.create(nfeatures=_FEATURES, contrastThreshold=0.01, edgeThreshold=15)
    points, descriptors = finder.detectAndCompute(even, seen)
    shrunk = (size[0] / image.columns, size[1] / image.rows)
    if not points:
        return Structures(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32), shrunk)
    sums = np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)
    rooted = np.asarray(np.sqrt(descriptors / sums), dtype=np.float32)
    return Structures(np.array([point.pt for point in points], dtype=np.float32), rooted, shrunk)


def register(before: Structures, after: Structures, lesions: tuple[Mask, Mask] | None = None) -> Registration | None:
    """The turn, shift and zoom from ``before`` to ``after``; ``None`` where no transform holds at all.

    ``lesions`` are the outlines of both at source size, bool [rows, columns]. Deterministic.
    """
    pairs = _pairs(before.descriptors, after.descriptors)
    if len(pairs) < 4:
        return None
    old, new = before.places[pairs[:, 0]], after.places[pairs[:, 1]]
    cv2.setRNGSeed(0)
    found, agree = cv2.estimateAffinePartial2D(
        old, new, method=cv2.RANSAC, ransacReprojThreshold=_PLAY, maxIters=2000, confidence=0.99
    )
    if found is None:
        return None
    zoom = math.hypot(float(found[0, 0]), float(found[1, 0]))
    if not _ZOOM[0] < zoom < _ZOOM[1]:
        return None
    chosen = agree[:, 0] > 0
    old, new = _distinct(old[chosen], new[chosen])
    beside = 0
    zoom, error = _zoom(old, new)
    if lesions is not None:
        off = ~(_near(old, before.shrunk, lesions[0]) | _near(new, after.shrunk, lesions[1]))
        beside = int(np.count_nonzero(off))
        if beside >= REGISTERED:
            zoom, error = _zoom(old[off], new[off])
    # working pixels to source pixels, on both sides
    shrink = np.diag([before.shrunk[0], before.shrunk[1], 1.0])
    grow = np.diag([1.0 / after.shrunk[0], 1.0 / after.shrunk[1]])
    matrix = grow @ np.asarray(found, dtype=np.float64) @ shrink
    return Registration(
        points=len(old),
        beside=beside,
        matrix=matrix,
        zoom=zoom * before.shrunk[0] / after.shrunk[0],
        zoom_error=error,
        turn_degrees=math.degrees(math.atan2(float(found[1, 0]), float(found[0, 0]))),
    )


def overlap(registration: Registration, before: Mask, after: Mask) -> float:
    """Share (0…1) of the smaller outline that the other one covers once the earlier lies over the later picture.

    Both bool [rows, columns] at source size. Near 0: the pictures show the same skin, but another lesion was outlined.
    """
    size = (int(after.shape[1]), int(after.shape[0]))
    laid = cv2.warpAffine(before.astype(np.uint8), registration.matrix, size, flags=cv2.INTER_NEAREST) > 0
    smaller = min(int(np.count_nonzero(laid)), int(np.count_nonzero(after)))
    return float(np.count_nonzero(laid & after)) / smaller if smaller else 0.0


def _pairs(old: Float32, new: Float32) -> npt.NDArray[np.int64]:
    """Indices [n, 2] of structures that are clearly nearest to each other's kind."""
    if len(old) < 4 or len(new) < 4:
        return np.zeros((0, 2), np.int64)
    nearest = cv2.BFMatcher(cv2.NORM_L2).knnMatch(old, new, k=2)
    clear = [two[0] for two in nearest if len(two) == 2 and two[0].distance < _CLEARLY_NEARER * two[1].distance]
    return np.array([(one.queryIdx, one.trainIdx) for one in clear], dtype=np.int64).reshape(-1, 2)


def _distinct(old: Float32, new: Float32) -> tuple[Float32, Float32]:
    """Pairs of different places in both pictures: one structure is often found several times."""
    kept = np.arange(len(old))
    for places in (old, new):
        _, first = np.unique(np.round(places[kept] / _SAME_PLACE), axis=0, return_index=True)
        kept = kept[np.sort(first)]
    return old[kept], new[kept]


def _near(places: Float32, shrunk: tuple[float, float], lesion: Mask) -> npt.NDArray[np.bool_]:
    """Whether each of ``places`` at the working size lies in ``lesion`` (at source size) or on its border."""
    size = (max(1, round(lesion.shape[1] * shrunk[0])), max(1, round(lesion.shape[0] * shrunk[1])))
    small = cv2.resize(lesion.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    reach = max(3, round(_MARGIN * math.sqrt(4.0 * float(np.count_nonzero(small)) / math.pi)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    wide = cv2.dilate(small, disc)
    column = np.clip(places[:, 0].astype(np.int64), 0, size[0] - 1)
    row = np.clip(places[:, 1].astype(np.int64), 0, size[1] - 1)
    return np.asarray(wide[row, column] > 0, dtype=bool)


def _zoom(old: Float32, new: Float32) -> tuple[float, float]:
    """Zoom and its relative standard error by least squares (Umeyama, IEEE PAMI 13:376, 1991, without reflection)."""
    a = old.astype(np.float64) - old.mean(axis=0, dtype=np.float64)
    b = new.astype(np.float64) - new.mean(axis=0, dtype=np.float64)
    spread = float((a * a).sum())
    if spread <= 0.0 or len(old) < 3:
        return 1.0, 1.0
    along, across = float((a * b).sum()), float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum())
    zoom = math.hypot(along, across) / spread
    cosine, sine = along / spread, across / spread
    turned = np.stack([a[:, 0] * cosine - a[:, 1] * sine, a[:, 0] * sine + a[:, 1] * cosine], axis=1)
    scatter = float(((b - turned) ** 2).sum()) / (2 * len(old) - 4 if len(old) > 2 else 1)
    return zoom, math.sqrt(scatter / spread) / max(zoom, 1e-9)
