"""Mask to measurements: size, shape, asymmetry, border and colour of the lesion (docs/analysis.md lists them all).

Everything is measured on the largest 8-connected region of the mask with its holes filled. Shape is measured on the
skin, not on the pixel grid: where the image states different row and column spacings, moments, outline and folding use
millimetres; without a scale they use the shape of the pixels, square if nothing is said of it. Values named ``…_px``
stay in source pixels. A scale that the image states comes before one that was read from a ruler in it. Under hair no
colour is counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from dermoscopy.domain import DermoscopicImage, LesionMeasurements, Mask, RGBPixels, ScaleSource
from dermoscopy.errors import AnalysisFailed
from models.colour import Colours, colours_of
from models.hair import crossing, find_hair, without_hair
from models.scale import Ruler, read_ruler

Float64 = npt.NDArray[np.float64]

_FOLD_SIZE = 256
_LEAST_SEEN = 0.5
_SMOOTHING = np.array([1.0, 4.0, 6.0, 4.0, 1.0]) / 16.0


@dataclass(frozen=True, slots=True)
class Region:
    """The lesion: its bounding box (top, left, bottom, right), the filled mask in the box, and its outer outline.

    ``outline`` is float64 [n, 2] of (row, column) pixel centres in the whole image.
    """

    box: tuple[int, int, int, int]
    mask: Mask
    outline: Float64


def largest_region(mask: Mask) -> Region | None:
    """Largest 8-connected region of ``mask`` [rows, columns], holes filled; ``None`` if the mask is empty.

    Of two regions of equal size the one found first in reading order stands.
    """
    binary = mask.astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    if count < 2:
        return None
    label = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    left, top, width, height = (int(stats[label, index]) for index in range(4))
    part = (labels[top : top + height, left : left + width] == label).astype(np.uint8)
    outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=len)
    filled = np.zeros_like(part)
    cv2.drawContours(filled, [outline], -1, 1, thickness=cv2.FILLED)
    points = outline[:, 0, ::-1].astype(np.float64) + np.array([top, left], dtype=np.float64)
    return Region((top, left, top + height, left + width), filled.astype(bool), points)


def measure(
    image: DermoscopicImage, region: Region, hair: Mask | None = None, ruler: Ruler | None = None
) -> LesionMeasurements:
    """Measure ``region`` of ``image``: sizes in source pixels, and in mm and mm² where a scale is known.

    ``hair`` [rows, columns] is where hair lies over the image, ``ruler`` what was read from one in it.
    """
    top, left, bottom, right = region.box
    spacing, source = image.spacing_mm, ScaleSource.NONE if image.spacing_mm is None else ScaleSource.DICOM
    if spacing is None and ruler is not None and image.aspect == 1.0:  # it is read along one direction
        spacing, source = ruler.spacing_mm, ScaleSource.RULER
    row_size, column_size = spacing if spacing is not None else (image.aspect, 1.0)
    area = float(np.count_nonzero(region.mask))
    skin_area = area * row_size * column_size
    skin_perimeter = outline_length(region.outline, (row_size, column_size))
    circularity = 4.0 * math.pi * skin_area / skin_perimeter**2
    centroid, covariance = _moments(region.mask, (row_size, column_size))
    minor, major = (float(value) for value in np.linalg.eigvalsh(covariance))
    colours = _colours(image, region, hair)
    return LesionMeasurements(
        area_px=area,
        area_percent=100.0 * area / (image.rows * image.columns),
        perimeter_px=outline_length(region.outline, (1.0, 1.0)),
        equivalent_diameter_px=2.0 * math.sqrt(area / math.pi),
        circularity=min(1.0, circularity),
        solidity=_solidity(region.outline),
        eccentricity=math.sqrt(max(0.0, 1.0 - minor / major)),
        asymmetry=fold_asymmetry(region.mask, centroid, covariance, (row_size, column_size)),
        border_irregularity=max(1.0, 1.0 / circularity),
        colour_count=colours.count,
        colour_variety=colours.variety,
        colour_fractions=colours.fractions,
        centroid=(top + centroid[0], left + centroid[1]),
        bounding_box=(top, left, bottom, right),
        area_mm2=None if spacing is None else skin_area,
        perimeter_mm=None if spacing is None else skin_perimeter,
        equivalent_diameter_mm=None if spacing is None else 2.0 * math.sqrt(skin_area / math.pi),
        scale_source=source,
    )


def measure_outline(image: DermoscopicImage, mask: Mask) -> LesionMeasurements:
    """Implements `dermoscopy.ports.MeasureOutline`: hair and ruler are looked for as in an analysis.

    Raises `AnalysisFailed` if ``mask`` is empty.
    """
    region = largest_region(mask)
    if region is None:
        raise AnalysisFailed("the outline holds no pixel: there is nothing to measure")
    ruler = None if image.spacing_mm is not None else read_ruler(image.pixels)
    return measure(image, region, find_hair(image.pixels), ruler)


def outline_length(outline: Float64, sizes: Sequence[float]) -> float:
    """Length of the outer border of a region, in the unit of the pixel ``sizes`` (row, column).

    The chain of border pixel centres overestimates slanted borders by up to 8 % and runs half a pixel inside the
    region. So the closed chain is smoothed with a five-point binomial filter, measured as a polygon, and moved out by
    half a pixel (Steiner: a parallel curve at distance d is longer by 2πd).
    """
    half_pixel = math.pi * math.sqrt(sizes[0] * sizes[1])
    if len(outline) < len(_SMOOTHING):
        closed = np.diff(np.vstack([outline, outline[:1]]), axis=0) * sizes
        return float(np.hypot(closed[:, 0], closed[:, 1]).sum()) + half_pixel
    reach = len(_SMOOTHING) // 2
    padded = np.vstack([outline[-reach:], outline, outline[:reach]])
    smooth = np.column_stack([np.convolve(padded[:, axis], _SMOOTHING, mode="valid") for axis in (0, 1)])
    steps = np.diff(np.vstack([smooth, smooth[:1]]), axis=0) * sizes
    return float(np.hypot(steps[:, 0], steps[:, 1]).sum()) + half_pixel


def fold_asymmetry(mask: Mask, centroid: tuple[float, float], covariance: Float64, sizes: tuple[float, float]) -> float:
    """Share of the lesion (0…1) without a counterpart after folding about a principal axis, mean of both axes.

    The mask is turned about its ``centroid`` (row, column) so that its principal axes lie on the grid, at 256 × 256
    samples and in true proportions (pixel ``sizes``), mirrored, and compared: 1 - |M ∩ M'| / |M|. This is the
    shape term of the ABCD rule made continuous (after Stoecker et al., Comput Med Imaging Graph 16:191, 1992).
    """
    angle = 0.5 * math.atan2(2.0 * covariance[0, 1], covariance[1, 1] - covariance[0, 0])
    rows, columns = np.nonzero(mask)
    down = (rows[[0, -1]] - centroid[0]) * sizes[0]
    reach = max(
        math.hypot(max(abs(down[0]), abs(down[1])), float(np.abs(columns - centroid[1]).max()) * sizes[1]),
        0.5 * max(sizes),
    )
    reach += max(sizes)
    middle = (_FOLD_SIZE - 1) / 2.0
    scale = reach / middle
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    # From canvas (u along the major axis, v across) to mask (column, row).
    to_source = np.array(
        [
            [cosine / sizes[1], -sine / sizes[1], 0.0],
            [sine / sizes[0], cosine / sizes[0], 0.0],
        ]
    )
    to_source[:, 2] = np.array([centroid[1], centroid[0]]) - to_source[:, :2] @ np.array([middle, middle])
    turned = cv2.warpAffine(
        mask.astype(np.float32),
        to_source,
        (_FOLD_SIZE, _FOLD_SIZE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )
    total = float(turned.sum(dtype=np.float64))
    if total <= 0.0:
        return 0.0
    shared = [float(np.minimum(turned, other).sum(dtype=np.float64)) for other in (turned[::-1], turned[:, ::-1])]
    return min(1.0, max(0.0, 1.0 - sum(shared) / (2.0 * total)))


def frame_contact(region: Region, rows: int, columns: int) -> float:
    """Share of the outline (0…1) that lies on the edge of the frame: how much of the lesion's border was cut off."""
    row, column = region.outline[:, 0], region.outline[:, 1]
    on_edge = (row == 0) | (row == rows - 1) | (column == 0) | (column == columns - 1)
    return float(on_edge.mean())


