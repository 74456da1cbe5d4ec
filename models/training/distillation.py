"""Distillation: a small network learns from a large one's answers, beside the labels (Hinton et al., arXiv:1503.02531).

The teacher sees the very view that the student sees, brought to the teacher's own input. It may be another run's best
checkpoint or an installed package. Its diagnoses also teach where no label is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dermoscopy.errors import Misconfigured
from models.manifest import MANIFEST_NAME, Normalize, Scale
from models.registry import ModelPackage, open_package
from models.training.architectures import build_network
from models.training.architectures.contract import NetworkOutputs
from models.training.batches import Batch
from models.training.configuration import CLASSES, Distillation, Input, TrainingConfiguration, load_configuration

Triple = tuple[float, float, float]


class TeacherMissing(Misconfigured):
    """There is no such teacher, or it answers other questions than the student."""


class Answers(NamedTuple):
    """What a teacher says of N images: ``class_logits`` [N, 7] and ``mask_logits`` [N, 1, h, w] at its own size."""

    class_logits: Tensor
    mask_logits: Tensor


@dataclass(frozen=True)
class Teacher:
    """A trained network that only answers.

    Attributes:
        size: its input side in pixels.
        mean: subtracted from pixel values of 0..1.
        std: divided by.
        answers: normalised RGB [N, 3, size, size] to :class:`Answers`; safe to call from several threads.
    """

    size: int
    mean: Triple
    std: Triple
    answers: Callable[[Tensor], Answers]

    def look(self, image: Tensor, seen: Input) -> Answers:
        """Answer for a student's normalised batch [N, 3, S, S]; ``seen`` is the student's input section."""
        with torch.no_grad():
            pixels = image.float() * _channels(seen.std, image) + _channels(seen.mean, image)
            if pixels.shape[-1] != self.size:
                pixels = F.interpolate(
                    pixels, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True
                )
            return self.answers((pixels - _channels(self.mean, image)) / _channels(self.std, image))


def soft_target_loss(class_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened probabilities [N, 7], times the squared temperature.

    The square keeps the gradient's size whatever the temperature (section 2 of the paper). Both sides answer for
    equal class frequencies, so nothing is added to either.
    """
    student = F.log_softmax(class_logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def soft_mask_loss(mask_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Binary cross-entropy of [N, 1, S, S] logits against the teacher's probabilities, brought to the same size."""
    teacher = teacher_logits.float().sigmoid()
    if teacher.shape[-2:] != mask_logits.shape[-2:]:
        teacher = F.interpolate(teacher, size=mask_logits.shape[-2:], mode="bilinear", align_corners=False)
    return F.binary_cross_entropy_with_logits(mask_logits.float(), teacher)


def distillation_loss(outputs: NetworkOutputs, answers: Answers, options: Distillation) -> Tensor:
    """The weighted sum of both terms; added to the loss of the labels."""
    loss = outputs.class_logits.new_zeros((), dtype=torch.float32)
    if options.diagnosis:
        soft = soft_target_loss(outputs.class_logits, answers.class_logits, options.temperature)
        loss = loss + options.diagnosis * soft
    if options.outline:
        loss = loss + options.outline * soft_mask_loss(outputs.mask_logits, answers.mask_logits)
    return loss


@dataclass(frozen=True)
class TeacherLoss:
    """The further loss of a batch that the training loop takes (:class:`models.training.steps.FurtherLoss`)."""

    teacher: Teacher
    options: Distillation
    seen: Input

    def __call__(self, outputs: NetworkOutputs, batch: Batch) -> Tensor:
        """A scalar, meaned over the batch."""
        return distillation_loss(outputs, self.teacher.look(batch.image, self.seen), self.options)


def teacher_loss(
    configuration: TrainingConfiguration, folder: Path, output: Path, device: torch.device | str = "cpu"
) -> TeacherLoss | None:
    """The teacher that a configuration names, ready for the loop; ``None`` where it names none.

    Args:
        configuration: the student's.
        folder: where the student's configuration file lies; the teacher is named from there.
        output: where runs leave their checkpoints.
        device: where a teacher from a checkpoint computes.

    Raises:
        TeacherMissing: there is no such file or folder, no checkpoint, or other classes.
    """
    options = configuration.distillation
    if options is None:
        return None
    named = folder / options.teacher
    if (named / MANIFEST_NAME).is_file():
        teacher = teacher_from_package(open_package(named.parent.parent, named.parent.name, named.name))
    elif named.is_file():
        its = load_configuration(named)
        checkpoint = output / f"{its.name}-{its.version}" / "checkpoints" / "best.pt"
        teacher = teacher_from_checkpoint(its, checkpoint, device)
    else:
        raise TeacherMissing(f"distillation.teacher: {named} is neither a configuration file nor a package's folder")
    return TeacherLoss(teacher, options, configuration.input)


def teacher_from_checkpoint(
    configuration: TrainingConfiguration, checkpoint: Path, device: torch.device | str = "cpu"
) -> Teacher:
    """The averaged weights of a run's best epoch (``checkpoints/best.pt``).

    Raises:
        TeacherMissing: the run has no checkpoint yet.
    """
    if not checkpoint.is_file():
        raise TeacherMissing(f"distillation.teacher: {checkpoint} is missing; train {configuration.name} first")
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["average"]
    # Every weight comes from the checkpoint: none is read from a package or hub first.
    untrained = configuration.architecture.model_copy(update={"pretrained": False, "weights": None})
    network = build_network(untrained)
    network.load_state_dict(state)
    network.eval().requires_grad_(False).to(device)

    def answers(image: Tensor) -> Answers:
        outputs: NetworkOutputs = network(image)
        return Answers(outputs.class_logits, outputs.mask_logits)

    return Teacher(configuration.input.size, configuration.input.mean, configuration.input.std, answers)


def teacher_from_package(package: ModelPackage, threads: int = 1) -> Teacher:
    """An installed package, on the CPU.

    Raises:
        TeacherMissing: its classes are not those of training.
    """
    import onnxruntime

    manifest = package.manifest
    if tuple(str(label.value) for label in manifest.classes) != CLASSES:
        raise TeacherMissing(f"distillation.teacher: {package.folder} does not answer for {', '.join(CLASSES)}")
    factor = next((step.factor for step in manifest.preprocessing if isinstance(step, Scale)), 1.0) * 255
    norm = next(step for step in manifest.preprocessing if isinstance(step, Normalize))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(package.read_weights(), options, providers=["CPUExecutionProvider"])
    wanted = [manifest.outputs.classes, manifest.outputs.mask]

    def answers(image: Tensor) -> Answers:
        given = session.run(wanted, {manifest.input.name: image.cpu().contiguous().numpy()})
        return Answers(*(torch.from_numpy(array).to(image.device) for array in given))

    mean, std = ((float(a / factor), float(b / factor), float(c / factor)) for a, b, c in (norm.mean, norm.std))
    return Teacher(manifest.input.size, mean, std, answers)


def _channels(values: Triple, like: Tensor) -> Tensor:
    """Three numbers as [1, 3, 1, 1] beside ``like``."""
    return torch.tensor(values, device=like.device).reshape(1, 3, 1, 1)
