"""The gradients of one batch: in threads side by side on the CPU, or in parts one after the other on a device."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dermoscopy.errors import Misconfigured
from models.training.architectures.contract import NetworkOutputs
from models.training.batches import UNKNOWN, Batch, varied_batch
from models.training.configuration import Losses, TrainingConfiguration
from models.training.datasets import Crops
from models.training.losses import total_loss

logger = logging.getLogger("models.training")

Pairs = list[tuple[int, int]]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class DeviceFull(Misconfigured):
    """The device has no room for one image."""


class FurtherLoss(Protocol):
    """A loss beside the labels' own, such as that of a teacher."""

    def __call__(self, outputs: NetworkOutputs, batch: Batch) -> Tensor:
        """A scalar, meaned over the batch."""
        ...


@dataclass(frozen=True)
class Lesson:
    """Everything that the loss of a batch depends on, apart from the batch."""

    network: nn.Module
    crops: Crops
    configuration: TrainingConfiguration
    log_prior: Tensor
    further: FurtherLoss | None = None

    def loss(self, batch: Batch, device: torch.device) -> Tensor:
        """The mean loss of a batch that is on ``device``; the network computes in the configured precision."""
        precision = PRECISIONS[self.configuration.optimisation.precision]
        with torch.autocast(device.type, dtype=precision, enabled=precision is not torch.float32):
            outputs: NetworkOutputs = self.network(batch.image)
        loss = labelled_loss(outputs, batch, self.log_prior, self.configuration.losses)
        return loss if self.further is None else loss + self.further(outputs, batch)


def labelled_loss(outputs: NetworkOutputs, batch: Batch, log_prior: Tensor, weights: Losses) -> Tensor:
    """The loss of diagnoses and outlines; images without an outline count for their diagnosis alone."""
    if bool(batch.outlined.all()):
        return total_loss(outputs, batch.target, batch.mask, log_prior, weights)
    diagnoses = weights.model_copy(update={"mask": 0.0})
    loss = total_loss(outputs, batch.target, batch.mask, log_prior, diagnoses)
    if bool(batch.outlined.any()):
        seen = NetworkOutputs(*(output[batch.outlined] for output in outputs))
        nobody = torch.full_like(batch.target[batch.outlined], UNKNOWN)
        share = batch.outlined.float().mean()
        loss = loss + share * total_loss(seen, nobody, batch.mask[batch.outlined], log_prior, weights)
    return loss


class Step(Protocol):
    """One way to get the gradients of a batch; what :meth:`prepared` gives is what :meth:`gradients` takes."""

    scaler: torch.amp.GradScaler

    def prepared(self, batches: list[Pairs], epoch: int) -> Iterator[Any]:
        """The batches of an epoch, one after the other."""
        ...

    def gradients(self, prepared: Any) -> float:
        """Leave the gradients of a batch in the network; returns the batch's loss."""
        ...


class ThreadedStep:
    """The CPU: each thread makes, and learns from, its part of the batch; gradients add up."""

    def __init__(self, lesson: Lesson, workers: ThreadPoolExecutor) -> None:
        self.lesson = lesson
        self.workers = workers
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)

    def prepared(self, batches: list[Pairs], epoch: int) -> Iterator[tuple[Pairs, int]]:
        """What :meth:`gradients` takes, one after the other; the images are made there."""
        return ((pairs, epoch) for pairs in batches)

    def gradients(self, prepared: tuple[Pairs, int]) -> float:
        """Add the gradients of a batch to the network's; returns the batch's loss."""
        pairs, epoch = prepared
        threads = self.lesson.configuration.optimisation.threads
        shares = [share for k in range(threads) if (share := pairs[k::threads])]
        return sum(part.result() for part in [self.workers.submit(self._part, share, epoch) for share in shares])

    def _part(self, pairs: Pairs, epoch: int) -> float:
        """One thread's part: its images, forward, and gradients added to those of the other threads."""
        lesson = self.lesson
        batch = varied_batch(lesson.crops, pairs, lesson.configuration, epoch)
        loss = lesson.loss(batch, torch.device("cpu"))
        loss = loss * len(pairs) / lesson.configuration.optimisation.batch
        loss.backward()
        return float(loss.detach())