def _moments(mask: Mask, sizes: tuple[float, float]) -> tuple[tuple[float, float], Float64]:
    """Centroid (row, column) in the box's pixels and the covariance [2, 2] on the skin, each pixel a full rectangle."""
    values = cv2.moments(mask.astype(np.uint8), binaryImage=True)
    area = values["m00"]
    row, column = values["m01"] / area, values["m10"] / area
    return (row, column), np.array(
        [
            [(values["mu02"] / area + 1 / 12) * sizes[0] ** 2, values["mu11"] / area * sizes[0] * sizes[1]],
            [values["mu11"] / area * sizes[0] * sizes[1], (values["mu20"] / area + 1 / 12) * sizes[1] ** 2],
        ]
    )


def _solidity(outline: Float64) -> float:
    """Area inside the outline over the area of its convex hull (1 for a single pixel or a line)."""
    points = np.ascontiguousarray(outline, dtype=np.float32)
    hull = float(cv2.contourArea(cv2.convexHull(points)))
    return min(1.0, float(cv2.contourArea(points)) / hull) if hull > 0.0 else 1.0


def _colours(image: DermoscopicImage, region: Region, hair: Mask | None) -> Colours:
    """Colours of the region beside the skin around it. Hair that crosses it is left out, or, where that would leave
    less than half of the lesion, filled in from beside the hair.
    """
    place, mask = _with_margin(image, region)
    pixels: RGBPixels = image.pixels[place]
    if hair is None or not hair[place].any():
        return colours_of(pixels, mask)
    hidden = crossing(hair[place], mask)
    if np.count_nonzero(mask & hidden) > (1.0 - _LEAST_SEEN) * np.count_nonzero(mask):
        return colours_of(without_hair(pixels, hidden), mask)
    return colours_of(pixels, mask, hidden)


def _with_margin(image: DermoscopicImage, region: Region) -> tuple[tuple[slice, slice], Mask]:
    """Place and mask of the box widened by a quarter on each side, so that the skin around is seen as well."""
    top, left, bottom, right = region.box
    down, across = 8 + (bottom - top) // 4, 8 + (right - left) // 4
    above, before = max(0, top - down), max(0, left - across)
    below, after = min(image.rows, bottom + down), min(image.columns, right + across)
    mask = np.zeros((below - above, after - before), dtype=bool)
    mask[top - above : bottom - above, left - before : right - before] = region.mask
    return (slice(above, below), slice(before, after)), mask
