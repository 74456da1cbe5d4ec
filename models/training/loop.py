"""The training loop: one-cycle AdamW, an average of the weights, a checkpoint after every epoch.

A killed run goes on from its last checkpoint: weights, average, optimiser, elapsed time and history are in
``last.pt``, and the batches of an epoch depend on the seed and the epoch alone.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

from dermoscopy.errors import Misconfigured
from models.training.architectures import build_network
from models.training.architectures.contract import LesionNetwork, NetworkOutputs
from models.training.batches import draw_epoch, limit_per_class, plain_batch, sampled_log_prior
from models.training.configuration import Optimisation, TrainingConfiguration
from models.training.datasets import Crops, DataUnusable
from models.training.evaluation import macro_auc
from models.training.steps import (
    DeviceStep,
    FurtherLoss,
    Lesson,
    encoder_blocks,
    freeze,
    open_device,
    open_step,
    state_of,
)

logger = logging.getLogger("models.training")


class Diverged(Misconfigured):
    """The loss or the network's answers are no numbers any more."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave, measured with the averaged weights on the validation crops."""

    epoch: int
    loss: float
    balanced_accuracy: float
    jaccard: float
    minutes: float
    macro_auc: float = float("nan")

    def score(self, watch: str) -> float:
        """What the best epoch is chosen by: ``watch`` (a figure's name) plus the mean Jaccard, or that alone.

        A figure that the validation fold does not give (no outlines, no diagnoses) counts as 0.
        """
        named = 0.0 if watch == "jaccard" else float(getattr(self, watch))
        return sum(figure for figure in (named, self.jaccard) if math.isfinite(figure))


@dataclass(frozen=True)
class Fitted:
    """The averaged weights of the best epoch, and how the run went."""

    network: nn.Module
    best: EpochResult
    history: tuple[EpochResult, ...]


def rate_factor(progress: float, warmup: float) -> float:
    """One-cycle factor of the learning rate at ``progress`` in 0..1: linear up, cosine down to a hundredth."""
    if progress < warmup:
        return max(0.02, progress / warmup)
    rest = min(1.0, (progress - warmup) / max(1e-9, 1 - warmup))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * rest))


def weary(history: list[EpochResult], options: Optimisation) -> bool:
    """Whether the last ``patience`` epochs brought nothing better."""
    if options.patience is None or not history:
        return False
    scores = [item.score(options.watch) for item in history]
    return len(scores) - 1 - scores.index(max(scores)) >= options.patience


def spent(options: Optimisation, step: int, total: int, seconds: float) -> float:
    """How much of the run is over, 0..1 and beyond: of its steps, or of its time where that is further."""
    share = step / total
    return share if options.minutes is None else max(share, seconds / (60 * options.minutes))


def frozen_at(options: Optimisation, epoch: int) -> int:
    """How many encoder blocks are frozen in an epoch (counted from 1), as ``thaw`` says."""
    return next((options.thaw[begin] for begin in sorted(options.thaw, reverse=True) if begin <= epoch), 0)


