"""How far another form of the same network moves its answers, and whether that is little enough to offer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from models.evaluation.dataset import Case
from models.evaluation.predict import Answers, Predictor
from models.evaluation.resampling import area_under_curve, balanced_accuracy, rounded
from models.manifest import Manifest
from models.session import NetworkOutput

DECIDING = "validation"
"""The fold whose figures decide. The test fold is measured and reported, and nothing is chosen by it."""
TOLERANCES: Mapping[str, float] = {
    "balanced_accuracy": 0.02,
    "melanoma_auc": 0.005,
    "melanoma_sensitivity": 0.02,
    "melanoma_specificity": 0.02,
    "mean_jaccard": 0.005,
}
"""How much of each figure a form may lose on the deciding fold: less than half the width of its 95 % interval there."""
CALLED_OTHERWISE = 0.05
"""Share of images at most whose called class may differ, whatever the figures say."""


def figures(answers: Answers, cases: Sequence[Case], manifest: Manifest) -> dict[str, float | None]:
    """The figures of `TOLERANCES` for ``answers`` to ``cases``, at the manifest's operating point."""
    classes = [label.value for label in manifest.classes]
    target = np.array([classes.index(case.diagnosis) if case.diagnosis in classes else -1 for case in cases], np.int64)
    known = target >= 0
    probability, truth = answers.probability[known], target[known]
    one = np.ones((1, int(known.sum())))
    melanoma = truth == classes.index("mel")
    risk = probability[:, classes.index("mel")]
    warned = risk >= manifest.thresholds.melanoma.probability
    return {
        "images": int(known.sum()),
        "balanced_accuracy": rounded(
            float(balanced_accuracy((answers.called[known] == truth).astype(np.float64), truth, one)[0])
        ),
        "melanoma_auc": rounded(float(area_under_curve(risk, melanoma, one)[0])),
        "melanoma_sensitivity": rounded(float(warned[melanoma].mean())) if melanoma.any() else None,
        "melanoma_specificity": rounded(float((~warned[~melanoma]).mean())) if not melanoma.all() else None,
        "mean_jaccard": rounded(float(np.nanmean(answers.jaccard))) if np.isfinite(answers.jaccard).any() else None,
    }


def compare(plain: Answers, other: Answers, cases: Sequence[Case], manifest: Manifest) -> dict[str, Any]:
    """FP32 beside another form on the same cases: figures of both, the change of each, and answers that differ."""
    before, after = figures(plain, cases, manifest), figures(other, cases, manifest)
    moved = np.abs(plain.probability - other.probability)
    return {
        "images": len(plain.ids),
        "fp32": {name: before[name] for name in TOLERANCES},
        "form": {name: after[name] for name in TOLERANCES},
        "change": {name: _difference(after[name], before[name]) for name in TOLERANCES},
        "called_otherwise": rounded(float((plain.called != other.called).mean())),
        "probability_difference": {"max": rounded(float(moved.max())), "mean": rounded(float(moved.mean()))},
    }


def differences(plain: Predictor, other: Predictor, cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """Largest and mean absolute difference of each output over ``cases``, and the largest value beside them."""
    names = [field.name for field in fields(NetworkOutput)]
    most, total, scale = (dict.fromkeys(names, 0.0) for _ in range(3))
    for case in cases:
        pixels = case.pixels()
        one, two = plain.network(pixels)[0], other.network(pixels)[0]
        for name in names:
            expected = getattr(one, name)
            gap = np.abs(expected - getattr(two, name))
            most[name] = max(most[name], float(gap.max()))
            total[name] += float(gap.mean())
            scale[name] = max(scale[name], float(np.abs(expected).max()))
    return {
        name: {
            "max": float(f"{most[name]:.4g}"),
            "mean": float(f"{total[name] / max(1, len(cases)):.4g}"),
            "largest_value": float(f"{scale[name]:.4g}"),
        }
        for name in names
    }


def refusals(compared: Mapping[str, Any]) -> list[str]:
    """Why a form with such a comparison on the deciding fold is not offered; empty if it may be."""
    found = [
        f"{name} changes by {change:+.4f}, more than {TOLERANCES[name]} is too much"
        for name, change in compared["change"].items()
        if change is not None and change < -TOLERANCES[name]
    ]
    if compared["called_otherwise"] > CALLED_OTHERWISE:
        found.append(
            f"{compared['called_otherwise']:.1%} of the images are called otherwise; {CALLED_OTHERWISE:.0%} at most"
        )
    return found


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else rounded(after - before)
