import cv2
import numpy as np
import pytest

from dermoscopy.phantoms import phantom, with_hair
from models.hair import crossing, find_hair, without_hair


@pytest.fixture(scope="module")
def skin():
    return phantom(2, kind="nevus", rows=450, columns=600, vignette=False)


@pytest.mark.parametrize("light", [False, True])
def test_most_of_drawn_hair_is_found_and_little_else(skin, light):
    pixels, hair = with_hair(skin.pixels, 10, 4, light=light)
    found = find_hair(pixels)
    near = cv2.dilate(hair.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    assert found.shape == hair.shape
    assert found[hair].mean() > 0.7
    assert near[found].mean() > 0.75


def test_no_hair_is_found_where_none_is(skin):
    assert find_hair(skin.pixels).mean() < 0.004


def test_dots_are_no_hair():
    pixels = np.full((300, 400, 3), (205, 160, 140), np.uint8)
    for row in range(20, 300, 24):
        for column in range(20, 400, 24):
            cv2.circle(pixels, (column, row), 4, (70, 45, 40), -1)
    assert not find_hair(pixels).any()


def test_a_large_image_is_answered_at_its_own_size(skin):
    pixels, _ = with_hair(skin.pixels, 10, 4)
    large = cv2.resize(pixels, (1200, 900), interpolation=cv2.INTER_CUBIC)
    found = find_hair(large)
    assert found.shape == (900, 1200)
    assert 0.5 < found.mean() / find_hair(pixels).mean() < 2.0


def test_what_lies_wholly_inside_the_lesion_is_the_lesion():
    lesion = np.zeros((60, 60), bool)
    lesion[10:50, 10:50] = True
    hair = np.zeros_like(lesion)
    hair[30, 15:45] = True
    hair[20, 5:55] = True
    kept = crossing(hair, lesion)
    assert kept[20, 5:55].all()
    assert not kept[30].any()


def test_inpainting_changes_nothing_beside_the_hair(skin):
    pixels, hair = with_hair(skin.pixels, 6, 4)
    hidden = cv2.dilate(hair.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    filled = without_hair(pixels, hidden)
    assert (filled[~hidden] == pixels[~hidden]).all()
    before = np.abs(pixels[hair].astype(int) - skin.pixels[hair]).mean()
    assert np.abs(filled[hair].astype(int) - skin.pixels[hair]).mean() < before / 4
