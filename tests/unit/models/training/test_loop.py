"""The loop's decisions and one step's gradients, on a network of a few weights."""

# ruff: noqa: E402 - the skip where torch is absent must come before what imports it
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: `make test` installs it where it can")
pytest.importorskip("sklearn", reason="what training needs is not installed (requirements/train.txt)")

from torch import nn

from dermoscopy.errors import Misconfigured
from models.training.architectures.contract import NetworkOutputs
from models.training.batches import Batch, draw_epoch, sampled_log_prior
from models.training.configuration import CLASSES, Losses, Optimisation, TrainingConfiguration
from models.training.datasets import Crops, Label
from models.training.loop import Diverged, EpochResult, chosen_weights, frozen_at, validate, weary
from models.training.sanity import NotSane, constant_outline, refuse_insane
from models.training.steps import (
    DeviceFull,
    DeviceStep,
    Lesson,
    ThreadedStep,
    encoder_blocks,
    freeze,
    labelled_loss,
    open_device,
)

pytestmark = pytest.mark.training


class Tiny(nn.Module):
    """A network without normalisation: gradients of parts add up to those of the whole."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.blocks = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(3))
        self.mask = nn.Conv2d(4, 1, 1)
        self.classifier = nn.Linear(4, 7)

    def forward(self, image):
        x = self.stem(image)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        pooled = x.mean(dim=(2, 3))
        maps = torch.einsum("kc,nchw->nkhw", self.classifier.weight, x)
        return NetworkOutputs(self.mask(x), self.classifier(pooled), maps, pooled)


@pytest.fixture
def configuration(settings):
    return TrainingConfiguration.model_validate(settings)


@pytest.fixture
def crops():
    """Two images of each class and two without a diagnosis; the last one has no outline."""
    generator = np.random.default_rng(0)
    names = [*CLASSES, *CLASSES, "", "nv"]
    labels = tuple(Label(f"I{k}", f"L{k}", name, k < len(names) - 1) for k, name in enumerate(names))
    masks = np.zeros((len(names), 256, 256), np.uint8)
    masks[:, 64:192, 64:192] = 255
    return Crops(labels, generator.integers(0, 256, (len(names), 256, 256, 3), np.uint8), masks)


@pytest.fixture
def workers():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def lesson(crops, configuration):
    torch.manual_seed(0)
    return Lesson(Tiny(), crops, configuration, torch.zeros(7))


PAIRS = [(row, row) for row in range(7)]


def _gradients(network):
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def _result(epoch, accuracy, jaccard=0.5, loss=1.0, auc=0.5):
    return EpochResult(epoch, loss, accuracy, jaccard, 1.0, auc)


def test_a_run_ends_after_epochs_without_anything_better():
    options = Optimisation(epochs=9, patience=2)
    history = [_result(1, 0.3), _result(2, 0.5), _result(3, 0.4)]
    assert not weary(history, options)
    assert weary([*history, _result(4, 0.5)], options)
    assert not weary([*history, _result(4, 0.6)], options)
    assert not weary([*history, _result(4, 0.4)], Optimisation(epochs=9))


def test_the_named_figure_decides_with_the_outline_or_the_outline_alone():
    result = _result(1, 0.6, 0.7, auc=0.9)
    assert result.score("balanced_accuracy") == pytest.approx(1.3)
    assert result.score("macro_auc") == pytest.approx(1.6)
    assert result.score("jaccard") == pytest.approx(0.7)
    assert _result(1, 0.6, float("nan")).score("balanced_accuracy") == pytest.approx(0.6)


def test_blocks_thaw_at_their_epochs():
    options = Optimisation(epochs=9, thaw={1: 3, 4: 1, 6: 0})
    assert [frozen_at(options, epoch) for epoch in (1, 3, 4, 5, 6, 9)] == [3, 3, 1, 1, 0, 0]
    assert frozen_at(Optimisation(epochs=9, thaw={3: 2}), 1) == 0


def test_the_stem_and_the_first_blocks_are_frozen_and_thawed_again():
    network = Tiny()
    pretrained = [parameter for name, parameter in network.named_parameters() if name.startswith(("stem", "blocks"))]
    blocks = encoder_blocks(network, pretrained)
    assert [len(block) for block in blocks] == [2, 2, 2, 2]
    freeze(blocks, 1)
    assert [name for name, p in network.named_parameters() if not p.requires_grad] == [
        "stem.weight", "stem.bias", "blocks.0.weight", "blocks.0.bias",
    ]  # fmt: skip
    freeze(blocks, 0)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_device_short_of_memory_learns_the_same_batch_in_parts(lesson, workers, monkeypatch, caplog):
    network = lesson.network
    whole = ThreadedStep(lesson, workers)
    loss = whole.gradients(next(iter(whole.prepared([PAIRS], 0))))
    expected = _gradients(network)
    forward = network.forward
    sizes = []

    def short(image):
        sizes.append(len(image))
        if len(image) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(image)

    monkeypatch.setattr(network, "forward", short)
    step = DeviceStep(lesson, workers, torch.device("cpu"), 7)
    with caplog.at_level("WARNING", "models.training"):
        (prepared,) = step.prepared([PAIRS], 0)
        assert step.gradients(prepared) == pytest.approx(loss, rel=1e-4)
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert torch.allclose(_gradients(network), expected, atol=1e-3)
    assert "going on in parts of 3 images" in caplog.text
    assert "so the batch stays 7" in caplog.text
    sizes.clear()
    step.gradients(prepared)
    assert set(sizes) == {1}, "what did not fit once is not tried again"


def test_a_device_without_room_for_one_image_says_so(lesson, workers, monkeypatch):
    def full(image):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(lesson.network, "forward", full)
    step = DeviceStep(lesson, workers, torch.device("cpu"), 4)
    with pytest.raises(DeviceFull, match="no room for one image of 64 pixels"):
        step.gradients(next(iter(step.prepared([PAIRS], 0))))


def test_batches_are_made_ahead_and_come_in_order(lesson, workers):
    step = DeviceStep(lesson, workers, torch.device("cpu"), 2)
    batches = [[(k, k), (k + 1, k)] for k in range(6)]
    targets = [batch.target.tolist() for batch in step.prepared(batches, 0)]
    assert targets == [[k, k + 1] if k < 6 else [6, 0] for k in range(6)]


def test_a_gpu_that_is_not_there_is_a_clear_refusal(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Misconfigured, match="torch sees no GPU"):
        open_device("cuda")


def test_an_image_without_outline_counts_for_its_diagnosis_alone():
    torch.manual_seed(0)
    outputs = NetworkOutputs(torch.randn(2, 1, 4, 4), torch.randn(2, 7), torch.zeros(2, 7, 1, 1), torch.zeros(2, 3))
    batch = Batch(torch.zeros(2, 3, 4, 4), torch.ones(2, 1, 4, 4), torch.tensor([4, 5]), torch.tensor([True, False]))
    outline = Losses(label_smoothing=0, melanoma_focal=0, mask=1.0)
    loss = labelled_loss(outputs, batch, torch.zeros(7), outline)
    other = outputs._replace(mask_logits=torch.cat([outputs.mask_logits[:1], torch.full((1, 1, 4, 4), 9.0)]))
    assert labelled_loss(other, batch, torch.zeros(7), outline).item() == pytest.approx(loss.item())
    diagnosis = labelled_loss(outputs, batch, torch.zeros(7), outline.model_copy(update={"mask": 0.0}))
    assert loss.item() > diagnosis.item()


def test_natural_sampling_shows_every_image_once_and_charges_its_frequencies(crops, settings):
    settings["data"] = {"split": settings["data"]["split"], "sampling": "natural"}
    settings["optimisation"]["batch"] = 4
    configuration = TrainingConfiguration.model_validate(settings)
    batches = draw_epoch(crops, list(range(16)), configuration, 0)
    assert sorted(row for batch in batches for row, _ in batch) == list(range(16))
    prior = sampled_log_prior(crops, [5, 12, 15, 0], configuration).exp()
    assert prior.tolist() == pytest.approx(np.array([2, 1, 1, 1, 1, 4, 1]) / 11)


def test_figures_count_only_what_is_known(crops, configuration, workers):
    torch.manual_seed(0)
    accuracy, _, auc = validate(Tiny(), crops, [14, 15], configuration, workers)
    assert accuracy in (0.0, 1.0) and np.isnan(auc)
    whole = validate(Tiny(), crops, [14], configuration, workers)
    assert np.isnan(whole[0]) and 0 <= whole[1] <= 1
    assert np.isnan(validate(Tiny(), crops, [15], configuration, workers)[1])


def test_answers_that_are_no_numbers_end_the_run(crops, configuration, workers):
    network = Tiny()
    nn.init.constant_(network.classifier.weight, torch.nan)
    with pytest.raises(Diverged, match="no numbers"):
        validate(network, crops, [0, 1], configuration, workers)


def test_the_best_constant_outline_of_equal_masks_is_that_mask(crops):
    assert constant_outline(crops, list(range(7))) == 1.0


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (
            _result(3, 0.2),
            r"balanced accuracy on the validation fold is 0\.200; a constant answer gives 0\.143, and 0\.243",
        ),
        (_result(3, float("nan")), "balanced accuracy on the validation fold is nan"),
        (_result(3, 0.9, 0.99), r"mean Jaccard on the validation fold is 0\.990; a constant answer gives 1\.000"),
        (_result(3, 0.9, 0.9, float("nan")), "the loss of epoch 3 is nan"),
    ],
)
def test_a_network_no_better_than_a_constant_is_not_exported(crops, settings, result, said):
    del settings["sanity"]
    configuration = TrainingConfiguration.model_validate(settings)
    with pytest.raises(NotSane, match=said):
        refuse_insane(result, crops, list(range(14)), configuration)


def test_a_network_that_beats_the_constants_passes(crops, settings):
    settings["sanity"] = {"balanced_accuracy": 0.1, "jaccard": -0.1}
    refuse_insane(_result(3, 0.3, 0.95), crops, list(range(14)), TrainingConfiguration.model_validate(settings))


@pytest.mark.parametrize(("choice", "expected"), [("best", 1.0), ("last", 3.0), ("mean", 2.0)])
def test_the_exported_weights_are_the_chosen_ones(choice, expected):
    best = {"weight": torch.tensor([1.0]), "count": torch.tensor(4)}
    last = {"weight": torch.tensor([3.0]), "count": torch.tensor(9)}
    chosen = chosen_weights(best, last, choice)
    assert chosen["weight"].item() == expected
    assert chosen["count"].item() == (4 if choice == "best" else 9)
