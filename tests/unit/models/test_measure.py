import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermoscopy.domain import DermoscopicImage, ScaleSource
from dermoscopy.phantoms import Outline, phantom
from models.measure import frame_contact, largest_region, measure
from models.scale import Ruler


def grid(rows, columns):
    return np.mgrid[0:rows, 0:columns].astype(np.float32)


def measured(mask, spacing=None, pixels=None):
    if pixels is None:
        pixels = np.full((*mask.shape, 3), 150, np.uint8)
    return measure(DermoscopicImage(pixels, "", spacing), largest_region(mask))


def ellipse(rows, columns, centre, a, b, angle=0.0):
    y, x = grid(rows, columns)
    u = (x - centre[1]) * math.cos(angle) + (y - centre[0]) * math.sin(angle)
    v = (y - centre[0]) * math.cos(angle) - (x - centre[1]) * math.sin(angle)
    return (u / a) ** 2 + (v / b) ** 2 <= 1


@pytest.mark.parametrize("radius", [8, 15, 40, 120])
def test_a_disc(radius):
    found = measured(ellipse(400, 400, (200.3, 199.6), radius, radius))
    assert found.area_px == pytest.approx(math.pi * radius**2, rel=0.02)
    assert found.equivalent_diameter_px == pytest.approx(2 * radius, rel=0.01)
    assert found.perimeter_px == pytest.approx(2 * math.pi * radius, rel=0.015)
    assert found.circularity > 0.97
    assert found.border_irregularity < 1.03
    assert found.solidity > 0.95
    assert found.asymmetry < 0.03
    assert found.eccentricity < 0.25  # sqrt(1 - minor/major): 0.2 is a difference of 2 % between the axes
    assert found.centroid == pytest.approx((200.3, 199.6), abs=0.1)


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 4, 1.3])
def test_an_ellipse_at_any_angle(angle):
    a, b = 110.0, 55.0
    found = measured(ellipse(400, 400, (200, 200), a, b, angle))
    h = ((a - b) / (a + b)) ** 2
    perimeter = math.pi * (a + b) * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))
    assert found.area_px == pytest.approx(math.pi * a * b, rel=0.005)
    assert found.perimeter_px == pytest.approx(perimeter, rel=0.01)
    assert found.eccentricity == pytest.approx(math.sqrt(1 - (b / a) ** 2), abs=0.005)
    assert found.asymmetry < 0.012


@pytest.mark.parametrize("angle", [0.0, 0.2, math.pi / 4])
def test_a_square_has_the_border_of_a_square(angle):
    y, x = grid(300, 300)
    u = (x - 150) * math.cos(angle) + (y - 150) * math.sin(angle)
    v = (y - 150) * math.cos(angle) - (x - 150) * math.sin(angle)
    found = measured(np.maximum(np.abs(u), np.abs(v)) <= 60)
    assert found.perimeter_px == pytest.approx(480, rel=0.015)
    assert found.circularity == pytest.approx(math.pi / 4, rel=0.03)


def test_a_half_disc_is_symmetric_about_one_axis_only():
    y, x = grid(400, 400)
    mask = (np.hypot(y - 200, x - 200) <= 100) & (y <= 200)
    found = measured(mask)
    # About the short axis it folds exactly; about the long axis through the centroid it cannot.
    assert 0.05 < found.asymmetry < 0.2


def test_a_crescent_is_neither_solid_nor_round():
    y, x = grid(400, 400)
    mask = (np.hypot(y - 200, x - 200) <= 100) & (np.hypot(y - 200, x - 260) > 80)
    found = measured(mask)
    assert found.solidity < 0.85
    assert found.border_irregularity > 1.5
    assert found.circularity < 0.7


@pytest.mark.parametrize("kind", ["nevus", "melanoma-like", "keratosis", "vascular"])
@pytest.mark.parametrize("seed", range(4))
def test_phantoms_of_known_geometry(kind, seed):
    made = phantom(seed, kind=kind)
    found, truth = measured(made.mask, pixels=made.pixels), made.geometry
    assert found.area_px == pytest.approx(truth.area_px, rel=0.002)
    assert found.equivalent_diameter_px == pytest.approx(truth.equivalent_diameter_px, rel=0.001)
    assert found.perimeter_px == pytest.approx(truth.perimeter_px, rel=0.006)
    assert found.asymmetry == pytest.approx(truth.asymmetry, abs=0.003)
    assert found.centroid == pytest.approx(truth.centroid, abs=0.1)
    assert found.area_percent == pytest.approx(100 * found.area_px / made.mask.size)


ROUND_OR_LONG = st.floats(1.0, 2.0)


