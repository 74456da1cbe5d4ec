"""Figures on samples that can be worked out by hand."""

import numpy as np
import pytest

from models.evaluation.curves import operating_point, roc
from models.evaluation.figures import (
    Sample,
    calibration_error,
    confusion,
    macro_auc,
    macro_f1,
    main_figures,
    per_class,
    reliability,
)
from models.evaluation.resampling import lesion_weights

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
MEL, NV = CLASSES.index("mel"), CLASSES.index("nv")


def sample_of(melanoma, target, called=None, groups=None):
    """P(mel) as given, the rest on nevus."""
    probability = np.zeros((len(melanoma), 7))
    probability[:, MEL] = melanoma
    probability[:, NV] = 1.0 - np.asarray(melanoma)
    called = probability.argmax(axis=1) if called is None else np.asarray(called)
    ids = tuple(f"i{n}" for n in range(len(melanoma)))
    return Sample(ids, CLASSES, probability, np.asarray(target), called, tuple(groups or ids))


def once(sample):
    return np.ones((1, len(sample.target)))


@pytest.fixture
def ten():
    """Four melanomas and six nevi: one melanoma is called nevus, two nevi are called melanoma."""
    return sample_of(
        [0.9, 0.8, 0.7, 0.2, 0.6, 0.55, 0.4, 0.3, 0.1, 0.05],
        [MEL] * 4 + [NV] * 6,
    )


def test_the_confusion_matrix_has_true_rows(ten):
    counts = np.array(confusion(ten)["counts"])
    assert counts[MEL, MEL] == 3 and counts[MEL, NV] == 1
    assert counts[NV, MEL] == 2 and counts[NV, NV] == 4
    assert counts.sum() == 10


def test_main_figures_of_ten_images(ten):
    found = {name: figure["value"] for name, figure in main_figures(ten, once(ten)).items()}
    assert found["accuracy"] == pytest.approx(0.7)
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 4 / 6) / 2, abs=1e-4)
    assert found["macro_f1"] == pytest.approx((6 / 9 + 8 / 11) / 2, abs=1e-4)
    # of 24 pairs of a melanoma and a nevus, 0.2 loses to 0.6, 0.55, 0.4 and 0.3
    assert found["melanoma_auc"] == pytest.approx(20 / 24, abs=1e-4)
    misses = [0.1, 0.2, 0.3, 0.8, 0.6, 0.55, 0.4, 0.3, 0.1, 0.05]
    assert found["brier"] == pytest.approx(np.mean([2 * m * m for m in misses]), abs=1e-4)
    assert found["negative_log_likelihood"] == pytest.approx(-np.mean(np.log(1 - np.array(misses))), abs=1e-4)


def test_the_decision_rule_counts_not_the_highest_probability(ten):
    cautious = sample_of(ten.score(["mel"]), ten.target, called=[MEL] * 10)
    figures = main_figures(cautious, once(cautious))
    assert figures["accuracy"]["value"] == pytest.approx(0.4)
    assert figures["melanoma_auc"] == main_figures(ten, once(ten))["melanoma_auc"]


def test_calibration_error_is_the_gap_of_confidence_and_accuracy():
    sample = sample_of([0.2] * 10, [NV] * 5 + [MEL] * 5)
    assert calibration_error(sample, once(sample))[0] == pytest.approx(0.3)
    weighted = np.array([[1.0] * 5 + [0.0] * 5])
    assert calibration_error(sample, weighted)[0] == pytest.approx(0.2)


def test_figures_agree_with_a_library_that_everyone_knows():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed (requirements/train.txt)")
    random = np.random.default_rng(0)
    probability = random.dirichlet(np.ones(7) * 0.4, 400)
    target = np.array([random.choice(7, p=row) for row in probability])
    sample = Sample(tuple(map(str, range(400))), CLASSES, probability, target, probability.argmax(axis=1), ("g",) * 400)
    weights = once(sample)
    assert macro_f1(sample, weights)[0] == pytest.approx(metrics.f1_score(target, sample.called, average="macro"))
    expected = metrics.roc_auc_score(target, probability, multi_class="ovr", average="macro")
    assert macro_auc(sample, weights)[0] == pytest.approx(expected)


