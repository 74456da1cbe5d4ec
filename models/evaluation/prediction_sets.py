"""Whether the prediction sets keep their promise here: coverage per class, and how large they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.evaluation.figures import Sample
from models.evaluation.resampling import Bools, Float64, effective_number, estimate, mean, rounded, wilson
from models.uncertainty import Rule


def members(sample: Sample, rule: Rule) -> Bools:
    """Which classes are in the set of each image, [N, C]: as `Rule.predict` has it, the called class always."""
    assert rule.thresholds is not None, "a model without prediction sets has none to judge"
    kept = np.asarray(sample.probability >= rule.thresholds)
    kept[np.arange(len(sample.target)), sample.called] = True
    return kept


def prediction_sets(sample: Sample, rule: Rule, alpha: float, weights: Float64) -> dict[str, Any]:
    """Coverage (share of images whose true class is in the set) in all, per class, and the sizes of the sets.

    A class keeps the promise where the upper end of its interval (Wilson, over lesions) reaches 1 - ``alpha``.
    """
    kept = members(sample, rule)
    covered, sizes = kept[np.arange(len(sample.target)), sample.target], kept.sum(axis=1)
    table = {}
    for k, name in enumerate(sample.classes):
        inside = sample.target == k
        if not inside.any():
            continue
        share = float(covered[inside].mean())
        number = effective_number([sample.groups[row] for row in np.flatnonzero(inside)])
        low, high = wilson(share, number)
        table[name] = {
            "images": int(inside.sum()),
            "coverage": rounded(share),
            "interval": [rounded(low), rounded(high)],
            "promised": rounded(1.0 - alpha),
            "kept": bool(high >= 1.0 - alpha),
            "mean_size": rounded(float(sizes[inside].mean()), 2),
        }
    return {
        "promised": rounded(1.0 - alpha),
        "largest_set": rule.largest_set,
        "coverage": estimate(mean(covered.astype(np.float64), weights)),
        "mean_size": rounded(float(sizes.mean()), 3),
        "sizes": {str(size): int((sizes == size).sum()) for size in range(1, len(sample.classes) + 1)},
        "by_class": table,
    }
