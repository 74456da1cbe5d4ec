"""The class that is called, and everything else that turns logits into an answer."""

import numpy as np
import pytest

pytest.importorskip("mapie", reason="what training needs is not installed (requirements/train.txt)")

from sklearn.metrics import balanced_accuracy_score

from models.training.configuration import CLASSES
from models.training.decision import EXPONENTS, HeldOut, decision_weights, fit_answering, stated_point

FREQUENCIES = np.array([0.03, 0.05, 0.10, 0.02, 0.12, 0.66, 0.02])
NV = CLASSES.index("nv")


def fold(count, seed):
    random = np.random.default_rng(seed)
    target = random.choice(7, p=FREQUENCIES, size=count)
    logits = 1.2 * (random.normal(0, 1, (count, 7)) + 2.0 * np.eye(7)[target])
    return HeldOut(logits.astype(np.float32), target, [f"{seed}-{k // 2}" for k in range(count)])


GROUPS = {"melanoma": ("mel",), "malignancy": ("akiec", "bcc", "mel")}


@pytest.fixture(scope="module")
def fitted():
    return fit_answering(fold(500, 1), fold(400, 2), GROUPS, 0.9, seed=3)


def test_weights_help_the_rare_classes(fitted):
    fresh = fold(4000, 9)
    probability = fitted.rule.probabilities(fresh.logits)
    called = fitted.rule.called(probability)
    likeliest = probability.argmax(axis=1)
    assert balanced_accuracy_score(fresh.target, called) > balanced_accuracy_score(fresh.target, likeliest) + 0.02


def test_weights_are_one_power_of_the_frequencies(fitted):
    weights, exponent = fitted.decision["weights"], fitted.decision["exponent"]
    assert exponent in EXPONENTS
    assert weights["nv"] == 1.0 == min(weights.values())
    target = np.concatenate([fold(500, 1).target, fold(400, 2).target])
    counts = np.bincount(target, minlength=7)
    for k, name in enumerate(CLASSES):
        assert weights[name] == pytest.approx((counts[k] / counts[NV]) ** -exponent)


def test_probabilities_that_are_right_need_no_weights():
    target = np.repeat(np.arange(7), 10)
    found = decision_weights(np.eye(7)[target] * 0.9 + 0.1 / 7, target)
    assert found["balanced_accuracy"] == found["macro_f1"] == 1.0
    assert found["exponent"] == 0.0
    assert set(found["weights"].values()) == {1.0}


def test_an_absent_class_is_weighted_like_the_rarest():
    target = np.repeat([0, 4, 5], [5, 20, 100])
    found = decision_weights(np.full((125, 7), 1 / 7), target)
    assert found["weights"]["df"] == found["weights"]["akiec"]


def test_operating_points_are_stated_with_what_they_cost(fitted):
    for name in GROUPS:
        stated = stated_point(fitted.points[name])
        assert stated["sensitivity"] >= 0.9
        assert 0 < stated["probability"] < 1
        assert stated["fold"] == "validation and calibration"


def test_the_rule_is_what_the_manifest_says(fitted):
    assert fitted.rule.calibration.method == fitted.calibration["method"]
    assert fitted.rule.weights.tolist() == list(fitted.decision["weights"].values())
    assert fitted.rule.thresholds.tolist() == list(fitted.prediction_sets["thresholds"].values())
    assert fitted.rule.largest_set == fitted.prediction_sets["largest_set"]
