"""Prediction sets that hold the true class of all but a share ``alpha`` of each class's images.

Class-conditional (Mondrian) split conformal prediction (Vovk, "Conditional validity of inductive conformal
predictors", ACML 2012) with the score 1 - p of the true class (LAC; Sadinle, Lei, Wasserman, JASA 2019): one quantile
per class, from `mapie`. mapie's own classifier has one quantile for all, so a class that is rare and hard would be left
out much more often than ``alpha``.

Images of one lesion are alike, so the unit that is exchangeable is the lesion: each draw takes one image of every
lesion, and the threshold is the median over draws (repeated subsampling; Dunn, Wasserman, Ramdas, "Distribution-free
prediction sets for two-layer hierarchical models", JASA 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mapie.conformity_scores import LACConformityScore
from numpy.typing import NDArray

from models.evaluation.resampling import wilson
from models.training.configuration import CLASSES
from models.uncertainty import Rule

Probabilities = NDArray[np.float64]
Targets = NDArray[np.int64]

#: Share of each class's images whose set may miss it.
ALPHA = 0.10
#: A set with more of the seven classes than this leaves more open than it answers: the service then abstains.
LARGEST_SET = 3
DRAWS = 101


@dataclass(frozen=True)
class SetThresholds:
    """Per class the probability from which on it is in the set, [7], and the lesions that each rests on, [7].

    A class with too few lesions for ``alpha`` has threshold 0: it cannot be excluded, and is in every set.
    """

    alpha: float
    threshold: Probabilities
    lesions: NDArray[np.int64]

    def document(self, fold: str) -> dict[str, Any]:
        """The manifest's ``prediction_sets``."""
        return {
            "method": "mondrian-lac",
            "alpha": self.alpha,
            "thresholds": dict(zip(CLASSES, self.threshold.tolist(), strict=True)),
            "largest_set": LARGEST_SET,
            "lesions": dict(zip(CLASSES, self.lesions.tolist(), strict=True)),
            "fold": fold,
        }


def fit_sets(
    probability: Probabilities, target: Targets, lesions: Sequence[str], seed: int, alpha: float = ALPHA
) -> SetThresholds:
    """Thresholds from calibrated ``probability`` [N, 7] of images that the calibration did not see."""
    random = np.random.default_rng(seed)
    threshold, counts = np.zeros(len(CLASSES)), np.zeros(len(CLASSES), np.int64)
    for k in range(len(CLASSES)):
        rows = np.flatnonzero(target == k)
        names, lesion = np.unique(np.asarray(lesions)[rows], return_inverse=True)
        counts[k] = len(names)
        if np.ceil((len(names) + 1) * (1 - alpha)) > len(names):
            continue
        images = [rows[lesion == number] for number in range(len(names))]
        drawn = [
            _quantile(probability[[random.choice(one) for one in images]], k, alpha)
            for _ in range(DRAWS if len(rows) > len(names) else 1)
        ]
        threshold[k] = max(0.0, 1.0 - float(np.median(drawn)) - 1e-9)  # the subtraction must not lose what it equals
    return SetThresholds(alpha, threshold, counts)


def coverage(probability: Probabilities, target: Targets, rule: Rule, sources: Sequence[str] = ()) -> dict[str, Any]:
    """How often the sets that the service gives hold the true class, and how large they are.

    Per class and, where ``sources`` [N] names one for each image, per source; shares with 95 % Wilson intervals (of
    images, taken as independent). ``set_sizes``: how many images have a set of 1, 2, … 7 classes; ``abstained``: the
    share whose set is too large for an answer.
    """
    sets = rule.sets(probability)
    held, size = sets[np.arange(len(target)), target], sets.sum(axis=1)
    groups = {name: np.asarray(sources) == name for name in sorted(set(sources))}
    return {
        "all": _covered(held, size),
        "per_class": {name: _covered(held[target == k], size[target == k]) for k, name in enumerate(CLASSES)},
        "per_source": {name: _covered(held[here], size[here]) for name, here in groups.items()},
        "set_sizes": np.bincount(size, minlength=len(CLASSES) + 1)[1:].tolist(),
        "abstained": float((size > rule.largest_set).mean()),
    }


def _covered(held: NDArray[np.bool_], size: NDArray[np.int64]) -> dict[str, Any]:
    count = len(held)
    return {
        "images": count,
        "coverage": float(held.mean()) if count else None,
        "coverage_95": list(wilson(float(held.mean()), count)) if count else None,
        "mean_set_size": float(size.mean()) if count else None,
    }


def _quantile(probability: Probabilities, k: int, alpha: float) -> float:
    """The conformal quantile of 1 - p of class ``k`` over images of that class, [N, 7]."""
    score = LACConformityScore()
    found = score.get_conformity_scores(np.array([]), probability, y_enc=np.full(len(probability), k))
    return float(score.get_conformity_score_quantiles(found, np.array([alpha]), cv="prefit")[0])
