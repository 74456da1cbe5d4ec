"""Figures of diagnosis from probabilities: one function per figure, each with an interval over resampled lesions.

Every function takes a `Sample` and weights [R, N] (`resampling.lesion_weights`) and gives one value per row, so that
all figures of a report share their draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.evaluation.resampling import (
    Bools,
    Float64,
    area_under_curve,
    balanced_accuracy,
    effective_number,
    estimate,
    mean,
    rounded,
    wilson,
)

Int64 = npt.NDArray[np.int64]
BINS = 15


@dataclass(frozen=True)
class Sample:
    """N labelled images: calibrated ``probability`` [N, C], true class ``target`` [N], class ``called`` [N]."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    probability: Float64
    target: Int64
    called: Int64
    groups: tuple[str, ...]

    @property
    def right(self) -> Float64:
        """1 where the called class is the true one, else 0."""
        return (self.called == self.target).astype(np.float64)

    def score(self, names: Sequence[str]) -> Float64:
        """Summed probability of some classes, [N]."""
        return np.asarray(self.probability[:, [self.classes.index(name) for name in names]].sum(axis=1))

    def positive(self, names: Sequence[str]) -> Bools:
        """Whether the true class is among ``names``, [N]."""
        return np.isin(self.target, [self.classes.index(name) for name in names])


def main_figures(sample: Sample, weights: Float64) -> dict[str, dict[str, Any]]:
    """The figures that a reader looks for first, each ``{"value", "interval"}``."""
    truth = np.eye(len(sample.classes))[sample.target]
    brier = ((sample.probability - truth) ** 2).sum(axis=1)
    likelihood = -np.log(np.clip(sample.probability[np.arange(len(sample.target)), sample.target], 1e-12, 1.0))
    values = {
        "balanced_accuracy": balanced_accuracy(sample.right, sample.target, weights),
        "accuracy": mean(sample.right, weights),
        "macro_f1": macro_f1(sample, weights),
        "macro_auc": macro_auc(sample, weights),
        "melanoma_auc": area_under_curve(sample.score(["mel"]), sample.positive(["mel"]), weights),
        "expected_calibration_error": calibration_error(sample, weights),
        "brier": mean(brier, weights),
        "negative_log_likelihood": mean(likelihood, weights),
    }
    return {name: estimate(drawn) for name, drawn in values.items()}


def macro_f1(sample: Sample, weights: Float64) -> Float64:
    """Mean F1 over the classes that occur or are called, for each row of ``weights``."""
    parts = []
    for k in range(len(sample.classes)):
        true, said = sample.target == k, sample.called == k
        if not (true | said).any():
            continue
        hits = weights[:, true & said].sum(axis=1)
        total = weights[:, true].sum(axis=1) + weights[:, said].sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            parts.append(2.0 * hits / total)
    return _mean_of_known(parts, len(weights))


def macro_auc(sample: Sample, weights: Float64) -> Float64:
    """Mean area under the ROC curve, each class against the rest, over the classes that have one."""
    areas = [
        area_under_curve(sample.probability[:, k], sample.target == k, weights) for k in range(len(sample.classes))
    ]
    return _mean_of_known(areas, len(weights))


def calibration_error(sample: Sample, weights: Float64, bins: int = BINS) -> Float64:
    """Expected calibration error of the most probable class, equal-width bins (Guo et al., arXiv:1706.04599)."""
    confidence = sample.probability.max(axis=1)
    right = (sample.probability.argmax(axis=1) == sample.target).astype(np.float64)
    gaps = [
        np.abs(weights[:, inside] @ (confidence[inside] - right[inside])) for inside in _bins(confidence, bins).values()
    ]
    total = weights.sum(axis=1)
    if not gaps:
        return np.full(len(weights), np.nan)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sum(gaps, axis=0) / total)


def confusion(sample: Sample) -> dict[str, Any]:
    """Counts, true classes in rows and called classes in columns."""
    size = len(sample.classes)
    counts = np.zeros((size, size), np.int64)
    np.add.at(counts, (sample.target, sample.called), 1)
    return {"rows": "true", "columns": "called", "classes": list(sample.classes), "counts": counts.tolist()}


def per_class(sample: Sample, weights: Float64) -> dict[str, dict[str, Any]]:
    """Each class against the rest; figures are ``None`` where the class does not occur."""
    table: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(sample.classes):
        true, said = sample.target == k, sample.called == k
        area = area_under_curve(sample.probability[:, k], true, weights)
        table[name] = {
            "images": int(true.sum()),
            "called": int(said.sum()),
            "sensitivity": share(sample, said, true),
            "specificity": share(sample, ~said, ~true),
            "precision": share(sample, true, said),
            "auc": estimate(area),
        }
    return table


def share(sample: Sample, hit: Bools, among: Bools) -> dict[str, Any]:
    """Share of ``hit`` [N] among some images, with Wilson's interval over their lesions.

    A bootstrap would claim certainty where all of three images agree.
    """
    if not among.any():
        return {"value": None, "interval": None}
    found = float(hit[among].mean())
    limits = wilson(found, effective_number([sample.groups[row] for row in np.flatnonzero(among)]))
    return {"value": rounded(found), "interval": [rounded(limit) for limit in limits]}


def reliability(score: Float64, right: Float64, bins: int = 10) -> list[dict[str, Any]]:
    """Stated probability against the observed share, per bin of equal width that holds any image."""
    return [
        {
            "low": round(number / bins, 4),
            "high": round((number + 1) / bins, 4),
            "images": int(inside.sum()),
            "stated": rounded(float(score[inside].mean())),
            "observed": rounded(float(right[inside].mean())),
        }
        for number, inside in _bins(score, bins).items()
    ]


def _bins(score: Float64, bins: int) -> dict[int, Bools]:
    """Which images lie in which bin of equal width; empty bins are left out."""
    number = np.minimum((score * bins).astype(int), bins - 1)
    return {int(k): number == k for k in np.unique(number)}


def _mean_of_known(parts: Sequence[Float64], rows: int) -> Float64:
    if not parts:
        return np.full(rows, np.nan)
    stacked = np.array(parts)
    known = np.isfinite(stacked)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(known, stacked, 0.0).sum(axis=0) / known.sum(axis=0))
