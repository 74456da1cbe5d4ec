"""Temperature and operating points, fitted on folds that no weight saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from models.training.configuration import CLASSES

Probabilities = NDArray[np.float64]


@dataclass(frozen=True)
class OperatingPoint:
    """A probability from which on a finding counts, and what that costs on the fold where it was chosen."""

    probability: float
    sensitivity: float
    specificity: float


def probabilities(logits: NDArray[np.float32], temperature: float) -> Probabilities:
    """Softmax of [N, 7] logits over ``temperature``."""
    scaled = logits.astype(np.float64) / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def negative_log_likelihood(probability: Probabilities, target: NDArray[np.int64]) -> float:
    """Mean of -log p(true class)."""
    return float(-np.log(np.clip(probability[np.arange(len(target)), target], 1e-12, 1)).mean())


def fit_temperature(logits: NDArray[np.float32], target: NDArray[np.int64]) -> float:
    """The temperature with the least negative log-likelihood (Guo et al., arXiv:1706.04599)."""
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(probabilities(logits, float(np.exp(log_t))), target),
        bounds=(-2.0, 2.0),
        method="bounded",
    )
    return float(np.exp(found.x))


def at_threshold(score: NDArray[np.float64], positive: NDArray[np.bool_], threshold: float) -> tuple[float, float]:
    """Sensitivity and specificity of ``score >= threshold``."""
    called = score >= threshold
    return share(called[positive]), share(~called[~positive])


def share(right: NDArray[np.bool_]) -> float:
    """The share that is true; not a number where there is nothing to count."""
    return float(right.mean()) if len(right) else float("nan")


def operating_point(
    probability: Probabilities, target: NDArray[np.int64], classes: tuple[str, ...], sensitivity: float
) -> OperatingPoint:
    """The highest threshold on the summed probability of ``classes`` that still finds ``sensitivity`` of them."""
    indices = [CLASSES.index(name) for name in classes]
    score = probability[:, indices].sum(axis=1)
    positive = np.isin(target, indices)
    ordered = np.sort(score[positive])[::-1]
    needed = max(1, int(np.ceil(sensitivity * len(ordered) - 1e-9)))
    threshold = float(np.floor(ordered[needed - 1] * 1e6) / 1e6)
    return OperatingPoint(threshold, *at_threshold(score, positive, threshold))
