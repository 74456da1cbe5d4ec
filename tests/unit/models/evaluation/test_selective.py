import json
from itertools import permutations

import numpy as np
import pytest

from models.evaluation.figures import Sample
from models.evaluation.resampling import lesion_weights
from models.evaluation.selective import accepted, certainties, measure_selective, risk_coverage

CLASSES = ("mel", "nv", "vasc")


def sample(truth, called, melanoma=None, groups=None):
    """Images with a true and a called class; the called one gets 0.6, or ``melanoma`` its own probability."""
    probability = np.full((len(truth), 3), 0.2)
    probability[np.arange(len(truth)), called] = 0.6
    if melanoma is not None:
        probability = np.column_stack([melanoma, 1 - np.asarray(melanoma), np.zeros(len(truth))])
    names = tuple(f"i{n}" for n in range(len(truth)))
    return Sample(names, CLASSES, probability, np.array(truth), np.array(called), groups or names)


def once(number):
    return np.ones((1, number))


def test_scores_of_certainty():
    scores = certainties(np.array([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.6, 0.3, 0.1]]), np.array([1, 3, 3]))
    assert scores["confidence"] == pytest.approx([1.0, 1 / 3, 0.6])
    assert scores["margin"] == pytest.approx([1.0, 0.0, 0.3])
    assert scores["entropy"][:2] == pytest.approx([1.0, 0.0], abs=1e-12)
    assert list(np.argsort(-scores["set_size"])) == [0, 2, 1]
    assert "set_size" not in certainties(np.eye(3))


def test_area_of_a_hand_counted_curve():
    # Correct, correct, wrong, correct by falling certainty: risks 0, 0, 1/3, 1/4.
    images = sample([1, 1, 0, 1], [1, 1, 1, 1])
    found = risk_coverage(images, np.array([0.9, 0.8, 0.7, 0.6]), once(4), 0.5)
    assert found["area"]["value"] == pytest.approx((1 / 3 + 1 / 4) / 4, abs=1e-4)
    assert found["optimal"] == pytest.approx(1 / 16, abs=1e-4)
    assert found["excess"]["value"] == pytest.approx((1 / 3 + 1 / 4) / 4 - 1 / 16, abs=1e-4)
    assert found["random"] == 0.25
    assert found["curve"][-1] == [1.0, 0.25]


def test_ties_are_the_mean_over_every_order():
    wrong, score = np.array([0, 1, 0, 1]), np.array([0.9, 0.5, 0.5, 0.5])
    images = sample([1, 1, 1, 1], np.where(wrong, 0, 1))
    areas = []
    for order in permutations([1, 2, 3]):
        errors = wrong[[0, *order]]
        areas.append(np.mean(np.cumsum(errors) / np.arange(1, 5)))
    assert risk_coverage(images, score, once(4), 0.5)["area"]["value"] == pytest.approx(np.mean(areas), abs=1e-4)


def test_accepted_takes_the_most_certain_and_splits_ties():
    taken = accepted(np.array([0.1, 0.9, 0.5, 0.5]), once(4), 0.5)
    assert taken.tolist() == [[0.0, 1.0, 0.5, 0.5]]
    assert accepted(np.array([0.1, 0.9, 0.5, 0.4]), once(4), 0.6).sum() == 3  # 2.4 images are three


def test_the_table_counts_missed_melanomas_and_balances_classes():
    # Two melanomas are seen, one of them below the operating point; nevi are all right and more certain.
    images = sample([0, 0, 1, 1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1, 1, 1, 1], [0.7, 0.2, *[0.1] * 8])
    score = np.array([0.5, 0.4, *np.linspace(0.9, 0.6, 8)])
    rows = {row["coverage"]: row for row in risk_coverage(images, score, once(10), 0.3)["at"]}
    assert (rows[1.0]["images"], rows[1.0]["melanomas"], rows[1.0]["missed"], rows[1.0]["called_otherwise"]) == (
        10,
        2,
        1,
        1,
    )
    assert rows[1.0]["accuracy"]["value"] == 0.9
    assert rows[1.0]["balanced_risk"]["value"] == 0.25
    assert rows[0.9]["missed"] == 0 and rows[0.9]["melanomas"] == 1
    assert rows[0.9]["accepted"] == {"mel": 0.5, "nv": 1.0}
    assert rows[0.7]["accepted"]["mel"] == 0.0


def test_a_useful_score_beats_no_order_and_the_interval_holds_it():
    random = np.random.default_rng(5)
    confidence = random.uniform(0.4, 1.0, 400)
    truth = random.integers(0, 3, 400)
    called = np.where(random.random(400) < confidence, truth, (truth + 1) % 3)
    probability = np.full((400, 3), 0.0)
    probability[np.arange(400), called] = confidence
    probability[np.arange(400), (called + 1) % 3] = 1.0 - confidence
    groups = tuple(f"g{n // 2}" for n in range(400))
    images = Sample(tuple(map(str, range(400))), CLASSES, probability, truth, called, groups)
    found = measure_selective(images, lesion_weights(groups, 200, 1), 0.5, np.ones(400, np.int64))
    assert found["lesions"] == 200
    for name in ("confidence", "margin", "entropy", "set_size"):
        area = found["scores"][name]["area"]
        assert area["interval"][0] < area["value"] < area["interval"][1]
        assert found["scores"][name]["optimal"] < area["value"] < found["scores"][name]["random"]
    assert found["scores"][found["best"]]["area"]["value"] == min(f["area"]["value"] for f in found["scores"].values())
    assert len(found["scores"]["confidence"]["curve"]) == 100
    json.dumps(found, allow_nan=False)


def test_no_images_no_scores():
    empty = Sample((), CLASSES, np.zeros((0, 3)), np.zeros(0, np.int64), np.zeros(0, np.int64), ())
    found = measure_selective(empty, lesion_weights([], 5), 0.5)
    assert found["scores"] == {} and found["best"] is None and found["error"]["value"] is None
