"""Losses, calibration, operating points and figures on cases that can be worked out by hand."""

# ruff: noqa: E402 - the skip where torch is absent must come before what imports it
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: `make test` installs it where it can")
pytest.importorskip("sklearn", reason="what training needs is not installed (requirements/train.txt)")

from models.training.architectures.contract import NetworkOutputs
from models.training.calibration import fit_temperature, operating_point, probabilities
from models.training.configuration import CLASSES, Losses
from models.training.embedding import distances, fit_reference
from models.training.evaluation import (
    balanced_accuracy,
    bootstrap_interval,
    evaluate,
    expected_calibration_error,
    macro_f1,
)
from models.training.losses import diagnosis_loss, mask_loss, melanoma_focal_loss, total_loss
from models.training.predictions import jaccard

MEL, NV = CLASSES.index("mel"), CLASSES.index("nv")
EVEN = torch.zeros(7)


def test_logit_adjustment_charges_the_sampled_frequencies():
    logits, target = torch.zeros(1, 7), torch.tensor([MEL])
    prior = torch.log(torch.tensor([0.05, 0.05, 0.05, 0.05, 0.1, 0.65, 0.05]))
    assert diagnosis_loss(logits, target, EVEN, 0.0).item() == pytest.approx(np.log(7))
    assert diagnosis_loss(logits, target, prior, 0.0).item() == pytest.approx(-np.log(0.1))


def test_focal_loss_is_cross_entropy_of_melanoma_against_the_rest_at_gamma_zero():
    logits, target = torch.zeros(2, 7), torch.tensor([MEL, NV])
    expected = (-np.log(1 / 7) - np.log(6 / 7)) / 2
    assert melanoma_focal_loss(logits, target, EVEN, 0.0).item() == pytest.approx(expected)
    assert melanoma_focal_loss(logits, target, EVEN, 2.0).item() < expected


def test_a_right_mask_costs_little_and_a_wrong_one_much():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    right = (mask * 2 - 1) * 20
    assert mask_loss(right, mask).item() == pytest.approx(0, abs=1e-3)
    assert mask_loss(-right, mask).item() > 10


def test_the_total_leaves_out_terms_of_weight_zero():
    outputs = NetworkOutputs(torch.full((1, 1, 4, 4), torch.nan), torch.zeros(1, 7), EVEN, EVEN)
    weights = Losses(label_smoothing=0, melanoma_focal=0, mask=0)
    loss = total_loss(outputs, torch.tensor([NV]), torch.zeros(1, 1, 4, 4), EVEN, weights)
    assert loss.item() == pytest.approx(np.log(7))


def test_the_temperature_of_overconfident_logits_is_found_again():
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 1.5, (4000, 7)).astype(np.float32)
    honest = probabilities(logits, 1.0)
    target = np.array([generator.choice(7, p=p) for p in honest])
    assert fit_temperature(logits * 3, target) == pytest.approx(3, rel=0.1)


def test_an_operating_point_finds_what_was_asked_and_no_more_than_needed():
    probability = np.zeros((20, 7))
    probability[:, MEL] = np.linspace(0.05, 1, 20)
    probability[:, NV] = 1 - probability[:, MEL]
    target = np.full(20, NV)
    target[10:] = MEL
    point = operating_point(probability, target, ("mel",), 0.9)
    assert point.sensitivity == pytest.approx(0.9)
    assert point.specificity == 1.0
    assert point.probability == pytest.approx(0.6, abs=1e-5)


def test_balanced_accuracy_and_f1_of_a_small_matrix():
    matrix = np.zeros((7, 7), int)
    matrix[NV, NV], matrix[MEL, MEL], matrix[MEL, NV] = 90, 4, 6
    assert balanced_accuracy(matrix) == pytest.approx((1 + 0.4) / 2)
    assert macro_f1(matrix) == pytest.approx((180 / 186 + 8 / 14) / 2)


def test_the_interval_resamples_lesions_not_images():
    target = np.array([MEL] * 60 + [NV] * 60)
    guess = np.array([MEL, NV] * 60)
    alone = bootstrap_interval(target, guess, [str(k) for k in range(120)], seed=0)
    grouped = bootstrap_interval(target, guess, [str(k // 20) + str(k % 2) for k in range(120)], seed=0)
    assert alone[0] < 0.5 < alone[1]
    assert grouped[1] - grouped[0] > alone[1] - alone[0]


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    probability = np.full((10, 7), 0.2 / 6)
    probability[:, NV] = 0.8
    target = np.array([NV] * 5 + [MEL] * 5)
    assert expected_calibration_error(probability, target) == pytest.approx(0.3)


def test_a_class_that_does_not_occur_has_no_figures():
    probability = np.full((2, 7), 1 / 7)
    report = evaluate(probability, np.array([MEL, NV]), np.array([0.5, 0.9]), ["a", "b"], {"m": (("mel",), 0.1)}, 0)
    assert report["per_class"]["df"]["sensitivity"] is None
    assert report["mean_jaccard"] == pytest.approx(0.7)
    assert report["thresholded_jaccard"] == pytest.approx(0.45)
    assert report["operating_points"]["m"]["sensitivity"] == 1.0


def test_jaccard_of_two_masks():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert jaccard(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert jaccard(a, b) == pytest.approx(1 / 3)


def test_a_stranger_is_farther_from_the_training_images_than_one_of_them():
    generator = np.random.default_rng(0)
    target = np.repeat(np.arange(7), 40)
    centres = generator.normal(0, 4, (7, 32))
    known = (centres[target] + generator.normal(size=(280, 32))).astype(np.float32)
    reference = fit_reference(known, target, 0, 16)
    strangers = generator.normal(0, 12, (20, 32)).astype(np.float32)
    assert np.median(distances(reference, strangers)) > np.quantile(distances(reference, known), 0.99)
