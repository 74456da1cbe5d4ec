"""Logits to calibrated probabilities, to the class that is called, to the classes that cannot be excluded.

One implementation for the service, the evaluation and the training: whoever reads a manifest gets the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dermoscopy.domain import LesionClass, Reason
from models.manifest import Calibration, DirichletCalibration, Manifest, TemperatureCalibration

LOWEST_CONFIDENCE = 0.35
"""Default of ``thresholds.confidence.probability``: below it the algorithm says that it does not know.

Guessing among seven classes gives 1/7; at 0.35 the best class is at most as likely as two others together."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Calibrated ``probabilities`` [C] (sum 1); ``best``: index of the largest; ``called``: of the class that the
    decision rule names; ``confidence``: the largest probability; ``margin``: largest minus second; ``entropy``: of the
    distribution, divided by ln C (0: sure, 1: knows nothing); ``kept``: indices of the prediction set, most probable
    first (empty where the model has no sets).
    """

    logits: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]
    best: int
    called: int
    confidence: float
    margin: float
    entropy: float
    kept: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """How the logits of one model become an answer, read once from its manifest.

    ``weights`` [C] of the decision and ``thresholds`` [C] of the prediction sets are ``None`` where it has none.
    """

    classes: tuple[LesionClass, ...]
    calibration: Calibration
    weights: npt.NDArray[np.float64] | None = None
    thresholds: npt.NDArray[np.float64] | None = None
    largest_set: int = 0

    @classmethod
    def of(cls, manifest: Manifest) -> Rule:
        """The rule of a model package."""
        decision, sets = manifest.decision, manifest.prediction_sets
        return cls(
            manifest.classes,
            manifest.calibration,
            None if decision is None else np.array([decision.weights[label] for label in manifest.classes]),
            None if sets is None else np.array([sets.thresholds[label] for label in manifest.classes]),
            0 if sets is None else sets.largest_set,
        )

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Calibrated probabilities of class ``logits`` [..., C]. Raises `ValueError` if one is not finite."""
        return probabilities(logits, self.calibration, self.classes)

    def called(self, probability: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Index of the class that is called, for ``probability`` [..., C]."""
        weighted = probability if self.weights is None else probability * self.weights
        return np.asarray(weighted.argmax(axis=-1), np.int64)

    def sets(self, probability: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Which classes are in the prediction set of each image, [N, C], for ``probability`` [N, C].

        The called class is always in its set: that then is never empty nor at odds with the answer, and a larger set
        covers no less. Raises `ValueError` if the model has no sets.
        """
        if self.thresholds is None:
            raise ValueError("the model has no prediction sets")
        inside = probability >= self.thresholds
        inside[np.arange(len(probability)), self.called(probability)] = True
        return np.asarray(inside)

    def predict(self, logits: npt.NDArray[np.float32]) -> Prediction:
        """The answer for one image, ``logits`` [C]. Raises `ValueError` if one is not finite."""
        found = self.probabilities(logits)
        second, first = np.sort(found)[-2:]
        positive = found[found > 0.0]
        # The logits' own order where probabilities keep it: they may be equal in float64 where logits are not.
        plain = isinstance(self.calibration, TemperatureCalibration)
        best = int(np.asarray(logits, np.float64).argmax() if plain else found.argmax())
        called = best if self.weights is None else int(self.called(found))
        kept: tuple[int, ...] = ()
        if self.thresholds is not None:
            inside = self.sets(found[None])[0]
            kept = tuple(k for k in np.argsort(-found, kind="stable").tolist() if inside[k])
        return Prediction(
            logits=np.asarray(logits, dtype=np.float64),
            probabilities=found,
            best=best,
            called=called,
            confidence=float(first),
            margin=float(first - second),
            entropy=float(max(0.0, -(positive * np.log(positive)).sum()) / math.log(len(found))),
            kept=kept,
        )

    def record(self) -> dict[str, float | str]:
        """The calibration with all its parameters, flat, for the inference record."""
        fitted, record = self.calibration, {}
        if isinstance(fitted, TemperatureCalibration):
            return {"method": fitted.method, "temperature": fitted.temperature, "fold": fitted.fold}
        if isinstance(fitted, DirichletCalibration):
            record = {f"weight.{a}.{b}": fitted.weights[a][b] for a in self.classes for b in self.classes}
        else:
            record = {f"scale.{label}": fitted.scale[label] for label in self.classes}
        bias = {f"bias.{label}": fitted.bias[label] for label in self.classes}
        return {"method": fitted.method, "fold": fitted.fold, **record, **bias}


def probabilities(
    logits: npt.NDArray[np.float32], calibration: Calibration, classes: Sequence[LesionClass]
) -> npt.NDArray[np.float64]:
    """Probabilities of ``logits`` [..., C] of ``classes``, in float64 with the maximum taken out.

    Raises `ValueError` if a logit is not finite.
    """
    raw = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(raw).all():
        raise ValueError("class logits are not finite")
    shifted = raw - raw.max(axis=-1, keepdims=True)
    if isinstance(calibration, TemperatureCalibration):
        return _normalised(np.exp(shifted / calibration.temperature))
    logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    bias = np.array([calibration.bias[label] for label in classes])
    if isinstance(calibration, DirichletCalibration):
        weights = np.array([[calibration.weights[a][b] for b in classes] for a in classes])
        scores = (logs[..., None, :] * weights).sum(axis=-1) + bias  # no BLAS: same bits for one image and for many
    else:
        scores = logs * np.array([calibration.scale[label] for label in classes]) + bias
    return _normalised(np.exp(scores - scores.max(axis=-1, keepdims=True)))


def doubts(prediction: Prediction, lowest: float, largest_set: int, names: Sequence[str]) -> tuple[Reason, ...]:
    """Why the prediction should not be believed; empty when it stands. ``names`` of the classes, for the words."""
    found = []
    if prediction.confidence < lowest:
        words = (
            f"no class is likely enough (the most probable has {100 * prediction.confidence:.0f} %, "
            f"{100 * lowest:.0f} % is needed)"
        )
        found.append(Reason("low_confidence", words))
    if len(prediction.kept) > largest_set:
        left = ", ".join(names[k] for k in prediction.kept)
        found.append(Reason("ambiguous", f"too many classes cannot be excluded ({left})"))
    return tuple(found)


def _normalised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(values / values.sum(axis=-1, keepdims=True))
