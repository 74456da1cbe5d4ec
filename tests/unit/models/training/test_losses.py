"""The losses that a configuration can name."""

# ruff: noqa: E402 - the skip where torch is absent must come before what imports it
import math
from typing import get_args

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: `make test` installs it where it can")

from models.training.architectures.contract import NetworkOutputs
from models.training.configuration import CLASSES, Losses
from models.training.losses import (
    DIAGNOSIS_LOSSES,
    OUTLINE_LOSSES,
    jaccard_loss,
    total_loss,
    weighted_diagnosis_loss,
)

pytestmark = pytest.mark.training

UNIFORM = torch.full((7,), -math.log(7))


def test_every_named_loss_is_there_and_no_other():
    fields = Losses.model_fields
    assert set(get_args(fields["diagnosis"].annotation)) == set(DIAGNOSIS_LOSSES)
    assert set(get_args(fields["outline"].annotation)) == set(OUTLINE_LOSSES)


def test_the_defaults_are_what_1_0_0_was_trained_with():
    assert (Losses().diagnosis, Losses().outline) == ("adjusted_cross_entropy", "dice_bce")
    assert (Losses().melanoma_focal, Losses().focal_gamma) == (0.3, 2.0)


def test_weights_make_a_rare_class_count_as_much_as_a_frequent_one():
    log_prior = torch.tensor([0.05, 0.05, 0.1, 0.05, 0.1, 0.6, 0.05]).log()
    logits = torch.zeros(13, 7)
    logits[:, 5] = 1.0
    target = torch.tensor([5] * 12 + [0])
    value = weighted_diagnosis_loss(logits, target, log_prior, 0.0)
    right, wrong = -logits[0].log_softmax(0)[5], -logits[0].log_softmax(0)[0]
    # twelve nevi at weight 1/0.6 and one actinic keratosis at 1/0.05: 20 against 20
    assert value.item() == pytest.approx(((right + wrong) / 2).item(), abs=1e-5)


@pytest.mark.parametrize("name", DIAGNOSIS_LOSSES)
def test_with_equal_frequencies_every_diagnosis_loss_is_the_cross_entropy(name):
    logits = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
    target = torch.arange(9) % 7
    expected = torch.nn.functional.cross_entropy(logits, target)
    assert DIAGNOSIS_LOSSES[name](logits, target, UNIFORM, 0.0).item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_jaccard_loss_is_one_minus_intersection_over_union():
    mask = torch.zeros(2, 1, 10, 10)
    mask[:, :, :5] = 1
    drawn = torch.zeros(2, 1, 10, 10)
    drawn[0, :, :5] = 1  # all of it
    drawn[1, :, :, :5] = 1  # half of it: 25 in both, 75 in either
    logits = (drawn * 2 - 1) * 50
    assert jaccard_loss(logits[:1], mask[:1]).item() == pytest.approx(0.0, abs=1e-5)
    assert jaccard_loss(logits[1:], mask[1:]).item() == pytest.approx(1 - 26 / 76, abs=1e-5)


@pytest.mark.parametrize("name", OUTLINE_LOSSES)
def test_every_outline_loss_falls_on_the_way_to_the_mask(name):
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    values = [OUTLINE_LOSSES[name]((mask * 2 - 1) * sharpness, mask).item() for sharpness in (-2.0, 0.0, 2.0, 8.0)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(
    ("field", "name"), [("diagnosis", n) for n in DIAGNOSIS_LOSSES] + [("outline", n) for n in OUTLINE_LOSSES]
)
def test_the_total_uses_the_loss_that_is_named(field, name):
    generator = torch.Generator().manual_seed(0)
    logits, drawn = torch.randn(7, 7, generator=generator), torch.randn(7, 1, 8, 8, generator=generator)
    outputs = NetworkOutputs(drawn, logits, torch.zeros(7, 7, 1, 1), torch.zeros(7, 4))
    mask = (torch.rand(7, 1, 8, 8, generator=generator) > 0.5).float()
    log_prior = torch.linspace(-3, -1, 7)
    target = torch.arange(len(CLASSES))
    weights = Losses(**{field: name}, melanoma_focal=0.0, label_smoothing=0.0)
    expected = DIAGNOSIS_LOSSES[weights.diagnosis](logits, target, log_prior, 0.0) + OUTLINE_LOSSES[weights.outline](
        drawn, mask
    )
    assert total_loss(outputs, target, mask, log_prior, weights).item() == pytest.approx(expected.item(), abs=1e-5)