def outlines(elongation=ROUND_OR_LONG):
    harmonic = st.tuples(st.integers(1, 5), st.floats(0.0, 0.08), st.floats(0.0, 6.28))
    return st.builds(
        Outline,
        centre=st.tuples(st.floats(95, 105), st.floats(95, 105)),
        radius=st.floats(20, 45),
        elongation=elongation,
        angle=st.floats(0.0, 3.14),
        harmonics=st.lists(harmonic, max_size=4).map(tuple),
    )


SHAPE = (
    "area_px", "area_percent", "perimeter_px", "equivalent_diameter_px", "circularity", "solidity", "eccentricity",
    "border_irregularity", "asymmetry",
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(outlines(), st.integers(0, 60), st.integers(0, 60))
def test_moving_the_lesion_changes_only_where_it_is(outline, down, across):
    mask = np.zeros((260, 260), dtype=bool)
    mask[:200, :200] = outline.level(*grid(200, 200)) <= 0
    moved = np.roll(mask, (down, across), axis=(0, 1))
    before, after = measured(mask), measured(moved)
    for name in SHAPE:
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-6, abs=1e-6), name
    assert after.centroid == pytest.approx((before.centroid[0] + down, before.centroid[1] + across), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(outlines(), st.integers(1, 3), st.booleans())
def test_a_quarter_turn_or_a_mirror_changes_no_shape(outline, turns, mirror):
    random = np.random.default_rng(1)
    mask = outline.level(*grid(200, 200)) <= 0
    pixels = random.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    turned, turned_pixels = np.rot90(mask, turns), np.rot90(pixels, turns)
    if mirror:
        turned, turned_pixels = turned[::-1], turned_pixels[::-1]
    before = measured(mask, pixels=pixels)
    after = measured(np.ascontiguousarray(turned), pixels=np.ascontiguousarray(turned_pixels))
    for name in SHAPE:
        tolerance = 0.004 if name == "asymmetry" else 1e-5
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-5, abs=tolerance), name
    assert after.colour_fractions == pytest.approx(before.colour_fractions, abs=0.01)


@settings(max_examples=30, deadline=None)
@given(outlines(st.floats(1.4, 2.0)), st.floats(0.02, 0.2), st.floats(0.5, 2.0))
def test_pixels_that_are_not_square_do_not_change_the_skin(outline, spacing, ratio):
    """The same lesion sampled with other row and column spacings measures the same in mm and in shape.

    Elongated lesions only: a round one has no principal axes to speak of, so sampling turns them.
    """
    square = measured(outline.level(*grid(200, 200)) <= 0, (spacing, spacing))
    rows, columns = round(200 / ratio), 200
    y, x = grid(rows, columns)
    inside = outline.level((y + 0.5) * np.float32(200 / rows) - 0.5, x) <= 0
    stretched = measured(inside, (spacing * 200 / rows, spacing))
    assert stretched.area_mm2 == pytest.approx(square.area_mm2, rel=0.02)
    assert stretched.equivalent_diameter_mm == pytest.approx(square.equivalent_diameter_mm, rel=0.01)
    assert stretched.perimeter_mm == pytest.approx(square.perimeter_mm, rel=0.04)
    assert stretched.asymmetry == pytest.approx(square.asymmetry, abs=0.03)
    assert stretched.eccentricity == pytest.approx(square.eccentricity, abs=0.03)


def test_millimetres_only_with_a_scale():
    mask = ellipse(200, 200, (100, 100), 40, 40)
    without, with_scale = measured(mask), measured(mask, (0.1, 0.1))
    assert (without.area_mm2, without.perimeter_mm, without.equivalent_diameter_mm) == (None, None, None)
    assert with_scale.area_mm2 == pytest.approx(without.area_px * 0.01)
    assert with_scale.perimeter_mm == pytest.approx(without.perimeter_px * 0.1)
    assert with_scale.equivalent_diameter_mm == pytest.approx(without.equivalent_diameter_px * 0.1)
    shape = ("circularity", "asymmetry", "eccentricity", "border_irregularity")
    for name in shape:
        assert getattr(with_scale, name) == pytest.approx(getattr(without, name))


def test_only_the_largest_region_counts_and_its_holes_are_filled():
    big, small = ellipse(300, 300, (110, 110), 60, 60), ellipse(300, 300, (250, 250), 20, 20)
    hole = ellipse(300, 300, (110, 110), 15, 15)
    assert dataclasses.asdict(measured((big & ~hole) | small)) == dataclasses.asdict(measured(big))


def test_no_lesion_no_region():
    assert largest_region(np.zeros((50, 60), dtype=bool)) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 1)])
def test_tiny_regions_measure_without_breaking(shape):
    mask = np.zeros((40, 50), dtype=bool)
    mask[10 : 10 + shape[0], 20 : 20 + shape[1]] = True
    found = measured(mask)
    assert found.area_px == shape[0] * shape[1]
    for name, value in dataclasses.asdict(found).items():
        if isinstance(value, float):
            assert math.isfinite(value), name
    assert 0 <= found.circularity <= 1
    assert 0 <= found.asymmetry <= 1
    assert 0 <= found.eccentricity <= 1
    assert found.border_irregularity >= 1
    assert found.bounding_box == (10, 20, 10 + shape[0], 20 + shape[1])


