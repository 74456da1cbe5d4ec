import math

import cv2
import numpy as np
import pytest

from dermoscopy.phantoms import phantom, with_ruler
from models.scale import read_ruler


@pytest.fixture(scope="module")
def skin():
    return phantom(1, kind="nevus", rows=600, columns=800, vignette=False).pixels


@pytest.mark.parametrize(
    ("per_mm", "start", "angle"),
    [
        (40.0, (560.0, 120.0), 0.0),
        (33.3, (540.0, 90.0), -0.25),
        (52.0, (40.0, 200.0), math.pi / 2),
        (45.0, (60.0, 90.0), 0.2),
    ],
)
def test_a_drawn_ruler_is_read(skin, per_mm, start, angle):
    found = read_ruler(with_ruler(skin, per_mm, start, angle))
    assert found is not None
    assert found.pixels_per_mm == pytest.approx(per_mm, rel=0.005)
    assert found.tick_mm == 0.1
    assert found.ticks >= 90
    assert found.relative_error < 0.002
    assert found.spacing_mm[0] == found.spacing_mm[1] == pytest.approx(1 / per_mm, rel=0.005)
    (row0, column0), (row1, column1) = found.line
    turned = abs(math.atan2(row1 - row0, column1 - column0) - angle) % math.pi
    assert min(turned, math.pi - turned) < 0.05


def test_a_larger_photograph_of_the_same_ruler_states_more_pixels(skin):
    ruled = with_ruler(skin, 40.0, (560.0, 120.0), 0.0)
    large = cv2.resize(ruled, None, fx=2.0, fy=2.0, interpolation=cv2.INTER_CUBIC)
    assert read_ruler(large).pixels_per_mm == pytest.approx(80.0, rel=0.01)


def comb(pixels, period, lengths, width=1):
    """A line of ticks of the given lengths, repeated."""
    ruled = pixels.copy()
    cv2.line(ruled, (60, 500), (740, 500), (40, 30, 30), width)
    for number in range(int(680 / period) + 1):
        column = round(60 + number * period)
        cv2.line(ruled, (column, 500), (column, 500 - lengths[number % len(lengths)]), (40, 30, 30), width)
    return ruled


def test_even_ticks_without_longer_ones_say_nothing(skin):
    assert read_ruler(comb(skin, 6, [8])) is None
    assert read_ruler(comb(skin, 6, [22, 8, 8, 8, 8, 14, 8, 8, 8, 8])) is not None


def test_every_second_tick_longer_is_no_metric_ruler(skin):
    assert read_ruler(comb(skin, 6, [16, 8])) is None


def test_millimetre_ticks_are_told_by_the_field_of_view(skin):
    found = read_ruler(comb(skin, 24, [44, 18, 18, 18, 18, 30, 18, 18, 18, 18]))
    assert found.tick_mm == 1.0
    assert found.pixels_per_mm == pytest.approx(24.0, rel=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_hairy_phantoms_have_no_scale(seed):
    assert read_ruler(phantom(seed, kind="melanoma-like", hairs=14).pixels) is None


def test_stripes_and_noise_have_no_scale():
    stripes = np.full((400, 500, 3), 180, np.uint8)
    stripes[::8] = 90
    assert read_ruler(stripes) is None
    assert read_ruler(np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)) is None


@pytest.mark.parametrize("side", [48, 64, 80, 96])
@pytest.mark.filterwarnings("error")
def test_a_small_picture_is_read_without_empty_parts(side):
    """Lines shorter than the parts that a strip is cut into once gave means of nothing."""
    assert read_ruler(phantom(0, kind="melanoma-like", rows=side, columns=side).pixels) is None
