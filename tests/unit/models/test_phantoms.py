import numpy as np
import pytest

from dermoscopy.phantoms import KINDS, Outline, phantom


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_bytes(kind):
    one, other = phantom(5, kind=kind, hairs=4), phantom(5, kind=kind, hairs=4)
    assert one.pixels.tobytes() == other.pixels.tobytes()
    assert one.mask.tobytes() == other.mask.tobytes()
    assert one.geometry == other.geometry
    assert phantom(6, kind=kind).pixels.tobytes() != one.pixels.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_shape_type_and_mask(kind):
    made = phantom(0, kind=kind, rows=300, columns=420)
    assert made.pixels.shape == (300, 420, 3)
    assert made.pixels.dtype == np.uint8
    assert made.mask.shape == (300, 420)
    assert made.mask.dtype == bool
    assert made.mask.any() == (kind != "empty")
    edge = np.concatenate([made.mask[0], made.mask[-1], made.mask[:, 0], made.mask[:, -1]])
    assert not edge.any()


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_the_lesion_is_darker_or_redder_than_skin(kind):
    made = phantom(3, kind=kind)
    assert made.pixels[made.mask][:, 1].mean() < made.pixels[~made.mask][:, 1].mean() - 20


def test_a_circle_has_the_geometry_of_a_circle():
    found = Outline(centre=(100.0, 120.0), radius=50.0).geometry()
    assert found.area_px == pytest.approx(np.pi * 2500, rel=1e-6)
    assert found.perimeter_px == pytest.approx(np.pi * 100, rel=1e-6)
    assert found.equivalent_diameter_px == pytest.approx(100, rel=1e-6)
    assert found.centroid == pytest.approx((100, 120), abs=1e-6)
    assert found.asymmetry == pytest.approx(0.0, abs=1e-3)


def test_melanoma_like_is_less_symmetric_than_a_nevus():
    melanoma = [phantom(seed, kind="melanoma-like").geometry.asymmetry for seed in range(6)]
    nevus = [phantom(seed, kind="nevus").geometry.asymmetry for seed in range(6)]
    assert min(melanoma) > 2 * max(nevus)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="unknown"):
        phantom(0, kind="wart")
    with pytest.raises(ValueError, match="32"):
        phantom(0, rows=10)
