"""Three ways to calibrate, the choice between them, and operating points with a margin."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="what training needs is not installed (requirements/train.txt)")

from models.manifest import TemperatureCalibration, VectorCalibration
from models.training.calibration import (
    CANDIDATES,
    LABELS,
    Candidate,
    calibration_document,
    choose_calibration,
    expected_calibration_error,
    fit,
    lesion_draws,
    lesion_parts,
    negative_log_likelihood,
    operating_point,
    safe_operating_point,
)
from models.training.configuration import CLASSES
from models.uncertainty import probabilities

NV, MEL, DF = CLASSES.index("nv"), CLASSES.index("mel"), CLASSES.index("df")
FREQUENCIES = np.array([0.03, 0.05, 0.10, 0.01, 0.12, 0.67, 0.02])


def shifted_world(count, seed):
    """Logits of a network that takes all classes for equally frequent, and images that come with FREQUENCIES."""
    random = np.random.default_rng(seed)
    target = random.choice(7, p=FREQUENCIES, size=count)
    logits = random.normal(0, 1.0, (count, 7))
    logits[np.arange(count), target] += 2.0  # log-odds of a shift by 2 between unit normals: 2 × logit is honest
    return (2.0 * logits).astype(np.float32), target


def lesions_of(count, size=2):
    return [f"lesion {k // size}" for k in range(count)]


def test_a_vector_learns_the_frequencies_that_a_temperature_cannot():
    logits, target = shifted_world(3000, 0)
    fresh, truth = shifted_world(20_000, 1)
    vector = fit(Candidate("vector", 1.0), logits, target)
    found = probabilities(fresh, vector, LABELS)
    odds = np.array([vector.bias[label] for label in LABELS])
    np.testing.assert_allclose(odds - odds[NV], np.log(FREQUENCIES / FREQUENCIES[NV]), atol=0.5)
    assert expected_calibration_error(found, truth) < 0.02
    plain = probabilities(fresh, fit(CANDIDATES[0], logits, target), LABELS)
    assert negative_log_likelihood(found, truth) < negative_log_likelihood(plain, truth) - 0.2
    np.testing.assert_allclose(list(vector.frequencies.values()), np.bincount(target, minlength=7) / len(target))


def test_a_matrix_undoes_what_a_vector_cannot():
    """Evidence for df and mel is swapped; only off-diagonal weights can put that right."""
    logits, target = shifted_world(3000, 0)
    logits[:, [DF, MEL]] = logits[:, [MEL, DF]]
    fresh, truth = shifted_world(3000, 1)
    fresh[:, [DF, MEL]] = fresh[:, [MEL, DF]]
    loss = {
        method: negative_log_likelihood(
            probabilities(fresh, fit(Candidate(method, strength), logits, target), LABELS), truth
        )
        for method, strength in (("vector", 0.01), ("dirichlet", 0.01))
    }
    assert loss["dirichlet"] < loss["vector"] - 0.05


def test_a_strong_pull_makes_each_method_the_next_simpler_one():
    logits, target = shifted_world(800, 3)
    scales = list(fit(Candidate("vector", 1e6), logits, target).scale.values())
    assert np.ptp(scales) < 1e-3
    weights = np.array(
        [list(row.values()) for row in fit(Candidate("dirichlet", 1e6), logits, target).weights.values()]
    )
    assert np.abs(weights - np.diag(np.diag(weights))).max() < 1e-2


def test_the_fit_is_at_least_as_good_as_no_fit_and_its_slope_is_nought():
    logits, target = shifted_world(500, 4)
    for candidate in CANDIDATES[1:]:
        fitted = fit(candidate, logits, target)
        best = negative_log_likelihood(probabilities(logits, fitted, LABELS), target)
        for label in LABELS:
            for step in (-0.02, 0.02):
                moved = fitted.model_copy(update={"bias": {**fitted.bias, label: fitted.bias[label] + step}})
                loss = negative_log_likelihood(probabilities(logits, moved, LABELS), target)
                assert loss > best - 1e-3 * abs(step), (candidate.name, label)


def test_the_choice_is_the_least_loss_on_left_out_lesions_and_repeats():
    logits, target = shifted_world(600, 5)
    choice = choose_calibration(logits, target, lesions_of(600), seed=1)
    losses = {name: figures["negative_log_likelihood"] for name, figures in choice.compared.items()}
    assert set(losses) == {candidate.name for candidate in CANDIDATES}
    assert min(losses, key=losses.get).split()[0] == choice.calibration.method != "temperature"
    np.testing.assert_allclose(choice.left_out.sum(axis=1), 1)
    refitted = probabilities(logits, choice.calibration, LABELS)
    assert not np.allclose(refitted, choice.left_out, atol=1e-6), "left-out probabilities come from other fits"
    again = choose_calibration(logits, target, lesions_of(600), seed=1)
    assert calibration_document(again) == calibration_document(choice)


def test_one_lesion_alone_gets_a_temperature():
    logits, target = shifted_world(4, 6)
    choice = choose_calibration(logits, target, ["the same"] * 4, seed=0)
    assert isinstance(choice.calibration, TemperatureCalibration)
    assert choice.compared == {}


def test_the_document_is_what_a_manifest_reads():
    logits, target = shifted_world(200, 7)
    choice = choose_calibration(logits, target, lesions_of(200), seed=0)
    document = calibration_document(choice)
    assert document["fold"] == "calibration"
    assert set(document["bias"]) == set(CLASSES)
    if choice.calibration.method == "vector":
        assert VectorCalibration.model_validate(document).scale == choice.calibration.scale


def test_no_lesion_is_in_two_parts_and_each_part_has_of_each_class():
    target = np.repeat([NV, MEL, DF], [60, 30, 15])
    lesions = lesions_of(len(target), 3)
    part = lesion_parts(target, lesions, 5, seed=0)
    by_lesion = {}
    for name, number in zip(lesions, part.tolist(), strict=True):
        assert by_lesion.setdefault(name, number) == number
    for number in range(5):
        assert {NV, MEL, DF} <= set(target[part == number])


def test_a_resample_takes_all_images_of_a_lesion_alike():
    lesions = ["a", "a", "a", "b", "c", "c"]
    for times in lesion_draws(lesions, 20, seed=0):
        assert times[0] == times[1] == times[2]
        assert times[4] == times[5]
        assert times[0] + times[3] + times[4] == 3


def test_a_safe_point_holds_elsewhere_more_often_than_one_that_just_reaches():
    """In 100 pairs of samples: the threshold of one, its sensitivity in the other."""
    held = {"just": 0, "safe": 0}
    for seed in range(100):
        random = np.random.default_rng(seed)
        here, elsewhere = (np.zeros((160, 7)) for _ in range(2))
        target = np.repeat([MEL, NV], 80)
        for sample in (here, elsewhere):
            sample[:80, MEL] = random.beta(4, 2, 80)
            sample[80:, MEL] = random.beta(2, 4, 80)
        points = {
            "just": operating_point(here, target, ("mel",), 0.9),
            "safe": safe_operating_point(here, target, ("mel",), 0.9, lesions_of(160, 1), seed),
        }
        assert points["safe"].probability <= points["just"].probability
        for name, point in points.items():
            held[name] += (elsewhere[:80, MEL] >= point.probability).mean() >= 0.9
    assert held["safe"] > held["just"] + 10


def test_lesions_with_many_images_widen_the_margin():
    random = np.random.default_rng(0)
    probability, target = np.zeros((600, 7)), np.repeat([MEL, NV], 300)
    probability[:, MEL] = np.where(target == MEL, random.beta(4, 2, 600), random.beta(2, 4, 600))
    probability[:300, MEL] = np.repeat(probability[:300:6, MEL], 6) + random.uniform(0, 0.02, 300)
    grouped = safe_operating_point(probability, target, ("mel",), 0.9, lesions_of(600, 6), 0)
    alone = safe_operating_point(probability, target, ("mel",), 0.9, lesions_of(600, 1), 0)
    assert grouped.probability < alone.probability


@pytest.mark.parametrize("point", [operating_point, lambda *a: safe_operating_point(*a, ["a", "b"], 0)])
def test_a_threshold_is_a_probability_even_where_a_score_is_nought(point):
    probability = np.eye(7)[[NV, NV]]
    found = point(probability, np.array([MEL, NV]), ("mel",), 0.9)
    assert found.probability > 0
