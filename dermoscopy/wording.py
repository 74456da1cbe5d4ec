"""What every reader of a finding is told in the same words: on the card, the page, in the report and in the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dermoscopy.domain import LesionClass
from dermoscopy.overlay import CLASS_TITLES

SET_ALPHA = "set.alpha"
"""Key of `Inference.thresholds`: the share of each class's images whose prediction set may miss it."""


def not_excluded(prediction_set: Sequence[LesionClass], thresholds: Mapping[str, float]) -> str:
    """The prediction set as a sentence; empty where the model has no sets."""
    if not prediction_set:
        return ""
    rate = f" at an error rate of {100 * thresholds[SET_ALPHA]:.0f} %" if SET_ALPHA in thresholds else ""
    only = " only" if len(prediction_set) == 1 else ""
    return f"Cannot be excluded{rate}: {', '.join(CLASS_TITLES[label] for label in prediction_set)}{only}."
