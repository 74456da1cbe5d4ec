"""The ROC curve, what can be read from it, and what the manifest's operating points do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.evaluation.figures import Sample, share
from models.evaluation.resampling import Bools, Float64, area_under_curve, estimate, rounded

SENSITIVITIES = (0.90, 0.95)
"""Melanoma sensitivities at which the specificity is read from the curve."""
SPECIFICITIES = (0.80, 0.85, 0.90)
"""Specificities at which the melanoma sensitivity is read from the curve."""
_POINTS = 120


def roc(score: Float64, positive: Bools, weights: Float64) -> dict[str, Any]:
    """The curve of ``score`` [N] (at most 120 points of it), its area, and the points read from it.

    The points answer "what could this model do here", not "what does it do": their thresholds are chosen on these
    images. What it does with the threshold in its manifest is `operating_point`.
    """
    if not positive.any() or positive.all():
        return {"images": len(score), "positive": int(positive.sum()), "area": None, "curve": [], "read": []}
    sensitivity, specificity = _sweep(score, positive, weights)
    read = []
    for wanted in SENSITIVITIES:
        reached = sensitivity >= wanted - 1e-9
        best = np.where(reached, specificity, -1.0).max(axis=1)
        read.append({"at": "sensitivity", "wanted": wanted, "gives": "specificity", **estimate(_known(best))})
    for wanted in SPECIFICITIES:
        best = np.where(specificity >= wanted - 1e-9, sensitivity, -1.0).max(axis=1)
        read.append({"at": "specificity", "wanted": wanted, "gives": "sensitivity", **estimate(_known(best))})
    curve = _thinned(1.0 - specificity[0], sensitivity[0])
    return {
        "images": len(score),
        "positive": int(positive.sum()),
        "area": estimate(area_under_curve(score, positive, weights)),
        "curve": curve,
        "read": read,
    }


def operating_point(
    sample: Sample, classes: Sequence[str], threshold: float, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """What a threshold fixed elsewhere does here; ``chosen`` is what the manifest says of its own fold."""
    called = sample.score(classes) >= threshold
    positive = sample.positive(classes)
    return {
        "classes": list(classes),
        "probability": rounded(threshold, 6),
        "positive": int(positive.sum()),
        "sensitivity": share(sample, called, positive),
        "specificity": share(sample, ~called, ~positive),
        "called": rounded(float(called.mean())) if len(called) else None,
        "chosen": {name: value for name, value in chosen.items() if value is not None},
    }


def _sweep(score: Float64, positive: Bools, weights: Float64) -> tuple[Float64, Float64]:
    """Sensitivity and specificity [R, T + 1] of "score at or above t", t from above the highest score downwards."""
    order = np.argsort(-score, kind="stable")
    _, counts = np.unique(-score[order], return_counts=True)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    ordered, truth = weights[:, order], positive[order]
    hits = np.cumsum(np.add.reduceat(ordered * truth, starts, axis=1), axis=1)
    alarms = np.cumsum(np.add.reduceat(ordered * ~truth, starts, axis=1), axis=1)
    start = np.zeros((len(weights), 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = np.hstack([start, hits]) / hits[:, -1:]
        specificity = 1.0 - np.hstack([start, alarms]) / alarms[:, -1:]
    return np.asarray(sensitivity), np.asarray(specificity)


def _known(best: Float64) -> Float64:
    """Draws without a positive or a negative have no figure."""
    return np.where(best < 0.0, np.nan, best)


def _thinned(x: Float64, y: Float64) -> list[list[float]]:
    """At most 120 points of a curve, its ends among them; of points on a straight line only the ends."""
    turns = np.ones(len(x), dtype=bool)
    if len(x) > 2:
        before, after = np.diff(x)[:-1] * np.diff(y)[1:], np.diff(x)[1:] * np.diff(y)[:-1]
        turns[1:-1] = np.abs(before - after) > 1e-12
    x, y = x[turns], y[turns]
    chosen = np.unique(np.linspace(0, len(x) - 1, min(_POINTS, len(x))).round().astype(int))
    return [[round(float(a), 4), round(float(b), 4)] for a, b in zip(x[chosen], y[chosen], strict=True)]
