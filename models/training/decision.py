"""From the logits of held-out folds to everything that turns a logit into an answer: one call for the package.

Calibration on the calibration fold; decision weights, prediction sets and operating points on validation and
calibration fold together, because the rare classes have a handful of lesions in each. Of the calibration fold they see
probabilities that were fitted without the lesion in question, of the validation fold those of the final fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score

from models.manifest import Decision, PredictionSets
from models.training.calibration import (
    LABELS,
    OperatingPoint,
    Probabilities,
    Targets,
    calibration_document,
    choose_calibration,
    safe_operating_point,
)
from models.training.configuration import CLASSES
from models.training.conformal import fit_sets
from models.uncertainty import Rule, probabilities

#: What the decision weights are to reach together.
BALANCED_ACCURACY_AIM = 0.80
MACRO_F1_AIM = 0.74
#: Tried exponents t of the weights (class frequency)^-t: 0 calls the most probable class, 1 the one that is best for
#: balanced accuracy if the probabilities are right.
EXPONENTS = tuple(round(0.1 * step, 1) for step in range(13))
POOLED = "validation and calibration"


@dataclass(frozen=True)
class HeldOut:
    """A fold that no weight saw: ``logits`` [N, 7], ``target`` [N], and the lesion of each image."""

    logits: NDArray[np.float32]
    target: Targets
    lesions: Sequence[str]


@dataclass(frozen=True)
class Answering:
    """The manifest's parts, and the same as the run time reads them."""

    calibration: dict[str, Any]
    decision: dict[str, Any]
    prediction_sets: dict[str, Any]
    points: dict[str, OperatingPoint]
    rule: Rule


def fit_answering(
    validation: HeldOut, calibration: HeldOut, groups: dict[str, tuple[str, ...]], sensitivity: float, seed: int
) -> Answering:
    """Fit all of it. ``groups``: the classes of each operating point by name, each to find ``sensitivity`` of them."""
    choice = choose_calibration(calibration.logits, calibration.target, calibration.lesions, seed)
    probability = np.concatenate([probabilities(validation.logits, choice.calibration, LABELS), choice.left_out])
    target = np.concatenate([validation.target, calibration.target])
    lesions = [*validation.lesions, *calibration.lesions]
    decision = decision_weights(probability, target)
    sets = fit_sets(probability, target, lesions, seed).document(POOLED)
    weights = Decision.model_validate(decision).weights
    thresholds = PredictionSets.model_validate(sets).thresholds
    return Answering(
        calibration_document(choice),
        decision,
        sets,
        {
            name: safe_operating_point(probability, target, classes, sensitivity, lesions, seed)
            for name, classes in groups.items()
        },
        Rule(
            LABELS,
            choice.calibration,
            np.array([weights[label] for label in LABELS]),
            np.array([thresholds[label] for label in LABELS]),
            sets["largest_set"],
        ),
    )


def decision_weights(probability: Probabilities, target: Targets) -> dict[str, Any]:
    """The manifest's ``decision``: weights (class frequency)^-t, 1 for the most frequent class.

    The exponent t is the one that comes nearest to both aims, by the smaller of balanced accuracy / its aim and macro
    F1 / its aim. One number is chosen and not seven: on lesions that were left out, weights refined class by class were
    no better (docs/analysis.md). A class that does not occur is weighted like the rarest that does.
    """
    counts = np.bincount(target, minlength=len(CLASSES)).astype(np.float64)
    counts[counts == 0] = counts[counts > 0].min()
    tried = []
    for exponent in EXPONENTS:
        called = (probability * _weights(counts, exponent)).argmax(axis=1)
        tried.append(
            {
                "exponent": exponent,
                "balanced_accuracy": float(balanced_accuracy_score(target, called)),
                "macro_f1": float(f1_score(target, called, average="macro", zero_division=0.0)),
                "changed": float((called != probability.argmax(axis=1)).mean()),
            }
        )
    best = max(
        tried, key=lambda one: min(one["balanced_accuracy"] / BALANCED_ACCURACY_AIM, one["macro_f1"] / MACRO_F1_AIM)
    )
    weights = _weights(counts, best["exponent"])
    return {"weights": dict(zip(CLASSES, weights.tolist(), strict=True)), "fold": POOLED, **best}


def stated_point(point: OperatingPoint) -> dict[str, Any]:
    """An operating point as the manifest states it."""
    return {**asdict(point), "fold": POOLED}


def _weights(counts: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """(count / largest count)^-exponent."""
    return np.asarray((counts / counts.max()) ** -exponent)