class DeviceStep:
    """A GPU: threads make the batches ahead of it, and it learns from them whole or, where memory is short, in parts.

    When the device runs out of memory the parts are halved, for good, and their gradients accumulated: the effective
    batch, and with it the schedule, stays what the configuration says.
    """

    def __init__(self, lesson: Lesson, workers: ThreadPoolExecutor, device: torch.device, part: int) -> None:
        self.lesson = lesson
        self.workers = workers
        self.device = device
        self.part = part
        scaled = lesson.configuration.optimisation.precision == "float16"
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)

    def prepared(self, batches: list[Pairs], epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, made ahead by the worker threads."""
        ahead: deque[Future[Batch]] = deque()
        for pairs in batches:
            ahead.append(self.workers.submit(self._made, pairs, epoch))
            if len(ahead) > 2 * self.lesson.configuration.optimisation.threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    def gradients(self, prepared: Batch) -> float:
        """Set the network's gradients to those of a batch; returns the batch's loss.

        Raises:
            DeviceFull: there is no room for a single image.
        """
        while True:
            self.lesson.network.zero_grad(set_to_none=True)
            try:
                return self._accumulated(prepared)
            except torch.OutOfMemoryError as error:
                if self.part == 1:
                    raise DeviceFull(
                        f"{self.device} has no room for one image of "
                        f"{self.lesson.configuration.input.size} pixels: take a smaller input or network"
                    ) from error
                self.part = max(1, self.part // 2)
            # Outside the handler: the error holds the frames, and they hold the memory.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            logger.warning(
                "out of memory on %s: going on in parts of %d images; their gradients add up, so the batch stays %d",
                self.device, self.part, self.lesson.configuration.optimisation.batch,
            )  # fmt: skip

    def _accumulated(self, whole: Batch) -> float:
        """Gradients of a batch in parts."""
        losses: list[Tensor] = []
        for start in range(0, len(whole.target), self.part):
            batch = whole.part(start, start + self.part).to(self.device)
            loss = self.lesson.loss(batch, self.device) * len(batch.target) / len(whole.target)
            self.scaler.scale(loss).backward()
            losses.append(loss.detach())
        return float(torch.stack(losses).sum())

    def _made(self, pairs: Pairs, epoch: int) -> Batch:
        """One batch, in memory that the device reads from directly."""
        batch = varied_batch(self.lesson.crops, pairs, self.lesson.configuration, epoch)
        return batch.pinned() if self.device.type == "cuda" else batch


def encoder_blocks(network: nn.Module, pretrained: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Pretrained parameters by block, from the image on: the stem first, then what the network numbers.

    A block is what a parameter's name says up to its first number (``blocks.3``), or the module that holds it.
    """
    wanted = {id(parameter) for parameter in pretrained}
    blocks: dict[str, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if id(parameter) in wanted:
            parts = name.split(".")
            numbered = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts) - 2)
            blocks.setdefault(".".join(parts[: numbered + 1]), []).append(parameter)
    return list(blocks.values())


def freeze(blocks: list[list[nn.Parameter]], frozen: int) -> None:
    """Let the stem and the first ``frozen`` blocks keep their values; all train where ``frozen`` is 0."""
    for number, block in enumerate(blocks):
        for parameter in block:
            parameter.requires_grad_(not frozen or number > frozen)
            if not parameter.requires_grad:
                parameter.grad = None


def open_device(name: str) -> torch.device:
    """The device to train on.

    Raises:
        Misconfigured: a GPU is asked for, and torch sees none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise Misconfigured(
            "optimisation.device is cuda, but torch sees no GPU: check the driver, install torch for CUDA "
            "(make train TORCH_BACKEND=auto …), or set optimisation.device to cpu"
        )
    return torch.device(name)


def open_step(lesson: Lesson, workers: ThreadPoolExecutor, device: torch.device, batch: int) -> Step:
    """The way that fits the device; on a GPU the whole batch at first."""
    if device.type == "cpu":
        return ThreadedStep(lesson, workers)
    return DeviceStep(lesson, workers, device, batch)


def state_of(step: Step) -> dict[str, Any]:
    """What a checkpoint keeps of a step; empty on the CPU."""
    return {"part": step.part, "scaler": step.scaler.state_dict()} if isinstance(step, DeviceStep) else {}
