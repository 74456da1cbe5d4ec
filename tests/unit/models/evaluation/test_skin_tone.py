import math

import cv2
import numpy as np
import pytest

from dermoscopy.phantoms import phantom
from models.evaluation.skin_tone import (
    CATEGORIES,
    LEAST_YELLOW,
    MOST_RED,
    Skin,
    balanced_tone_of,
    category_of,
    skin_around,
    skin_tone,
    tone_of,
    typology_angle,
)

ROWS, COLUMNS = 300, 400


def rgb(lab):
    value = cv2.cvtColor(np.array([[lab]], np.float32), cv2.COLOR_LAB2RGB)[0, 0]
    return np.clip(np.rint(value * 255), 0, 255).astype(np.uint8)


def picture(lab, rows=ROWS, columns=COLUMNS, radius=0.2, noise=2.0):
    """Skin of a known colour with a dark round lesion in the middle."""
    y, x = np.mgrid[0:rows, 0:columns]
    mask = np.hypot(y - rows / 2, x - columns / 2) < radius * rows
    pixels = np.tile(rgb(lab), (rows, columns, 1)).astype(float)
    pixels[mask] = (60, 40, 35)
    pixels += np.random.default_rng(1).normal(0, noise, pixels.shape)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), mask


SKINS = {  # L*, a*, b* well inside each category
    "very light": (76.0, 8.0, 13.0),
    "light": (67.0, 11.0, 16.0),
    "intermediate": (62.0, 12.0, 18.0),
    "tan": (56.0, 13.0, 18.0),
    "brown": (46.0, 12.0, 16.0),
    "dark": (36.0, 8.0, 10.0),
}


@pytest.mark.parametrize("name", list(CATEGORIES))
def test_skin_of_known_colour(name):
    lightness, _, yellowness = SKINS[name]
    expected = math.degrees(math.atan((lightness - 50.0) / yellowness))
    skin = skin_around(*picture(SKINS[name]))
    assert (skin.lightness, skin.redness, skin.yellowness) == pytest.approx(SKINS[name], abs=0.7)
    tone = tone_of(skin)
    assert tone.angle == pytest.approx(expected, abs=2.0)
    assert tone.category == name


def test_limits_belong_to_the_darker_side():
    assert [category_of(angle) for angle in (55.1, 55.0, 41.0, 28.0, 10.0, -30.0, -89.0)] == [
        "very light", "light", "intermediate", "tan", "brown", "dark", "dark",
    ]  # fmt: skip
    assert typology_angle(50.0, 12.0) == 0.0
    with pytest.raises(ValueError, match="positive b"):
        typology_angle(60.0, 0.0)


def test_hair_ruler_glare_marks_and_vignette_do_not_move_it():
    clean = skin_tone(*picture(SKINS["intermediate"]))
    pixels, mask = picture(SKINS["intermediate"])
    random = np.random.default_rng(4)
    for _ in range(14):
        ends = random.uniform(0, 1, (2, 2)) * (COLUMNS, ROWS)
        cv2.line(pixels, ends[0].astype(int).tolist(), ends[1].astype(int).tolist(), (30, 22, 20), 2, cv2.LINE_AA)
    for column in range(10, COLUMNS, 12):
        cv2.line(pixels, (column, 215), (column, 235), (20, 20, 20), 1)
    for _ in range(30):
        spot = (random.uniform(0, 1, 2) * (COLUMNS, ROWS)).astype(int).tolist()
        cv2.circle(pixels, spot, 4, (255, 255, 255), -1)
    cv2.rectangle(pixels, (250, 20), (330, 90), (90, 60, 160), -1)  # pen
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    pixels[np.hypot((y - ROWS / 2) / (ROWS / 2), (x - COLUMNS / 2) / (COLUMNS / 2)) > 1.15] = 0
    soiled = skin_tone(pixels, mask)
    assert soiled.angle == pytest.approx(clean.angle, abs=2.5)
    assert soiled.category == clean.category == "intermediate"


def test_hair_is_not_counted_as_skin():
    pixels, mask = picture(SKINS["light"])
    bare = skin_around(pixels, mask)
    for column in range(10, COLUMNS, 16):
        cv2.line(pixels, (column, 0), (column + 30, ROWS), (30, 22, 20), 2, cv2.LINE_AA)
    hairy = skin_around(pixels, mask)
    assert hairy.share < 0.9 * bare.share
    assert hairy.lightness == pytest.approx(bare.lightness, abs=0.7)


def test_what_lies_outside_the_lens_is_not_skin():
    pixels, mask = picture(SKINS["light"])
    y, x = np.mgrid[0:ROWS, 0:COLUMNS]
    pixels[np.hypot(y - ROWS / 2, x - COLUMNS / 2) > 0.32 * ROWS] = 0  # two thirds of the ring
    skin = skin_around(pixels, mask)
    assert (skin.lightness, skin.redness, skin.yellowness) == pytest.approx(SKINS["light"], abs=1.0)


def test_size_does_not_matter():
    small = skin_tone(*picture(SKINS["tan"], 150, 200))
    large = skin_tone(*picture(SKINS["tan"], 1200, 1600))
    assert small.angle == pytest.approx(large.angle, abs=1.5)


def test_too_little_skin_gives_none():
    pixels, mask = picture(SKINS["light"], radius=0.9)
    assert skin_around(pixels, mask) is None and skin_tone(pixels, mask) is None
    pixels, mask = picture(SKINS["light"])
    assert skin_around(pixels, np.zeros_like(mask)) is None
    assert skin_around(pixels, np.ones_like(mask)) is None
    pixels[~mask] = 255
    assert skin_around(pixels, mask) is None


@pytest.mark.parametrize("cast", [(64.0, 16.0, LEAST_YELLOW - 2.0), (64.0, MOST_RED + 3.0, 20.0)])
def test_a_cast_gives_no_angle_but_a_balanced_one(cast):
    pixels, mask = picture(cast)
    assert skin_tone(pixels, mask) is None
    skin = skin_around(pixels, mask)
    assert balanced_tone_of(skin).category == "light"
    assert balanced_tone_of(Skin(64.0, 16.0, -9.0, 0.3)) == balanced_tone_of(Skin(64.0, 12.0, 20.0, 0.3))
    assert balanced_tone_of(Skin(36.0, 16.0, -9.0, 0.3)).category == "dark"


def test_drawn_skin_is_read_next_to_every_lesion():
    for kind in ("nevus", "melanoma-like", "vascular"):
        drawn = phantom(3, kind=kind, hairs=6, vignette=False)
        around = drawn.pixels[~cv2.dilate(drawn.mask.astype(np.uint8), np.ones((25, 25))).astype(bool)]
        expected = cv2.cvtColor(np.median(around, axis=0)[None, None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0, 0]
        skin = skin_around(drawn.pixels, drawn.mask)
        assert (skin.lightness, skin.yellowness) == pytest.approx((expected[0], expected[2]), abs=2.0)
