import math

import numpy as np
import pytest

from dermoscopy.domain import DermoscopicImage
from dermoscopy.phantoms import geometry_of, lesion_of
from models.evaluation import measurement
from models.evaluation.measurement import MEASURES, errors_of, shapes, spoiled, summary, write_tables
from models.evaluation.predict import Predictor
from models.measure import largest_region, measure


def placed(name, radius=90.0, angle=0.4):
    cosine, sine = math.cos(angle), math.sin(angle)
    return shapes()[name] @ np.array([[cosine, sine], [-sine, cosine]]) * radius + (224.6, 300.3)


def test_known_geometry_is_that_of_the_formula():
    disc, half = geometry_of(placed("disc")), geometry_of(placed("half-moon"))
    assert disc.area_px == pytest.approx(math.pi * 8100, rel=1e-4)
    assert disc.perimeter_px == pytest.approx(math.pi * 180, rel=1e-4)
    assert half.area_px == pytest.approx(math.pi * 4050, rel=1e-4)
    assert half.perimeter_px == pytest.approx((math.pi + 2) * 90, rel=1e-3)
    assert disc.asymmetry < 0.01
    assert geometry_of(placed("ellipse 2 : 1")).asymmetry < 0.01
    # half-disc folded about its short axis: the share of y > 2c - y, c the centroid at 4r / 3π
    c = 4 / (3 * math.pi)
    y = (np.arange(200_000) + 0.5) / 200_000
    width = np.sqrt(1 - y**2)
    mirrored = np.where((2 * c - y >= 0) & (2 * c - y <= 1), np.sqrt(np.clip(1 - (2 * c - y) ** 2, 0, 1)), 0.0)
    expected = (1 - np.minimum(width, mirrored).sum() / width.sum()) / 2
    assert half.asymmetry == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("name", list(shapes()))
def test_every_shape_is_measured_within_bounds(name):
    made = lesion_of(placed(name), 1)
    found = measure(DermoscopicImage(made.pixels, ""), largest_region(made.mask))
    errors = errors_of(found, made.geometry)
    bounds = dict(zip(MEASURES, (0.6, 0.3, 1.0, 0.03, 0.015, 0.15), strict=True))
    assert {key: value for key, value in errors.items() if abs(value) > bounds[key]} == {}


def test_a_polygon_without_area_is_refused():
    with pytest.raises(ValueError, match="no area"):
        geometry_of(np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))


def test_bias_and_limits():
    found = summary([1.0, 2.0, 3.0])
    assert found["bias"] == 2.0
    assert found["lower"] == pytest.approx(2.0 - 1.96)
    assert found["upper"] == pytest.approx(2.0 + 1.96)
    assert found["largest"] == 3.0


def test_every_condition_changes_the_picture():
    pixels = lesion_of(placed("disc"), 1).pixels
    assert spoiled(pixels, "clean", 1) is pixels
    for condition in measurement.CONDITIONS[1:]:
        assert (spoiled(pixels, condition, 1) != pixels).any()
        assert (spoiled(pixels, condition, 1) == spoiled(pixels, condition, 1)).all()
    with pytest.raises(ValueError, match="unknown"):
        spoiled(pixels, "fog", 1)


def test_the_service_is_measured_and_the_tables_written(build_package, tmp_path, monkeypatch):
    monkeypatch.setattr(measurement, "drawn", lambda *_: iter([("disc", lesion_of(placed("disc", 110.0), 1))] * 2))
    predictor = Predictor(build_package(), threads=1)
    service = measurement.by_service(predictor, ("clean", "blur"))
    assert service["clean"]["images"] == 2
    assert service["clean"]["missed"] == 0
    assert abs(service["clean"]["all"]["area, %"]["bias"]) < 12.0  # 64 pixels across: a coarse outline
    hair = dict.fromkeys(("recall", "precision", "colour_change_with_hair", "colour_change_hair_left_out"), 0.5)
    found = {
        "model": "tiny 1.0.0", "measures": {"600 × 450": measurement.by_mask()}, "service": service,
        "hair": {"dark": hair, "light": hair, "found_where_none_is": 0.001},
        "ruler": {"images": 2, "read": 0.5, "read_where_none_is": 0.0, "error_percent": None},
    }  # fmt: skip
    document = tmp_path / "analysis.md"
    document.write_text("before\n<!-- measured errors: begin -->\nold\n<!-- measured errors: end -->\nafter\n")
    write_tables(document, measurement.as_markdown(found))
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| clean (2 of 2 outlined) | area, % |" in text
    (tmp_path / "bare.md").write_text("nothing")
    with pytest.raises(ValueError, match="marks"):
        write_tables(tmp_path / "bare.md", "x")
