"""Registration of drawn skin: turned, shifted and enlarged by known amounts; other skin does not register."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from dermoscopy.domain import DermoscopicImage, Mask, RGBPixels
from dermoscopy.phantoms import phantom
from models.register import REGISTERED, find_structures, overlap, register

DRAWN = phantom(3, kind="melanoma-like", rows=300, columns=400, vignette=False)


def moved(
    pixels: RGBPixels, mask: Mask, turn: float, zoom: float, shift: tuple[float, float]
) -> tuple[RGBPixels, Mask]:
    """The picture turned about its middle by ``turn`` degrees, enlarged and shifted by (column, row) pixels."""
    rows, columns = mask.shape
    matrix = cv2.getRotationMatrix2D((columns / 2, rows / 2), -turn, zoom)
    matrix[:, 2] += np.array(shift, dtype=np.float64)
    size = (columns, rows)
    picture = cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(picture, np.uint8), cv2.warpAffine(mask.astype(np.uint8), matrix, size) > 0


@pytest.mark.parametrize(("turn", "zoom", "shift"), [(0.0, 1.0, (0, 0)), (25.0, 1.0, (12, -8)), (-70.0, 1.25, (5, 9))])
def test_turn_zoom_and_shift_are_found(turn: float, zoom: float, shift: tuple[float, float]) -> None:
    pixels, mask = moved(DRAWN.pixels, DRAWN.mask, turn, zoom, shift)
    found = register(
        find_structures(DermoscopicImage(DRAWN.pixels, "")),
        find_structures(DermoscopicImage(pixels, "")),
        (DRAWN.mask, mask),
    )
    assert found is not None
    assert found.confirmed
    assert found.zoom == pytest.approx(zoom, rel=0.01)
    assert found.turn_degrees == pytest.approx(turn, abs=1.0)
    assert abs(math.log(found.zoom / zoom)) < max(4 * found.zoom_error, 1e-3)
    assert overlap(found, DRAWN.mask, mask) > 0.95


def test_pictures_of_other_sizes_and_shapes_of_pixels_give_the_zoom_in_their_own_pixel_widths() -> None:
    small = np.asarray(cv2.resize(DRAWN.pixels, (300, 225), interpolation=cv2.INTER_AREA), np.uint8)
    found = register(find_structures(DermoscopicImage(DRAWN.pixels, "")), find_structures(DermoscopicImage(small, "")))
    assert found is not None
    assert found.zoom == pytest.approx(0.75, rel=0.01)
    oblong = np.asarray(cv2.resize(DRAWN.pixels, (400, 150), interpolation=cv2.INTER_AREA), np.uint8)
    found = register(
        find_structures(DermoscopicImage(DRAWN.pixels, "")), find_structures(DermoscopicImage(oblong, "", aspect=2.0))
    )
    assert found is not None
    assert found.confirmed
    assert found.zoom == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_other_lesions_do_not_register(seed: int) -> None:
    other = phantom(seed, kind="melanoma-like", rows=300, columns=400, vignette=False)
    found = register(
        find_structures(DermoscopicImage(DRAWN.pixels, "")), find_structures(DermoscopicImage(other.pixels, ""))
    )
    assert found is None or found.points < REGISTERED


def test_the_rim_of_the_lens_is_no_structure() -> None:
    """Two pictures whose only common structure is the device's black rim."""
    plain = np.full((256, 256, 3), 180, np.uint8)
    rows, columns = np.mgrid[0:256, 0:256]
    plain[np.hypot(rows - 128, columns - 128) > 120] = 0
    assert len(find_structures(DermoscopicImage(plain, "")).places) < REGISTERED


def test_nothing_to_see_registers_nothing() -> None:
    empty = find_structures(DermoscopicImage(np.full((256, 256, 3), 128, np.uint8), ""))
    assert register(empty, empty) is None


def test_outlines_of_different_places_do_not_cover_each_other() -> None:
    structures = find_structures(DermoscopicImage(DRAWN.pixels, ""))
    found = register(structures, structures)
    assert found is not None
    one, other = np.zeros((300, 400), bool), np.zeros((300, 400), bool)
    one[20:60, 20:60] = True
    other[200:240, 300:340] = True
    assert overlap(found, one, other) == 0.0
    assert overlap(found, one, np.zeros_like(one)) == 0.0
