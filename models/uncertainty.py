"""Logits to calibrated probabilities, and how sure they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LOWEST_CONFIDENCE = 0.35
"""Default of ``thresholds.confidence.probability``: below it the algorithm says that it does not know.

Guessing among seven classes gives 1/7; at 0.35 the best class is at most as likely as two others together."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Calibrated ``probabilities`` [C] (sum 1); ``confidence``: the largest; ``margin``: largest minus second;
    ``entropy``: of the distribution, divided by ln C (0: sure, 1: knows nothing).
    """

    logits: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]
    best: int
    confidence: float
    margin: float
    entropy: float


def predict(logits: npt.NDArray[np.float32], temperature: float) -> Prediction:
    """Softmax of ``logits`` [C] / ``temperature`` (Guo et al., ICML 2017), in float64 with the maximum taken out.

    Raises `ValueError` if a logit is not finite.
    """
    raw = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(raw).all():
        raise ValueError("class logits are not finite")
    shifted = np.exp((raw - raw.max()) / temperature)
    probabilities = shifted / shifted.sum()
    second, first = np.sort(probabilities)[-2:]
    positive = probabilities[probabilities > 0.0]
    return Prediction(
        logits=raw,
        probabilities=probabilities,
        best=int(raw.argmax()),
        confidence=float(first),
        margin=float(first - second),
        entropy=float(max(0.0, -(positive * np.log(positive)).sum()) / math.log(len(raw))),
    )


def doubt(prediction: Prediction, lowest: float = LOWEST_CONFIDENCE) -> str | None:
    """Why the prediction should not be believed, in plain words, or ``None`` when it stands."""
    if prediction.confidence >= lowest:
        return None
    return (
        f"no class is likely enough (the most probable has {100 * prediction.confidence:.0f} %, "
        f"{100 * lowest:.0f} % is needed)"
    )
