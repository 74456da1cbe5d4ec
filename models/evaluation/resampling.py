"""Intervals of figures: resampled lesions for anything, Wilson's for shares; and an area under the curve with weights.

Images of one lesion are alike, so a bootstrap draws lesions, never images (Field and Welsh, "Bootstrapping clustered
data", J R Stat Soc B 69:369, 2007). A figure is written once, as a function of weights [R, N] to values [R]: row 0
weighs the sample itself, the other rows are draws, and figures that share the draws can be compared pair by pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

DRAWS = 1000
"""How often a bootstrap draws unless it is told otherwise."""
LEVEL = 0.95
"""Confidence level of every interval in a report."""


def lesion_weights(groups: Sequence[str], draws: int = DRAWS, seed: int = 0) -> Float64:
    """How often each image counts, [1 + draws, N]: ones, then one resampling of the lesions in ``groups`` per row."""
    names, lesion = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if not len(names):
        return np.ones((1 + draws, 0))
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(len(names), np.full(len(names), 1.0 / len(names)), size=draws)
    return np.vstack([np.ones((1, len(lesion))), drawn[:, lesion].astype(np.float64)])


def estimate(values: Float64, digits: int = 4) -> dict[str, Any]:
    """``{"value", "interval"}`` of a figure [1 + draws]: row 0 and the 2.5 and 97.5 percentiles of the draws.

    ``None`` where the figure does not exist (nothing to count), and for the interval where half of the draws have none.
    """
    drawn = values[1:][np.isfinite(values[1:])]
    interval = None
    if np.isfinite(values[0]) and len(drawn) >= max(1, (len(values) - 1) / 2):
        tail = (1.0 - LEVEL) / 2.0
        interval = [rounded(value, digits) for value in np.quantile(drawn, (tail, 1.0 - tail))]
    return {"value": rounded(values[0], digits), "interval": interval}


def rounded(value: float, digits: int = 4) -> float | None:
    """A number for JSON; ``None`` where it is not finite. Rounded half to even, never to minus zero."""
    return round(float(value), digits) + 0.0 if math.isfinite(value) else None


def mean(values: Float64, weights: Float64) -> Float64:
    """Weighted mean of ``values`` [N] for each row of ``weights`` [R, N]; not a number where the weights sum to 0."""
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weights @ values) / total, dtype=np.float64)


def balanced_accuracy(right: Float64, target: npt.NDArray[np.int64], weights: Float64) -> Float64:
    """Mean over the classes in ``target`` [N] of the share that is ``right`` [N, 0…1], for each row of ``weights``.

    A draw that misses a class altogether is averaged over the classes that it has.
    """
    shares = [mean(right[target == k], weights[:, target == k]) for k in np.unique(target)]
    if not shares:
        return np.full(len(weights), np.nan)
    stacked = np.array(shares)
    known = np.isfinite(stacked)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, stacked, 0.0).sum(axis=0) / known.sum(axis=0), dtype=np.float64)


def area_under_curve(score: Float64, positive: Bools, weights: Float64) -> Float64:
    """Area under the ROC curve of ``score`` [N] for each row of ``weights``: Mann and Whitney's U, ties count half."""
    if not positive.any() or positive.all():
        return np.full(len(weights), np.nan)
    order = np.argsort(score, kind="stable")
    _, starts = np.unique(score[order], return_index=True)
    ordered, truth = weights[:, order], positive[order]
    positives = np.add.reduceat(ordered * truth, starts, axis=1)
    negatives = np.add.reduceat(ordered * ~truth, starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((positives * (below + negatives / 2.0)).sum(axis=1) / pairs, dtype=np.float64)


def effective_number(groups: Sequence[str]) -> float:
    """How many independent images ``groups`` are worth if all images of a lesion say the same: (Σnᵢ)² / Σnᵢ².

    Kish's effective sample size at an intra-class correlation of 1, so that it errs on the cautious side.
    """
    if not len(groups):
        return 0.0
    counts = np.unique(np.asarray(groups, dtype=str), return_counts=True)[1].astype(np.float64)
    return float(counts.sum() ** 2 / (counts**2).sum())


def wilson(share: float, number: float, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a ``share`` (0…1) among ``number`` independent cases (need not be whole).

    Wilson, J Am Stat Assoc 22:209 (1927). It stays within 0…1 and does not shrink to a point at 0 and 1, as a bootstrap
    does. (0, 1) where there is no case.
    """
    if number <= 0.0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    middle = (share + z * z / (2.0 * number)) / (1.0 + z * z / number)
    reach = z / (1.0 + z * z / number) * math.sqrt(share * (1.0 - share) / number + z * z / (4.0 * number**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)
