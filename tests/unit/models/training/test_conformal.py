"""Prediction sets keep their promise class by class, on images that nobody saw."""

import numpy as np
import pytest

pytest.importorskip("mapie", reason="what training needs is not installed (requirements/train.txt)")

from models.manifest import PredictionSets
from models.training.calibration import LABELS
from models.training.configuration import CLASSES
from models.training.conformal import ALPHA, coverage, fit_sets
from models.uncertainty import Rule

FREQUENCIES = np.array([0.06, 0.08, 0.12, 0.05, 0.14, 0.50, 0.05])
DF, NV = CLASSES.index("df"), CLASSES.index("nv")


def world(count, seed, images=1):
    """Probabilities that answer for FREQUENCIES; ``images`` of each lesion, nearly alike."""
    random = np.random.default_rng(seed)
    target = np.repeat(random.choice(7, p=FREQUENCIES, size=count // images), images)
    noise = np.repeat(random.normal(0, 1, (count // images, 7)), images, axis=0) + random.normal(0, 0.1, (count, 7))
    scores = 1.5 * (noise + 1.5 * np.eye(7)[target]) + np.log(FREQUENCIES)
    values = np.exp(scores)
    return values / values.sum(axis=1, keepdims=True), target, [f"{seed}-{k // images}" for k in range(count)]


def rule(sets, largest=3):
    return Rule(LABELS, None, thresholds=sets.threshold, largest_set=largest)


def test_each_class_is_covered_on_images_that_nobody_saw():
    sets = fit_sets(*world(3000, 0, images=3), seed=0)
    probability, target, _ = world(20_000, 1)
    found = coverage(probability, target, rule(sets))
    for name, figures in found["per_class"].items():
        assert figures["coverage"] > 1 - ALPHA - 0.06, name
    assert found["all"]["coverage"] == pytest.approx(1 - ALPHA, abs=0.04)
    assert found["all"]["mean_set_size"] < 3.5


def test_one_threshold_for_all_would_leave_out_the_rare():
    """What the class-conditional quantile is for: the plain one covers df far less than it promises."""
    probability, target, _ = world(20_000, 2)
    true = probability[np.arange(len(target)), target]
    plain = probability >= np.quantile(true, ALPHA)
    held = plain[np.arange(len(target)), target]
    assert held[target == DF].mean() < 0.8
    sets = fit_sets(*world(20_000, 3), seed=0)
    assert coverage(probability, target, rule(sets))["per_class"]["df"]["coverage"] > 0.86


def test_the_threshold_is_the_order_statistic_of_split_conformal_prediction():
    """19 lesions, alpha 0.1: the 18th smallest score, so the 2nd smallest probability; that one is in the set."""
    probability = np.zeros((19, 7))
    probability[:, NV] = np.arange(1, 20) / 20
    sets = fit_sets(probability, np.full(19, NV), [str(k) for k in range(19)], seed=0)
    assert sets.threshold[NV] == pytest.approx(0.10)
    assert sets.threshold[NV] <= probability[1, NV]
    assert sets.lesions[NV] == 19


def test_a_class_with_too_few_lesions_cannot_be_excluded():
    """Nine lesions are the fewest that bear 90 %; images of one lesion do not add up."""
    probability = np.full((40, 7), 1 / 7)
    for count, excluded in ((8, False), (9, True)):
        sets = fit_sets(probability, np.full(40, DF), [str(k % count) for k in range(40)], seed=0)
        assert (sets.threshold[DF] > 0) == excluded
        assert sets.threshold[NV] == 0


def test_a_lesion_counts_once_however_many_images_it_has():
    probability = np.zeros((60, 7))
    probability[:, NV] = np.concatenate([np.linspace(0.5, 0.9, 30), np.full(30, 0.1)])
    lesions = [str(k) for k in range(30)] + ["photographed thirty times"] * 30
    grouped = fit_sets(probability, np.full(60, NV), lesions, seed=0)
    alone = fit_sets(probability, np.full(60, NV), [str(k) for k in range(60)], seed=0)
    assert alone.threshold[NV] == pytest.approx(0.1)
    assert grouped.threshold[NV] > 0.4


def test_the_same_seed_gives_the_same_thresholds():
    one, two = (fit_sets(*world(600, 5, images=3), seed=4) for _ in range(2))
    assert one.threshold.tolist() == two.threshold.tolist()


def test_the_document_is_what_a_manifest_reads():
    document = fit_sets(*world(600, 6), seed=0).document("validation")
    assert PredictionSets.model_validate(document).thresholds["mel"] == document["thresholds"]["mel"]
    assert document["fold"] == "validation"


def test_coverage_counts_by_class_and_by_source():
    thresholds = np.full(7, 0.3)
    probability = np.array([[0.0, 0, 0, 0, 0.35, 0.65, 0], [0.1, 0.1, 0.1, 0.1, 0.1, 0.4, 0.1]])
    target = np.array([CLASSES.index("mel"), DF])
    found = coverage(probability, target, Rule(LABELS, None, thresholds=thresholds, largest_set=1), ["here", "there"])
    assert found["all"]["coverage"] == 0.5
    assert found["all"]["mean_set_size"] == 1.5
    assert found["per_class"]["mel"]["coverage"] == 1.0
    assert found["per_class"]["df"]["coverage"] == 0.0
    assert found["per_class"]["df"]["coverage_95"][1] > 0.5
    assert found["per_class"]["vasc"]["coverage"] is None
    assert found["per_source"]["there"]["coverage"] == 0.0
    assert found["set_sizes"] == [1, 1, 0, 0, 0, 0, 0]
    assert found["abstained"] == 0.5
