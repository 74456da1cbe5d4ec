"""Batches for training and plain batches for evaluation, from decoded crops and a split."""

from __future__ import annotations

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

#: Class index of an image without a diagnosis: it teaches the outline only.
UNKNOWN = -1


@dataclass(frozen=True)
class Batch:
    """``image`` normalised float32 [N, 3, S, S], ``mask`` of 0 and 1 [N, 1, S, S], ``target`` class index [N].

    ``target`` is :data:`UNKNOWN` where no diagnosis is known; ``outlined`` [N] is false where ``mask`` says nothing.
    """

    image: Tensor
    mask: Tensor
    target: Tensor
    outlined: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; what is pinned travels while the device computes."""
        return Batch(*(field.to(device, non_blocking=True) for field in self._fields()))

    def part(self, start: int, stop: int) -> Batch:
        """Images ``start`` to ``stop``, exclusive."""
        return Batch(*(field[start:stop] for field in self._fields()))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU reads from directly."""
        return Batch(*(field.pin_memory() for field in self._fields()))

    def _fields(self) -> tuple[Tensor, ...]:
        """The four tensors in order."""
        return self.image, self.mask, self.target, self.outlined


def normalised(pixels: Pixels, configuration: TrainingConfiguration) -> Tensor:
    """uint8 RGB [N, S, S, 3] to float32 [N, 3, S, S], channels last in memory."""
    mean = torch.tensor(configuration.input.mean)
    std = torch.tensor(configuration.input.std)
    scaled = (torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255 - mean) / std
    return scaled.permute(0, 3, 1, 2)


def class_index(label: Label) -> int:
    """Place of the diagnosis among the classes, or :data:`UNKNOWN`."""
    return CLASSES.index(label.diagnosis) if label.diagnosis else UNKNOWN


def draw_epoch(
    crops: Crops, rows: list[int], configuration: TrainingConfiguration, epoch: int
) -> list[list[tuple[int, int]]]:
    """The batches of one epoch as ``(row, view)`` pairs, shuffled: ``per_epoch`` images of each class, or every image.

    A class runs out before it repeats. The same seed and epoch give the same batches, and ``view`` seeds how the image
    is varied, so that it does not matter which thread makes it.
    """
    generator = np.random.default_rng((configuration.seed, epoch))
    drawn: list[NDArray[np.int64]] = []
    if configuration.data.sampling == "natural":
        drawn.append(np.array(rows, dtype=np.int64))
    for name, wanted in {**configuration.data.per_epoch, "": configuration.data.undiagnosed_per_epoch}.items():
        of_class = np.array([row for row in rows if crops.labels[row].diagnosis == name], dtype=np.int64)
        if wanted and len(of_class):
            repeats = [generator.permutation(of_class) for _ in range(-(-wanted // len(of_class)))]
            drawn.append(np.concatenate(repeats)[:wanted])
    order = generator.permutation(np.concatenate(drawn))
    pairs = [(int(row), view) for view, row in enumerate(order)]
    count = configuration.optimisation.batch
    return [pairs[start : start + count] for start in range(0, len(pairs) - count + 1, count)]


def varied_batch(crops: Crops, pairs: list[tuple[int, int]], configuration: TrainingConfiguration, epoch: int) -> Batch:
    """Some varied training images."""
    views = [
        augment(
            np.asarray(crops.images[row]),
            np.asarray(crops.masks[row]),
            configuration.input.size,
            configuration.input.fill,
            configuration.augmentation,
            np.random.default_rng((configuration.seed, epoch, view)),
        )
        for row, view in pairs
    ]
    return Batch(
        normalised(np.stack([image for image, _ in views]), configuration),
        torch.from_numpy(np.stack([mask for _, mask in views])).float().div(255).unsqueeze(1),
        torch.tensor([class_index(crops.labels[row]) for row, _ in pairs]),
        torch.tensor([crops.labels[row].outlined for row, _ in pairs]),
    )


def plain_batch(crops: Crops, rows: list[int], configuration: TrainingConfiguration) -> Batch:
    """Some letterboxed crops, unvaried; masks at input size."""
    size = configuration.input.size
    placement = Placement.fit(CROP, CROP, size)
    images = [placement.apply(np.asarray(crops.images[row]), configuration.input.fill) for row in rows]
    masks = [cv2.resize(np.asarray(crops.masks[row]), (size, size), interpolation=cv2.INTER_AREA) for row in rows]
    return Batch(
        normalised(np.stack(images), configuration),
        torch.from_numpy((np.stack(masks) > 127).astype(np.float32)).unsqueeze(1),
        torch.tensor([class_index(crops.labels[row]) for row in rows]),
        torch.tensor([crops.labels[row].outlined for row in rows]),
    )


def limit_per_class(crops: Crops, rows: list[int], most: int) -> list[int]:
    """The rows without what exceeds ``most`` images of one class; spread evenly, always the same."""
    kept: list[int] = []
    for name in CLASSES:
        of_class = [row for row in rows if crops.labels[row].diagnosis == name]
        take = np.linspace(0, len(of_class) - 1, min(most, len(of_class))).round().astype(int)
        kept.extend(of_class[k] for k in take)
    return sorted(kept)


def sampled_log_prior(crops: Crops, rows: list[int], configuration: TrainingConfiguration) -> Tensor:
    """Log of each class's share of what an epoch draws from the training rows, [7]."""
    if configuration.data.sampling == "natural":
        return torch.from_numpy(log_frequencies(crops, rows)).float()
    counts = torch.tensor([float(configuration.data.per_epoch[name]) for name in CLASSES])
    return torch.log(counts / counts.sum())


def log_frequencies(crops: Crops, rows: list[int]) -> NDArray[np.float64]:
    """Log of each class's share among the given images that have a diagnosis, one image added to each, [7]."""
    counts = np.ones(len(CLASSES))
    for row in rows:
        if crops.labels[row].diagnosis:
            counts[class_index(crops.labels[row])] += 1
    return np.asarray(np.log(counts / counts.sum()))