def test_a_full_frame_measures_too():
    found = measured(np.ones((45, 60), dtype=bool))
    assert found.area_percent == 100.0
    assert found.asymmetry < 0.01
    assert found.perimeter_px == pytest.approx(210, rel=0.03)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_any_mask_stays_within_bounds(seed):
    random = np.random.default_rng(seed)
    mask = random.random((60, 70)) < random.uniform(0.05, 0.95)
    found = measured(mask, pixels=random.integers(0, 256, (60, 70, 3), dtype=np.uint8))
    assert 0 < found.circularity <= 1
    assert 0 <= found.solidity <= 1
    assert 0 <= found.asymmetry <= 1
    assert found.border_irregularity >= 1
    assert 0 <= found.colour_variety <= 1
    assert 0 <= sum(found.colour_fractions.values()) <= 1 + 1e-9


def test_contact_with_the_frame():
    inside = largest_region(ellipse(200, 200, (100, 100), 40, 40))
    cut = largest_region(ellipse(200, 200, (100, 0), 60, 60))
    full = largest_region(np.ones((200, 200), dtype=bool))
    assert frame_contact(inside, 200, 200) == 0.0
    assert 0.2 < frame_contact(cut, 200, 200) < 0.6
    assert frame_contact(full, 200, 200) == 1.0


def test_a_scale_in_the_header_comes_before_a_ruler():
    mask = ellipse(300, 300, (150.2, 149.7), 60, 60)
    image = DermoscopicImage(np.full((300, 300, 3), 150, np.uint8), "")
    ruler = Ruler(30.0, 0.001, 3.0, 0.1, 100, ((0.0, 0.0), (0.0, 299.0)))
    read = measure(image, largest_region(mask), None, ruler)
    assert read.scale_source is ScaleSource.RULER
    assert read.equivalent_diameter_mm == pytest.approx(4.0, rel=0.01)
    assert read.area_mm2 == pytest.approx(math.pi * 4, rel=0.01)
    stated = measure(dataclasses.replace(image, spacing_mm=(0.05, 0.05)), largest_region(mask), None, ruler)
    assert stated.scale_source is ScaleSource.DICOM
    assert stated.equivalent_diameter_mm == pytest.approx(6.0, rel=0.01)
    unknown = measure(image, largest_region(mask))
    assert unknown.scale_source is ScaleSource.NONE
    assert unknown.area_mm2 is None


def test_hair_is_left_out_of_the_colours():
    mask = ellipse(300, 300, (150.2, 149.7), 80, 80)
    pixels = np.full((300, 300, 3), (215, 170, 145), np.uint8)
    pixels[mask] = (150, 98, 66)
    hair = np.zeros(mask.shape, bool)
    hair[:, 60:240:12] = hair[:, 61:240:12] = True
    hairy = pixels.copy()
    hairy[hair] = (12, 10, 10)
    clean = measured(mask, pixels=pixels).colour_fractions
    image = DermoscopicImage(hairy, "")
    left_in = measure(image, largest_region(mask)).colour_fractions
    left_out = measure(image, largest_region(mask), hair).colour_fractions
    assert left_in["black"] > 0.1
    assert left_out["black"] == 0.0
    assert left_out == pytest.approx(clean, abs=0.02)


def test_a_lesion_mostly_under_hair_is_filled_in():
    mask = ellipse(300, 300, (150.2, 149.7), 80, 80)
    pixels = np.full((300, 300, 3), (215, 170, 145), np.uint8)
    pixels[mask] = (150, 98, 66)
    hair = np.zeros(mask.shape, bool)
    for offset in range(3):
        hair[:, 40 + offset : 260 : 5] = True
    hairy = pixels.copy()
    hairy[hair] = (12, 10, 10)
    found = measure(DermoscopicImage(hairy, ""), largest_region(mask), hair).colour_fractions
    assert found["black"] < 0.05
    assert found["light brown"] > 0.8


def test_without_a_scale_shape_is_measured_on_pixels_of_the_stated_shape():
    """A circle seen through pixels twice as high as wide is a flat ellipse in pixels, and still a circle."""
    mask = ellipse(200, 300, (100.2, 149.7), 80, 40)
    image = DermoscopicImage(np.full((200, 300, 3), 150, np.uint8), "", aspect=2.0)
    seen = measure(image, largest_region(mask))
    assert seen.eccentricity < 0.1
    assert seen.circularity > 0.95
    assert seen.area_mm2 is None
    assert measure(dataclasses.replace(image, aspect=1.0), largest_region(mask)).eccentricity > 0.8
