import json

import numpy as np
import pytest

from dermoscopy.errors import Misconfigured
from dermoscopy.phantoms import phantom
from models.evaluation.dataset import case_of
from models.evaluation.faithfulness import (
    Occlusion,
    highest,
    measure_faithfulness,
    occlude,
    sign_test,
    summary,
    wilcoxon,
)
from models.evaluation.predict import Predictor
from models.preprocess import Placement
from models.session import NetworkOutput

SIZE = 64


class Spot:
    """A network that calls melanoma by how dark one spot is; its map points at the spot, or wherever it is told."""

    def __init__(self, predictor, points_at):
        self.manifest = predictor.manifest
        self._real, self._points_at = predictor, points_at

    def network(self, pixels):
        dark = 1.0 - pixels[24:32, 24:32].mean() / 255.0
        logits = np.zeros((1, 7), np.float32)
        logits[0, 4] = 8.0 * dark - 2.0
        maps = np.zeros((1, 7, 8, 8), np.float32)
        maps[0, 4][self._points_at] = 1.0
        mask = np.full((1, 1, SIZE, SIZE), -1.0, np.float32)
        mask[0, 0, 8:48, 8:48] = 1.0
        return NetworkOutput(mask, logits, maps, np.zeros((1, 4), np.float32)), Placement.fit(*pixels.shape[:2], SIZE)

    def calibrated(self, logits):
        return self._real.calibrated(logits)

    def outline(self, logits, placement):
        return self._real.outline(logits, placement)


@pytest.fixture
def predictor(build_package):
    return Predictor(build_package(), threads=1)


def cases(number=12):
    pixels = np.full((SIZE, SIZE, 3), 220, np.uint8)
    pixels[24:32, 24:32] = 10
    return [case_of(f"i{n}", pixels, None, "mel", f"l{n}") for n in range(number)]


def test_a_true_map_beats_both_controls(predictor):
    found = measure_faithfulness(Spot(predictor, (3, 3)), cases(), share=0.05, draws=3, steps=4)
    assert found["images"] == 12 and found["no_evidence"] == 0
    for control in ("anywhere", "lesion"):
        row = found["controls"][control]
        assert row["images"] == 12
        assert row["beats"]["value"] > 0.9
        assert row["difference"]["value"] > 0.1 and row["difference"]["interval"][0] > 0.0
        assert row["wilcoxon"] < 0.01 and row["sign"] < 0.01
    assert found["curves"]["deletion"]["map"]["value"] < found["curves"]["deletion"]["random"]["value"]
    assert found["curves"]["insertion"]["map"]["value"] > found["curves"]["insertion"]["random"]["value"]
    assert found["by_class"]["mel"]["images"] == 12
    json.dumps(found, allow_nan=False)


def test_a_false_map_does_not(predictor):
    found = measure_faithfulness(Spot(predictor, (7, 7)), cases(24), share=0.05, draws=3, steps=4)
    for control in ("anywhere", "lesion"):
        assert found["controls"][control]["difference"]["value"] < 0.0
        assert found["controls"][control]["beats"]["value"] < 0.5
        assert found["controls"][control]["wilcoxon"] > 0.5 and found["controls"][control]["sign"] > 0.5
    assert found["curves"]["deletion"]["map"]["value"] > found["curves"]["deletion"]["random"]["value"]


def test_an_empty_map_is_counted_and_left_out(predictor):
    spot = Spot(predictor, (slice(0, 0), slice(0, 0)))
    found = measure_faithfulness(spot, cases(3))
    assert (found["images"], found["no_evidence"]) == (0, 3)
    assert found["top"] == {"value": None, "interval": None}
    json.dumps(found, allow_nan=False)


def test_a_lesion_without_room_has_no_such_control(predictor):
    found = measure_faithfulness(Spot(predictor, (slice(0, 8), slice(0, 8))), cases(2), share=0.3, draws=1)
    assert found["controls"]["lesion"]["images"] == 0
    assert found["controls"]["lesion"]["wilcoxon"] is None and found["controls"]["lesion"]["sign"] is None


