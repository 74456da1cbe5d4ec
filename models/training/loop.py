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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

from models.training.architectures import build_network
from models.training.architectures.contract import LesionNetwork, NetworkOutputs
from models.training.batches import (
    draw_epoch,
    limit_per_class,
    plain_batch,
    sampled_log_prior,
    varied_batch,
)
from models.training.configuration import TrainingConfiguration
from models.training.datasets import Crops
from models.training.evaluation import macro_auc
from models.training.losses import total_loss

logger = logging.getLogger("models.training")


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
        """What the best epoch is chosen by: ``watch`` (a figure's name) plus the mean Jaccard."""
        return float(getattr(self, watch)) + self.jaccard


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


def fit(
    configuration: TrainingConfiguration,
    crops: Crops,
    train_rows: list[int],
    validation_rows: list[int],
    folder: Path,
    start: Path | None = None,
) -> Fitted:
    """Train, or go on with what ``folder`` holds; returns the best epoch's averaged network.

    ``folder`` gets ``last.pt`` after every epoch and ``best.pt`` whenever validation improves. ``start`` is the
    ``best.pt`` of another run of the same architecture, to begin with its weights.
    """
    options = configuration.optimisation
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(configuration.seed)
    network = build_network(configuration.architecture).to(memory_format=torch.channels_last)
    if start is not None:
        network.load_state_dict(torch.load(start, map_location="cpu", weights_only=True)["average"])
    average = copy.deepcopy(network)
    lesion_network = cast(LesionNetwork, network)
    optimiser = torch.optim.AdamW(
        [
            {"params": list(lesion_network.pretrained_parameters()), "peak": options.encoder_rate},
            {"params": list(lesion_network.fresh_parameters()), "peak": options.fresh_rate},
        ],
        lr=options.encoder_rate,
        weight_decay=options.weight_decay,
    )
    watched = limit_per_class(crops, validation_rows, options.watched_per_class)
    per_epoch = len(draw_epoch(crops, train_rows, configuration, 0))
    total = per_epoch * options.epochs
    log_prior = sampled_log_prior(configuration)
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
        logger.info("going on after epoch %d of %d (%.1f min so far)", len(history), options.epochs, elapsed / 60)

    workers = ThreadPoolExecutor(options.threads, initializer=_one_thread)

    def progress_now(step: int, seconds: float) -> float:
        share = step / total
        return share if options.minutes is None else max(share, seconds / (60 * options.minutes))

    while len(history) < options.epochs and progress_now(step, elapsed) < 1:
        epoch = len(history)
        torch.manual_seed(configuration.seed * 1000 + epoch)
        network.train()
        began, before, losses = time.monotonic(), elapsed, []
        with _progress() as bar:
            task = bar.add_task(f"epoch {epoch + 1}/{options.epochs}", total=per_epoch)
            for pairs in draw_epoch(crops, train_rows, configuration, epoch):
                progress = progress_now(step, elapsed)
                if progress >= 1:
                    break
                for group in optimiser.param_groups:
                    group["lr"] = group["peak"] * rate_factor(progress, options.warmup)
                optimiser.zero_grad(set_to_none=False)
                shares = [share for k in range(options.threads) if (share := pairs[k :: options.threads])]
                parts = [
                    workers.submit(_backward, network, crops, share, configuration, epoch, log_prior)
                    for share in shares
                ]
                loss = sum(part.result() for part in parts)
                nn.utils.clip_grad_norm_(network.parameters(), options.clip)
                optimiser.step()
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
            },
        )
    workers.shutdown()
    best = torch.load(folder / "best.pt", map_location="cpu", weights_only=True)
    average.load_state_dict(best["average"])
    return Fitted(average.eval(), EpochResult(**best["result"]), tuple(history))


def validate(
    network: nn.Module,
    crops: Crops,
    rows: list[int],
    configuration: TrainingConfiguration,
    workers: ThreadPoolExecutor,
) -> tuple[float, float, float]:
    """Balanced accuracy (equal class frequencies), mean Jaccard at input size and macro AUC, over plain crops."""
    network.eval()

    def answer(some: list[int]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        batch = plain_batch(crops, some, configuration)
        with torch.inference_mode():
            outputs: NetworkOutputs = network(batch.image)
        drawn, truth = outputs.mask_logits > 0, batch.mask > 0.5
        both = (drawn & truth).sum(dim=(1, 2, 3)).double()
        either = (drawn | truth).sum(dim=(1, 2, 3)).double()
        overlap = torch.where(either > 0, both / either.clamp(min=1), 1.0)
        return batch.target.numpy(), outputs.class_logits.float().softmax(dim=1).numpy(), overlap.numpy()

    answers = list(workers.map(answer, [rows[start : start + 32] for start in range(0, len(rows), 32)]))
    target, probability, overlap = (np.concatenate(part) for part in zip(*answers, strict=True))
    known = target >= 0
    guess = probability[known].argmax(axis=1)
    accuracy = float(balanced_accuracy_score(target[known], guess))
    return accuracy, float(overlap.mean()), macro_auc(probability[known].astype(np.float64), target[known])


def _backward(
    network: nn.Module,
    crops: Crops,
    pairs: list[tuple[int, int]],
    configuration: TrainingConfiguration,
    epoch: int,
    log_prior: Tensor,
) -> float:
    """One thread's part of a step: its images, forward, and gradients added to those of the other threads."""
    batch = varied_batch(crops, pairs, configuration, epoch)
    bfloat16 = configuration.optimisation.precision == "bfloat16"
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        outputs: NetworkOutputs = network(batch.image)
    loss = total_loss(outputs, batch.target, batch.mask, log_prior, configuration.losses)
    loss = loss * len(pairs) / configuration.optimisation.batch
    loss.backward()
    return float(loss.detach())


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
