"""Knowing when not to answer: error among the accepted images, against the share that is accepted.

Images are accepted in the order of a score of certainty; a good score leaves the errors for last. The area under the
risk-coverage curve (AURC) is the mean risk over all coverages (Geifman, Uziel, El-Yaniv, "Bias-Reduced Uncertainty
Estimation for Deep Neural Classifiers", ICLR 2019); ``excess`` is what it lies above that of a perfect order of the
same answers. Accuracy alone rewards a model that refuses every rare disease, so risk is also given balanced over the
true classes, with the share of each class that is accepted and the melanomas that are accepted and missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.evaluation.figures import Int64, Sample
from models.evaluation.resampling import Bools, Float64, balanced_accuracy, estimate, mean, rounded

COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7)
"""Shares of images accepted at which the table is read."""
MELANOMA = "mel"
_POINTS = 100


def certainties(probability: Float64, set_sizes: Int64 | None = None) -> dict[str, Float64]:
    """Scores [N] by name, higher is more certain, from calibrated ``probability`` [N, C].

    ``confidence``: the largest probability; ``margin``: largest minus second; ``entropy``: 1 minus the entropy over ln
    C; ``set_size``: the fewer classes a conformal prediction set has the better, by confidence among sets of one size.
    """
    ordered = np.sort(probability, axis=1)
    positive = np.where(probability > 0.0, probability, 1.0)
    entropy = -(probability * np.log(positive)).sum(axis=1) / np.log(probability.shape[1])
    scores = {"confidence": ordered[:, -1], "margin": ordered[:, -1] - ordered[:, -2], "entropy": 1.0 - entropy}
    if set_sizes is not None:
        scores["set_size"] = 0.5 * ordered[:, -1] - set_sizes
    return scores


def measure_selective(
    sample: Sample, weights: Float64, threshold: float, set_sizes: Int64 | None = None
) -> dict[str, Any]:
    """Risk against coverage for every score of certainty.

    Args:
        sample: N labelled images and their answers.
        weights: `resampling.lesion_weights` of the sample's groups, [1 + draws, N].
        threshold: probability at or above which the model warns of melanoma (the manifest's operating point).
        set_sizes: classes in each image's conformal prediction set [N], where the model has them.

    Returns:
        ``images``, ``lesions``, ``melanomas``, ``error`` (with no abstention), ``best`` (score with the least area) and
        ``scores``: by name the keys of `risk_coverage`. Empty ``scores`` without images.
    """
    wrong = 1.0 - sample.right
    scores = certainties(sample.probability, set_sizes) if len(wrong) else {}
    found = {name: risk_coverage(sample, score, weights, threshold) for name, score in scores.items()}
    return {
        "images": len(wrong),
        "lesions": len(set(sample.groups)),
        "melanomas": int(sample.positive([MELANOMA]).sum()),
        "error": estimate(mean(wrong, weights)),
        "best": min(found, key=lambda name: found[name]["area"]["value"]) if found else None,
        "scores": found,
    }


def risk_coverage(sample: Sample, score: Float64, weights: Float64, threshold: float) -> dict[str, Any]:
    """The curve of one ``score`` [N] and what is left at each of `COVERAGES`; arguments as in `measure_selective`.

    Returns:
        ``area`` (AURC), ``excess`` over the perfect order, each with its interval; ``optimal`` and ``random`` (the
        areas of the perfect and of no order); ``curve``: [coverage, risk] at up to 100 coverages; ``at``: one row per
        coverage with ``images``, ``accuracy``, ``balanced_accuracy``, ``balanced_risk``, ``melanomas`` accepted,
        ``missed`` (of those, below ``threshold``), ``called_otherwise`` (of those, another class is called) and
        ``accepted`` (share by true class).

    Images of equal score come in together: at the border each counts in part, so no order among them is invented.
    """
    wrong = 1.0 - sample.right
    area, optimal = _area(score, wrong, weights), _area(-wrong, wrong, weights)
    return {
        "area": estimate(area),
        "excess": estimate(area - optimal),
        "optimal": rounded(optimal[0]),
        "random": rounded(wrong.mean()),
        "curve": _curve(score, wrong),
        "at": [_row(sample, accepted(score, weights, share), weights, share, threshold) for share in COVERAGES],
    }


def accepted(score: Float64, weights: Float64, coverage: float) -> Float64:
    """How much of each image is accepted (0…1), [R, N], when the most certain ``coverage`` of the total weight is.

    The number of images is rounded up. Images of one score are accepted in equal parts.
    """
    tie = _ties(score)
    ordered = _by_tie(tie, weights)
    wanted = np.ceil(coverage * weights.sum(axis=1) - 1e-9)
    before = np.cumsum(ordered, axis=1) - ordered
    share = _share(wanted[:, None] - before, ordered)
    return np.asarray(np.clip(share, 0.0, 1.0)[:, tie], dtype=np.float64)


def _row(sample: Sample, taken: Float64, weights: Float64, coverage: float, threshold: float) -> Mapping[str, Any]:
    kept = weights * taken
    melanoma = sample.positive([MELANOMA])
    missed = melanoma & (sample.score([MELANOMA]) < threshold)
    balanced = balanced_accuracy(sample.right, sample.target, kept)
    return {
        "coverage": coverage,
        "images": _count(taken[0], np.ones(len(melanoma), dtype=bool)),
        "accuracy": estimate(mean(sample.right, kept)),
        "balanced_accuracy": estimate(balanced),
        "balanced_risk": estimate(1.0 - balanced),
        "melanomas": _count(taken[0], melanoma),
        "missed": _count(taken[0], missed),
        "called_otherwise": _count(taken[0], melanoma & (sample.right == 0.0)),
        "accepted": {
            name: rounded(taken[0][sample.target == k].mean())
            for k, name in enumerate(sample.classes)
            if (sample.target == k).any()
        },
    }


def _count(taken: Float64, which: Bools) -> float:
    """Images accepted; whole but for ties at the border."""
    number = round(float(taken[which].sum()), 2)
    return int(number) if number == int(number) else number


def _ties(score: Float64) -> Int64:
    """For each image the number of its group of equal scores, the most certain being 0."""
    return np.asarray(np.unique(-score, return_inverse=True)[1], dtype=np.int64)


def _by_tie(tie: Int64, values: Float64) -> Float64:
    """``values`` [R, N] summed over the images of each tie, [R, T]."""
    order = np.argsort(tie, kind="stable")
    starts = np.searchsorted(tie[order], np.arange(int(tie.max()) + 1))
    return np.asarray(np.add.reduceat(values[:, order], starts, axis=1), dtype=np.float64)


def _share(part: Float64, whole: Float64) -> Float64:
    """``part`` / ``whole``, 0 where there is no whole."""
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0.0), dtype=np.float64)


def _risks(score: Float64, wrong: Float64, weights: Float64) -> tuple[Float64, Float64]:
    """Risk after each image [R, N], most certain first, and the weights in that order.

    Within a tie every image counts with the tie's mean error: the expectation over all orders.
    """
    tie = _ties(score)
    rate = _share(_by_tie(tie, weights * wrong), _by_tie(tie, weights))
    order = np.argsort(tie, kind="stable")
    step = weights[:, order]
    return _share(np.cumsum(step * rate[:, tie[order]], axis=1), np.cumsum(step, axis=1)), step


def _area(score: Float64, wrong: Float64, weights: Float64) -> Float64:
    """Mean risk over all coverages for each row of ``weights``."""
    risks, step = _risks(score, wrong, weights)
    return np.asarray((risks * step).sum(axis=1) / step.sum(axis=1), dtype=np.float64)


def _curve(score: Float64, wrong: Float64) -> list[list[float]]:
    risk = _risks(score, wrong, np.ones((1, len(wrong))))[0][0]
    chosen = np.unique(np.ceil(np.linspace(0.0, 1.0, _POINTS + 1)[1:] * len(wrong)).astype(int))
    return [[round(int(count) / len(wrong), 4), round(float(risk[count - 1]), 4)] for count in chosen]