def test_a_real_graph_on_drawn_lesions(predictor):
    drawn = [phantom(n, kind="melanoma-like", rows=150, columns=200) for n in range(4)]
    images = [case_of(f"i{n}", one.pixels, one.mask, "mel", f"l{n // 2}") for n, one in enumerate(drawn)]
    found = measure_faithfulness(predictor, images, draws=2)
    assert found["images"] + found["no_evidence"] == 2  # one image of each lesion
    assert found["curves"] is None
    assert found == measure_faithfulness(predictor, images, draws=2)
    assert measure_faithfulness(predictor, images, draws=1, images=1)["images"] <= 1
    other = measure_faithfulness(predictor, images, draws=2, fill="mean")
    assert other["top"] != found["top"]


def test_the_class_is_the_one_that_the_service_explains(predictor):
    """Warned of melanoma: melanoma, though another class is more probable."""
    pixels = phantom(1, kind="nevus", rows=128, columns=128).pixels
    probability, called = predictor.calibrated(predictor.network(pixels)[0].class_logits)
    finding = predictor.analyze(pixels)
    warned = finding.melanoma_risk >= predictor.manifest.thresholds.melanoma.probability
    checked = occlude(predictor, "a", pixels, 0.1, 1, "blur", 0, np.random.default_rng(0))
    expected = "mel" if warned else predictor.manifest.classes[called[0]].value
    assert checked.label == expected
    assert checked.probability == pytest.approx(probability[0, list(predictor.manifest.classes).index(expected)])


def test_highest_takes_exactly_so_many():
    values = np.array([[1.0, 5.0], [5.0, -np.inf]])
    assert highest(values, 1).tolist() == [[False, True], [False, False]]
    assert highest(values, 3).sum() == 3 and not highest(values, 3)[1, 1]
    assert highest(np.zeros((3, 3)), 4).sum() == 4


def test_means_are_over_the_images_that_have_the_control():
    found = [
        Occlusion("a", "mel", 0.9, 0.5, {"anywhere": 0.1, "lesion": 0.6}),
        Occlusion("b", "nv", 0.7, 0.3, {"anywhere": 0.1}),
    ]
    made = summary(found, 0)
    assert made["top"]["value"] == 0.4
    assert made["controls"]["lesion"]["images"] == 1
    assert made["controls"]["lesion"]["top"]["value"] == 0.5 and made["controls"]["lesion"]["random"]["value"] == 0.6
    assert made["controls"]["lesion"]["beats"]["value"] == 0.0
    assert made["controls"]["anywhere"]["difference"]["value"] == pytest.approx(0.3)
    assert made["by_class"]["nv"] == {"images": 1, "top": 0.3, "anywhere": 0.1, "lesion": None}


def test_wrong_arguments_say_what_is_allowed(predictor):
    with pytest.raises(Misconfigured, match=r"at most 0\.5, not 0\.9"):
        measure_faithfulness(predictor, [], share=0.9)
    with pytest.raises(Misconfigured, match="one random region"):
        measure_faithfulness(predictor, [], draws=0)


def test_sign_test_is_exact():
    assert sign_test(0, 0) is None
    assert sign_test(9, 1) == pytest.approx(11 / 1024, rel=1e-2)
    assert sign_test(5, 0) == pytest.approx(1 / 32, rel=1e-2)
    assert sign_test(0, 5) == 1.0


def test_wilcoxon_gives_the_known_values():
    """SciPy 1.17: stats.wilcoxon(…, "wilcox", correction=True, alternative="greater", method="asymptotic")."""
    plain = np.array([0.9, -0.3, 1.1, 0.4, -0.2, 0.7, 1.5, 0.1, -0.6, 0.8, 0.5, 1.2])
    tied = np.array([1.0, 2, -1, 3, 0, 2, -2, 1, 1, 4, -3, 2, 1, 0, 2])
    assert wilcoxon(plain) == pytest.approx(0.015492, rel=5e-3)
    assert wilcoxon(tied) == pytest.approx(0.055638, rel=5e-3)
    assert wilcoxon(np.ones(9)) is None
