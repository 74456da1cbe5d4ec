"""Batches for training and plain batches for evaluation, from decoded crops and a split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.preprocess import Placement
from models.training.augmentation import augment
from models.training.configuration import CLASSES, TrainingConfiguration
from models.training.datasets import CROP, Crops, Label, Pixels


@dataclass(frozen=True)
class Batch:
    """``image`` normalised float32 [N, 3, S, S], ``mask`` of 0 and 1 [N, 1, S, S], ``target`` class index [N]."""

    image: Tensor
    mask: Tensor
    target: Tensor


def normalised(pixels: Pixels, configuration: TrainingConfiguration) -> Tensor:
    """uint8 RGB [N, S, S, 3] to float32 [N, 3, S, S], channels last in memory."""
    mean = torch.tensor(configuration.input.mean)
    std = torch.tensor(configuration.input.std)
    scaled = (torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255 - mean) / std
    return scaled.permute(0, 3, 1, 2)


def draw_epoch(labels: list[Label], per_epoch: Mapping[str, int], generator: np.random.Generator) -> NDArray[np.int64]:
    """Shuffled indices into ``labels`` with ``per_epoch`` images of each class; a class runs out before it repeats."""
    drawn: list[NDArray[np.int64]] = []
    for name in CLASSES:
        rows = np.array([row for row, label in enumerate(labels) if label.diagnosis == name], dtype=np.int64)
        if not len(rows):
            continue
        wanted = per_epoch[name]
        repeats = [generator.permutation(rows) for _ in range(-(-wanted // len(rows)))]
        drawn.append(np.concatenate(repeats)[:wanted])
    return generator.permutation(np.concatenate(drawn))


def training_batches(
    crops: Crops, rows: list[int], configuration: TrainingConfiguration, epoch: int
) -> Iterator[Batch]:
    """The batches of one epoch; the same seed and epoch give the same batches."""
    generator = np.random.default_rng((configuration.seed, epoch))
    labels = [crops.labels[row] for row in rows]
    order = draw_epoch(labels, configuration.data.per_epoch, generator)
    size, count = configuration.input.size, configuration.optimisation.batch
    for start in range(0, len(order) - count + 1, count):
        chosen = order[start : start + count]
        views = [
            augment(
                np.asarray(crops.images[rows[k]]),
                np.asarray(crops.masks[rows[k]]),
                size,
                configuration.input.fill,
                configuration.augmentation,
                generator,
            )
            for k in chosen
        ]
        yield Batch(
            normalised(np.stack([view[0] for view in views]), configuration),
            torch.from_numpy(np.stack([view[1] for view in views])).float().div(255).unsqueeze(1),
            torch.tensor([CLASSES.index(labels[k].diagnosis) for k in chosen]),
        )


def limit_per_class(crops: Crops, rows: list[int], most: int) -> list[int]:
    """The rows without what exceeds ``most`` images of one class; spread evenly, always the same."""
    kept: list[int] = []
    for name in CLASSES:
        of_class = [row for row in rows if crops.labels[row].diagnosis == name]
        take = np.linspace(0, len(of_class) - 1, min(most, len(of_class))).round().astype(int)
        kept.extend(of_class[k] for k in take)
    return sorted(kept)


def steps_per_epoch(crops: Crops, rows: list[int], configuration: TrainingConfiguration) -> int:
    """How many batches :func:`training_batches` yields."""
    present = {crops.labels[row].diagnosis for row in rows}
    total = sum(count for name, count in configuration.data.per_epoch.items() if name in present)
    return total // configuration.optimisation.batch


def sampled_log_prior(configuration: TrainingConfiguration) -> Tensor:
    """Log of each class's share of an epoch, [7]."""
    counts = torch.tensor([float(configuration.data.per_epoch[name]) for name in CLASSES])
    return torch.log(counts / counts.sum())


def log_frequencies(crops: Crops, rows: list[int]) -> NDArray[np.float64]:
    """Log of each class's share among the given images, one image added to each, [7]."""
    counts = np.ones(len(CLASSES))
    for row in rows:
        counts[CLASSES.index(crops.labels[row].diagnosis)] += 1
    return np.asarray(np.log(counts / counts.sum()))


def plain_batches(
    crops: Crops, rows: list[int], configuration: TrainingConfiguration, count: int = 64
) -> Iterator[Batch]:
    """Letterboxed crops in order, unvaried; masks at input size."""
    size = configuration.input.size
    placement = Placement.fit(CROP, CROP, size)
    for start in range(0, len(rows), count):
        chosen = rows[start : start + count]
        images = [placement.apply(np.asarray(crops.images[row]), configuration.input.fill) for row in chosen]
        masks = [cv2.resize(np.asarray(crops.masks[row]), (size, size), interpolation=cv2.INTER_AREA) for row in chosen]
        yield Batch(
            normalised(np.stack(images), configuration),
            torch.from_numpy((np.stack(masks) > 127).astype(np.float32)).unsqueeze(1),
            torch.tensor([CLASSES.index(crops.labels[row].diagnosis) for row in chosen]),
        )