def fit(
    configuration: TrainingConfiguration,
    crops: Crops,
    train_rows: list[int],
    validation_rows: list[int],
    folder: Path,
    start: Path | None = None,
    further: FurtherLoss | None = None,
) -> Fitted:
    """Train, or go on with what ``folder`` holds; returns the best epoch's averaged network.

    ``folder`` gets ``last.pt`` after every epoch and ``best.pt`` whenever validation improves. ``start`` is the
    ``best.pt`` of another run of the same architecture, to begin with its weights; ``further`` is a loss beside that
    of the labels.

    Raises:
        DataUnusable: an epoch has fewer images than a batch.
        Diverged: the loss or the answers are no numbers any more; the last whole epoch stays.
    """
    options = configuration.optimisation
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(configuration.seed)
    device = open_device(options.device)
    network = build_network(configuration.architecture).to(device=device, memory_format=torch.channels_last)
    if start is not None:
        network.load_state_dict(torch.load(start, map_location="cpu", weights_only=True)["average"])
    average = copy.deepcopy(network)
    lesion_network = cast(LesionNetwork, network)
    pretrained = list(lesion_network.pretrained_parameters())
    optimiser = torch.optim.AdamW(
        [
            {"params": pretrained, "peak": options.encoder_rate},
            {"params": list(lesion_network.fresh_parameters()), "peak": options.fresh_rate},
        ],
        lr=options.encoder_rate,
        weight_decay=options.weight_decay,
    )
    watched = limit_per_class(crops, validation_rows, options.watched_per_class)
    per_epoch = len(draw_epoch(crops, train_rows, configuration, 0))
    if not per_epoch:
        raise DataUnusable(f"the training fold has {len(train_rows)} images, fewer than a batch of {options.batch}")
    total = per_epoch * options.epochs
    log_prior = sampled_log_prior(crops, train_rows, configuration).to(device)
    workers = ThreadPoolExecutor(options.threads, initializer=_one_thread)
    lesson = Lesson(network, crops, configuration, log_prior, further)
    learn = open_step(lesson, workers, device, options.batch)
    history: list[EpochResult] = []
    step, elapsed = 0, 0.0
    last = folder / "last.pt"
    if last.is_file():
        state = torch.load(last, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, elapsed = int(state["step"]), float(state["elapsed"])
        history = [EpochResult(**item) for item in state["history"]]
        if isinstance(learn, DeviceStep) and "part" in state:
            learn.part = int(state["part"])
            learn.scaler.load_state_dict(state["scaler"])
        logger.info("going on after epoch %d of %d (%.1f min so far)", len(history), options.epochs, elapsed / 60)

    while len(history) < options.epochs and spent(options, step, total, elapsed) < 1 and not weary(history, options):
        epoch = len(history)
        torch.manual_seed(configuration.seed * 1000 + epoch)
        network.train()
        if options.thaw:
            freeze(encoder_blocks(network, pretrained), frozen_at(options, epoch + 1))
        began, before, losses = time.monotonic(), elapsed, []
        with _progress() as bar:
            task = bar.add_task(f"epoch {epoch + 1}/{options.epochs}", total=per_epoch)
            for prepared in learn.prepared(draw_epoch(crops, train_rows, configuration, epoch), epoch):
                progress = spent(options, step, total, elapsed)
                if progress >= 1:
                    break
                for group in optimiser.param_groups:
                    group["lr"] = group["peak"] * rate_factor(progress, options.warmup)
                optimiser.zero_grad(set_to_none=False)
                loss = learn.gradients(prepared)
                if not math.isfinite(loss):
                    raise Diverged(
                        f"epoch {epoch + 1}, step {step + 1}: the loss is {loss}; lower the rates or the precision's "
                        "range is too small, then go on from the last whole epoch or give --restart"
                    )
                learn.scaler.unscale_(optimiser)
                nn.utils.clip_grad_norm_(network.parameters(), options.clip)
                learn.scaler.step(optimiser)
                learn.scaler.update()
                step += 1
                _follow(average, network, min(options.average_decay, (1 + step) / (10 + step)))
                losses.append(loss)
                elapsed = before + time.monotonic() - began
                bar.update(task, advance=1, description=f"epoch {epoch + 1} loss {np.mean(losses[-50:]):.3f}")
                if step % 50 == 0:
                    rate = len(losses) * options.batch / (elapsed - before)
                    logger.info("step %d/%d loss %.3f, %.1f images/s", step, total, np.mean(losses[-50:]), rate)
        accuracy, jaccard, auc = validate(average, crops, watched, configuration, workers)
        elapsed = before + time.monotonic() - began
        result = EpochResult(epoch + 1, float(np.mean(losses)), accuracy, jaccard, elapsed / 60, auc)
        logger.info(
            "epoch %d/%d: loss %.3f, validation balanced accuracy %.4f, macro AUC %.4f, mean Jaccard %.4f, %.1f min",
            result.epoch, options.epochs, result.loss, accuracy, auc, jaccard, result.minutes,
        )  # fmt: skip
        if not history or result.score(options.watch) > max(item.score(options.watch) for item in history):
            _save(folder / "best.pt", {"average": average.state_dict(), "result": asdict(result)})
        history.append(result)
        _save(
            last,
            {
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step,
                "elapsed": elapsed,
                "history": [asdict(item) for item in history],
            }
            | state_of(learn),
        )
    if weary(history, options) and len(history) < options.epochs:
        logger.info("ended early: %d epochs brought no better %s", options.patience, options.watch)
    workers.shutdown()
    best = torch.load(folder / "best.pt", map_location="cpu", weights_only=True)
    average.load_state_dict(chosen_weights(best["average"], average.state_dict(), configuration.export.weights))
    return Fitted(average.cpu().eval(), EpochResult(**best["result"]), tuple(history))


def chosen_weights(
    best: Mapping[str, Tensor], last: Mapping[str, Tensor], choice: Literal["best", "last", "mean"]
) -> dict[str, Tensor]:
    """The weights that a configuration's ``export.weights`` asks for.

    ``mean`` lies halfway between two points of one run, where the loss is as low and the answers are steadier
    (Izmailov et al., "Averaging Weights Leads to Wider Optima", UAI 2018); counters are the last epoch's.
    """
    if choice == "mean":
        return {
            name: (best[name].cpu() + value.cpu()) / 2 if value.dtype.is_floating_point else value
            for name, value in last.items()
        }
    return dict(best if choice == "best" else last)


def validate(
    network: nn.Module,
    crops: Crops,
    rows: list[int],
    configuration: TrainingConfiguration,
    workers: ThreadPoolExecutor,
) -> tuple[float, float, float]:
    """Balanced accuracy (equal class frequencies), mean Jaccard at input size and macro AUC, over plain crops.

    Not a number where no image has a diagnosis, or an outline.

    Raises:
        Diverged: the network's answers are no numbers.
    """
    network.eval()
    device = next(network.parameters()).device
    turn = nullcontext() if device.type == "cpu" else Lock()

    def answer(some: list[int]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        batch = plain_batch(crops, some, configuration).to(device)
        with turn, torch.inference_mode():
            outputs: NetworkOutputs = network(batch.image)
        drawn, truth = outputs.mask_logits > 0, batch.mask > 0.5
        both = (drawn & truth).sum(dim=(1, 2, 3)).double()
        either = (drawn | truth).sum(dim=(1, 2, 3)).double()
        overlap = torch.where(either > 0, both / either.clamp(min=1), 1.0)
        overlap = torch.where(batch.outlined, overlap, torch.nan)
        probability = outputs.class_logits.float().softmax(dim=1)
        return batch.target.cpu().numpy(), probability.cpu().numpy(), overlap.cpu().numpy()

    answers = list(workers.map(answer, [rows[start : start + 32] for start in range(0, len(rows), 32)]))
    target, probability, overlap = (np.concatenate(part) for part in zip(*answers, strict=True))
    if not np.isfinite(probability).all():
        raise Diverged("the network's answers on the validation fold are no numbers: lower the rates")
    known, outlined = target >= 0, ~np.isnan(overlap)
    accuracy = auc = float("nan")
    if known.any():
        accuracy = float(balanced_accuracy_score(target[known], probability[known].argmax(axis=1)))
        auc = macro_auc(probability[known].astype(np.float64), target[known])
    return accuracy, float(overlap[outlined].mean()) if outlined.any() else float("nan"), auc


def _one_thread() -> None:
    """Each worker computes alone: parts of a batch side by side lose less than threads that meet at every layer."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average towards the network; integer buffers are copied."""
    with torch.no_grad():
        floats: tuple[list[Any], list[Any]] = ([], [])
        for mean, now in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                floats[0].append(mean)
                floats[1].append(now)
            else:
                mean.copy_(now)
        torch._foreach_lerp_(floats[0], floats[1], 1 - decay)


def _save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def _progress() -> Progress:
    """A progress bar on the terminal, nothing where there is none (the log file has the figures)."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True,
    )  # fmt: skip
