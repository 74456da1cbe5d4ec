import json

import numpy as np
import pytest

from models.evaluation.resampling import (
    area_under_curve,
    balanced_accuracy,
    effective_number,
    estimate,
    lesion_weights,
    mean,
    rounded,
    wilson,
)


def test_images_of_a_lesion_are_drawn_together():
    weights = lesion_weights(["a", "b", "a", "c"], 50, 3)
    assert weights.shape == (51, 4)
    assert weights[0].tolist() == [1, 1, 1, 1]
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert (weights[1:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert np.array_equal(weights, lesion_weights(["a", "b", "a", "c"], 50, 3))
    assert not np.array_equal(weights, lesion_weights(["a", "b", "a", "c"], 50, 4))
    assert lesion_weights([], 5).shape == (6, 0)


def test_repeated_images_make_the_interval_wider():
    random = np.random.default_rng(1)
    values = np.repeat((random.random(60) < 0.7).astype(float), 4)
    alone = estimate(mean(values, lesion_weights([str(n) for n in range(240)], 400)))
    together = estimate(mean(values, lesion_weights([str(n // 4) for n in range(240)], 400)))
    width = [one["interval"][1] - one["interval"][0] for one in (alone, together)]
    assert alone["value"] == together["value"]
    assert width[1] > 1.6 * width[0]  # twice as wide with four copies of everything


def test_estimates_are_json_and_say_none():
    assert estimate(np.array([0.5, 0.4, 0.6]))["value"] == 0.5
    assert estimate(np.full(5, np.nan)) == {"value": None, "interval": None}
    assert estimate(np.array([0.5, np.nan, np.nan, np.nan, 0.5]))["interval"] is None
    assert str(rounded(-0.00001)) == "0.0"
    json.dumps(estimate(np.array([1.0, np.inf, 1.0, 1.0])), allow_nan=False)


def test_weighted_figures_equal_those_of_repeated_images():
    random = np.random.default_rng(2)
    score, positive = np.round(random.random(40), 1), random.random(40) < 0.4  # rounded: ties
    counts = random.integers(0, 4, 40)
    copies = np.repeat(np.arange(40), counts)
    weights = np.vstack([np.ones(40), counts])
    area = area_under_curve(score, positive, weights)
    pairs = [
        (score[a] > score[b]) + 0.5 * (score[a] == score[b])
        for a in copies[positive[copies]]
        for b in copies[~positive[copies]]
    ]
    assert area[1] == pytest.approx(np.mean(pairs))
    target = random.integers(0, 3, 40)
    right = (random.random(40) < 0.6).astype(float)
    expected = np.mean([right[copies][target[copies] == k].mean() for k in range(3)])
    assert balanced_accuracy(right, target, weights)[1] == pytest.approx(expected)
    assert mean(right, weights)[1] == pytest.approx(right[copies].mean())


def test_figures_without_a_side_do_not_exist():
    ones = np.ones((2, 3))
    assert np.isnan(area_under_curve(np.arange(3.0), np.ones(3, bool), ones)).all()
    assert np.isnan(balanced_accuracy(np.zeros(0), np.zeros(0, np.int64), np.ones((2, 0)))).all()
    assert np.isnan(mean(np.zeros(0), np.ones((2, 0)))).all()
    # A draw without the second class is averaged over the first.
    drawn = balanced_accuracy(np.array([1.0, 0.0]), np.array([0, 1]), np.array([[1.0, 1.0], [2.0, 0.0]]))
    assert drawn.tolist() == [0.5, 1.0]


def test_wilson_as_published():
    # Newcombe, Stat Med 17:857 (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert wilson(1.0, 20)[0] < 0.9
    assert wilson(0.5, 0) == (0.0, 1.0)


def test_effective_number():
    assert effective_number(["a", "b", "c"]) == 3.0
    assert effective_number(["a", "a", "b", "b"]) == 2.0
    assert effective_number(["a", "a", "a", "b"]) == pytest.approx(1.6)
    assert effective_number([]) == 0.0
