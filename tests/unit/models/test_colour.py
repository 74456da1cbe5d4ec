import cv2
import numpy as np
import pytest

from models.colour import REFERENCES, colours_of


def rgb(lab):
    value = cv2.cvtColor(np.array([[lab]], np.float32), cv2.COLOR_LAB2RGB)[0, 0]
    return np.clip(np.rint(value * 255), 0, 255).astype(np.uint8)


SKIN = np.array([205, 160, 143], np.uint8)


def picture(*names):
    """Lesion of equal vertical stripes, one per colour, on skin."""
    pixels = np.tile(SKIN, (120, 240, 1))
    mask = np.zeros((120, 240), dtype=bool)
    mask[20:100, 30:210] = True
    width = 180 // len(names)
    for index, name in enumerate(names):
        pixels[20:100, 30 + index * width : 30 + (index + 1) * width] = rgb(REFERENCES[name])
    return pixels, mask


@pytest.mark.parametrize("name", list(REFERENCES))
def test_each_reference_is_itself(name):
    found = colours_of(*picture(name))
    assert found.fractions[name] == pytest.approx(1.0)
    assert found.count == 1
    assert found.variety == 0.0


def test_all_six_alike_is_the_greatest_variety():
    found = colours_of(*picture(*REFERENCES))
    assert found.count == 6
    assert found.variety == pytest.approx(1.0, abs=1e-3)


def test_two_colours_share():
    found = colours_of(*picture("dark brown", "blue-grey"))
    assert found.fractions["dark brown"] == pytest.approx(0.5, abs=0.01)
    assert found.count == 2
    assert found.variety == pytest.approx(np.log(2) / np.log(6), abs=1e-3)


def test_skin_inside_the_mask_counts_as_none():
    pixels, mask = picture("dark brown", "light brown")
    pixels[20:100, 120:210] = SKIN
    found = colours_of(pixels, mask)
    assert found.fractions["light brown"] == 0.0
    assert sum(found.fractions.values()) == pytest.approx(0.5, abs=0.01)


def test_a_mask_without_skin_around_still_counts():
    pixels = np.tile(rgb(REFERENCES["black"]), (60, 60, 1))
    assert colours_of(pixels, np.ones((60, 60), dtype=bool)).fractions["black"] == 1.0


def test_sampling_a_large_lesion_changes_little():
    random = np.random.default_rng(0)
    names = list(REFERENCES)
    coarse = random.integers(0, 6, (25, 32))
    pixels = np.array([rgb(REFERENCES[name]) for name in names])[np.kron(coarse, np.ones((40, 40), int))]
    found = colours_of(pixels, np.ones(pixels.shape[:2], dtype=bool))
    for index, name in enumerate(names):
        assert found.fractions[name] == pytest.approx((coarse == index).mean(), abs=0.01)


def test_far_from_everything_is_none():
    pixels = np.tile(np.array([0, 255, 0], np.uint8), (60, 60, 1))
    found = colours_of(pixels, np.ones((60, 60), dtype=bool))
    assert found.count == 0
    assert found.variety == 0.0


def test_a_colour_cast_of_the_light_drops_out():
    pixels, mask = picture("dark brown", "light brown")
    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    plain = colours_of(pixels, mask)
    for cast in ((10, 0), (-9, -8), (0, -12)):
        lit = cv2.cvtColor((lab + np.array([0, *cast])).astype(np.float32), cv2.COLOR_LAB2RGB)
        found = colours_of(np.clip(np.rint(lit * 255), 0, 255).astype(np.uint8), mask)
        assert found.fractions == pytest.approx(plain.fractions, abs=0.02)
