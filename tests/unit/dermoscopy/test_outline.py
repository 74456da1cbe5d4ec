from __future__ import annotations

import math

import numpy as np
import pytest

from dermoscopy.outline import MOST, outline_fault, outline_mask


def circle(corners: int, radius: float = 20.0, middle: tuple[float, float] = (32.0, 24.0)) -> list[tuple[float, float]]:
    steps = [2 * math.pi * n / corners for n in range(corners)]
    return [(middle[0] + radius * math.cos(a), middle[1] + radius * math.sin(a)) for a in steps]


def test_a_rectangle_holds_the_pixels_whose_centre_is_inside():
    mask = outline_mask([(2, 1), (5, 1), (5, 3), (2, 3)], 6, 8)
    expected = np.zeros((6, 8), bool)
    expected[1:3, 2:5] = True
    assert np.array_equal(mask, expected)


def test_half_a_pixel_decides():
    assert outline_mask([(0.4, 0), (1.6, 0), (1.6, 1), (0.4, 1)], 1, 3).tolist() == [[True, True, False]]
    assert outline_mask([(0.6, 0), (1.4, 0), (1.4, 1), (0.6, 1)], 1, 3).tolist() == [[False, False, False]]


def test_the_whole_image_can_be_outlined_and_direction_does_not_matter():
    corners = [(0, 0), (8, 0), (8, 6), (0, 6)]
    assert outline_mask(corners, 6, 8).all()
    assert outline_mask(corners[::-1], 6, 8).all()


def test_a_hollow_shape_keeps_its_bay():
    bay = [(0, 0), (6, 0), (6, 6), (4, 6), (4, 2), (2, 2), (2, 6), (0, 6)]
    assert outline_mask(bay, 6, 6)[4].tolist() == [True, True, False, False, True, True]


def test_a_round_outline_has_the_area_of_its_circle():
    assert outline_mask(circle(360), 48, 64).sum() == pytest.approx(math.pi * 400, rel=0.01)


@pytest.mark.parametrize("corners", [3, 12, MOST])
def test_good_outlines_have_no_fault(corners):
    assert outline_fault(circle(corners), 48, 64) == ""


@pytest.mark.parametrize(
    ("outline", "words"),
    [
        ([], "3 to 2000"),
        ([(1, 1), (2, 2)], "3 to 2000"),
        (circle(MOST + 1), "3 to 2000"),
        ([(1, 1), (9, 1), (math.nan, 5)], "not a number"),
        ([(1, 1), (64.1, 1), (5, 5)], "outside"),
        ([(1, 1), (9, -0.1), (5, 5)], "outside"),
        ([(1, 1), (9, 1), (9, 1), (5, 5)], "the same"),
        ([(1, 1), (9, 1), (5, 5), (1, 1)], "the same"),
        ([(1, 1), (9, 9), (9, 1), (1, 9)], "crosses"),
        ([(1, 1), (9, 1), (9, 9), (5, 1), (1, 9)], "crosses"),  # touches its own side
        ([(1, 1), (9, 1), (5, 1)], "crosses"),  # a line has no area
        ([(1, 1), (9, 1), (5, 1), (5, 9)], "crosses"),  # runs back over itself
        ([(1.1, 1.1), (1.3, 1.1), (1.3, 1.3)], "no pixel"),
    ],
)
def test_what_is_no_outline_is_refused_with_what_to_do(outline, words):
    assert words in outline_fault(outline, 48, 64)