def test_a_class_that_does_not_occur_has_no_figures(ten):
    table = per_class(ten, once(ten))
    assert table["df"]["images"] == 0 and table["df"]["sensitivity"]["value"] is None
    assert table["mel"]["sensitivity"]["value"] == pytest.approx(0.75)
    assert table["mel"]["specificity"]["value"] == pytest.approx(4 / 6, abs=1e-4)
    assert table["mel"]["precision"]["value"] == pytest.approx(3 / 5)


def test_intervals_widen_where_images_are_of_one_lesion():
    melanoma, target = [0.9, 0.1] * 30, [MEL] * 60
    alone = sample_of(melanoma, target)
    grouped = sample_of(melanoma, target, groups=[f"{n // 12}{n % 2}" for n in range(60)])
    width = {}
    for name, sample in (("alone", alone), ("grouped", grouped)):
        low, high = main_figures(sample, lesion_weights(sample.groups, 500))["accuracy"]["interval"]
        assert low < 0.5 < high
        width[name] = high - low
    assert width["grouped"] > 1.5 * width["alone"]


def test_reliability_bins_hold_every_image_once(ten):
    bins = reliability(ten.score(["mel"]), ten.positive(["mel"]).astype(float))
    assert sum(one["images"] for one in bins) == 10
    top = bins[-1]
    assert top["low"] == 0.9 and top["stated"] == pytest.approx(0.9) and top["observed"] == 1.0


def test_points_are_read_from_the_curve(ten):
    found = roc(ten.score(["mel"]), ten.positive(["mel"]), once(ten))
    read = {(row["gives"], row["wanted"]): row["value"] for row in found["read"]}
    # all four melanomas need the threshold 0.2: then 0.6, 0.55, 0.4 and 0.3 are false alarms
    assert read["specificity", 0.90] == pytest.approx(2 / 6, abs=1e-4)
    # no false alarm may be among five nevi of six: above 0.55 only 0.6 is one
    assert read["sensitivity", 0.80] == pytest.approx(0.75)
    assert found["curve"][0] == [0.0, 0.0] and found["curve"][-1] == [1.0, 1.0]
    assert found["area"]["value"] == pytest.approx(20 / 24, abs=1e-4)


def test_the_curve_is_none_without_both_kinds():
    only = sample_of([0.3, 0.4], [MEL, MEL])
    assert roc(only.score(["mel"]), only.positive(["mel"]), once(only))["curve"] == []


def test_equal_scores_are_one_point_of_the_curve():
    even = sample_of([0.5] * 4, [MEL, NV, MEL, NV])
    assert roc(even.score(["mel"]), even.positive(["mel"]), once(even))["curve"] == [[0.0, 0.0], [1.0, 1.0]]


def test_an_operating_point_is_judged_where_it_was_set(ten):
    point = operating_point(ten, ["mel"], 0.5, {"sensitivity": 0.9, "specificity": None})
    assert point["sensitivity"]["value"] == pytest.approx(0.75)
    assert point["specificity"]["value"] == pytest.approx(4 / 6, abs=1e-4)
    assert point["chosen"] == {"sensitivity": 0.9}


def test_three_of_three_is_no_certainty():
    three = sample_of([0.9] * 3, [MEL] * 3)
    low, high = per_class(three, once(three))["mel"]["sensitivity"]["interval"]
    assert low == pytest.approx(0.4385, abs=1e-3) and high == 1.0  # Wilson's interval of 3 of 3
    twins = sample_of([0.9] * 3, [MEL] * 3, groups=["one"] * 3)
    assert per_class(twins, once(twins))["mel"]["sensitivity"]["interval"][0] == pytest.approx(0.2065, abs=1e-3)
