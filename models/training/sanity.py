"""The gate before export: a network that answers no better than a constant is not worth a package."""

from __future__ import annotations

import math

import numpy as np

from dermoscopy.errors import DermoscopyError
from models.training.batches import limit_per_class
from models.training.configuration import TrainingConfiguration
from models.training.datasets import Crops
from models.training.loop import EpochResult


class NotSane(DermoscopyError):
    """A trained network fails the sanity gate; the message names the figure, its value and what was asked."""


def refuse_insane(result: EpochResult, crops: Crops, rows: list[int], configuration: TrainingConfiguration) -> None:
    """Compare an epoch's figures on the validation rows with those of constant answers.

    One class for all has a balanced accuracy of one over the number of classes that occur. One outline for all is the
    set of pixels that at least half of the reference outlines hold.

    Raises:
        NotSane: a figure is no number, or does not exceed the constant's by the margin in ``sanity``.
    """
    margins = configuration.sanity
    watched = limit_per_class(crops, rows, configuration.optimisation.watched_per_class)
    classes = len({crops.labels[row].diagnosis for row in watched} - {""})
    wanted = {"balanced accuracy": (result.balanced_accuracy, 1 / classes, margins.balanced_accuracy)}
    outlined = [row for row in watched if crops.labels[row].outlined]
    if outlined:
        wanted["mean Jaccard"] = (result.jaccard, constant_outline(crops, outlined), margins.jaccard)
    if not math.isfinite(result.loss):
        raise NotSane(f"the loss of epoch {result.epoch} is {result.loss}: nothing is exported")
    for name, (reached, constant, margin) in wanted.items():
        if not reached >= constant + margin:
            raise NotSane(
                f"the {name} on the validation fold is {reached:.3f}; a constant answer gives {constant:.3f}, and "
                f"{constant + margin:.3f} is asked for (sanity in the configuration): nothing is exported. Train "
                "longer, look at the labels and at the loss in train.log, then give --restart"
            )


def constant_outline(crops: Crops, rows: list[int]) -> float:
    """Mean Jaccard of the one outline that holds what at least half of the reference outlines hold."""
    masks = np.stack([np.asarray(crops.masks[row])[::4, ::4] > 127 for row in rows])
    constant = masks.mean(axis=0) >= 0.5
    union = (masks | constant).sum(axis=(1, 2))
    both = (masks & constant).sum(axis=(1, 2))
    return float(np.where(union > 0, both / np.maximum(union, 1), 1.0).mean())
