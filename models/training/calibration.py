"""Probabilities and operating points, fitted on folds that no weight saw.

Three maps from logits to probabilities compete on the calibration fold; the one that predicts left-out lesions best (by
log-likelihood) is fitted to the whole fold. All rest on log p, p = softmax(logits): softmax(W log p + b) with

- ``temperature``: W = 1/T, b = 0 (Guo et al., ICML 2017, arXiv:1706.04599). It keeps the class frequencies that the
  logits answer for;
- ``vector``: W diagonal, pulled towards one common scale;
- ``dirichlet``: any W, its off-diagonal part pulled towards 0 (Kull et al., NeurIPS 2019, arXiv:1910.12656; ODIR).

The last two answer for the class frequencies of the calibration fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar

from dermoscopy.domain import LesionClass
from models.manifest import Calibration, DirichletCalibration, TemperatureCalibration, VectorCalibration
from models.training.configuration import CLASSES
from models.uncertainty import probabilities as calibrated

Probabilities = NDArray[np.float64]
Targets = NDArray[np.int64]

LABELS = tuple(LesionClass(name) for name in CLASSES)
FOLDS = 5
REPEATS = 2
#: Weight of the mean squared bias: keeps it finite where a class is absent from what is fitted.
BIAS_STRENGTH = 1e-3
#: Lesion resamples behind the safety margin of an operating point, and the share of them in which it must hold.
DRAWS = 1000
HOLDS = 0.8


@dataclass(frozen=True)
class OperatingPoint:
    """A probability from which on a finding counts, and what that costs on the fold where it was chosen."""

    probability: float
    sensitivity: float
    specificity: float


@dataclass(frozen=True)
class Candidate:
    """One way to calibrate; ``strength`` of the pull towards the next simpler one."""

    method: Literal["temperature", "vector", "dirichlet"]
    strength: float = 0.0

    @property
    def name(self) -> str:
        """As the manifest's comparison calls it."""
        return self.method if self.method == "temperature" else f"{self.method} {self.strength:g}"


CANDIDATES = (
    Candidate("temperature"),
    *(Candidate("vector", strength) for strength in (0.01, 0.1, 1.0)),
    *(Candidate("dirichlet", strength) for strength in (1.0, 10.0, 100.0)),
)


@dataclass(frozen=True)
class Choice:
    """The calibration that was chosen; ``left_out`` [N, 7]: what it makes of each image when fitted without its part of
    the lesions; ``compared``: negative log-likelihood and calibration error of every candidate on left-out lesions.
    """

    calibration: Calibration
    left_out: Probabilities
    compared: dict[str, dict[str, float]]


def probabilities(logits: NDArray[np.float32], temperature: float) -> Probabilities:
    """Softmax of [N, 7] logits over ``temperature``."""
    scaled = logits.astype(np.float64) / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def negative_log_likelihood(probability: Probabilities, target: Targets) -> float:
    """Mean of -log p(true class)."""
    return float(-np.log(np.clip(probability[np.arange(len(target)), target], 1e-12, 1)).mean())


def expected_calibration_error(probability: Probabilities, target: Targets, bins: int = 15) -> float:
    """Gap between confidence and accuracy of the most probable class, over equal-width bins (arXiv:1706.04599)."""
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == target
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float(confidence[bin_of == b].mean() - right[bin_of == b].mean())) * float((bin_of == b).mean())
        for b in range(bins)
        if (bin_of == b).any()
    ]
    return float(sum(gaps))


def fit_temperature(logits: NDArray[np.float32], target: Targets) -> float:
    """The temperature with the least negative log-likelihood (Guo et al., arXiv:1706.04599)."""
    found = minimize_scalar(
        lambda log_t: negative_log_likelihood(probabilities(logits, float(np.exp(log_t))), target),
        bounds=(-2.0, 2.0),
        method="bounded",
    )
    return float(np.exp(found.x))


def fit(candidate: Candidate, logits: NDArray[np.float32], target: Targets, fold: str = "calibration") -> Calibration:
    """Fit one candidate to ``logits`` [N, 7] with ``target`` [N]; ``fold`` is the name that the manifest states."""
    if candidate.method == "temperature":
        return TemperatureCalibration(method="temperature", temperature=fit_temperature(logits, target), fold=fold)
    share_of = dict(zip(LABELS, np.bincount(target, minlength=len(LABELS)) / len(target), strict=True))
    log_p = _log_softmax(logits.astype(np.float64))
    if candidate.method == "vector":
        scale, bias = _fit_vector(log_p, target, candidate.strength)
        return VectorCalibration(
            method="vector", scale=_by_class(scale), bias=_by_class(bias), fold=fold, frequencies=share_of
        )
    weights, bias = _fit_matrix(log_p, target, candidate.strength)
    rows = dict(zip(LABELS, (_by_class(row) for row in weights), strict=True))
    return DirichletCalibration(
        method="dirichlet", weights=rows, bias=_by_class(bias), fold=fold, frequencies=share_of
    )  # fmt: skip


def choose_calibration(
    logits: NDArray[np.float32], target: Targets, lesions: Sequence[str], seed: int, fold: str = "calibration"
) -> Choice:
    """Fit every candidate, choose by the negative log-likelihood of left-out lesions (`FOLDS` parts, `REPEATS` times).

    With fewer than two lesions nothing can be left out: the temperature is fitted and nothing compared.
    """
    if len(set(lesions)) < 2:
        alone = fit(CANDIDATES[0], logits, target, fold)
        return Choice(alone, calibrated(logits, alone, LABELS), {})
    parts = [lesion_parts(target, lesions, FOLDS, seed + repeat) for repeat in range(REPEATS)]
    left_out = {candidate: [_leave_out(candidate, logits, target, part) for part in parts] for candidate in CANDIDATES}
    compared = {
        candidate: {
            "negative_log_likelihood": float(np.mean([negative_log_likelihood(one, target) for one in found])),
            "expected_calibration_error": float(np.mean([expected_calibration_error(one, target) for one in found])),
        }
        for candidate, found in left_out.items()
    }
    best = min(CANDIDATES, key=lambda candidate: compared[candidate]["negative_log_likelihood"])
    return Choice(
        fit(best, logits, target, fold),
        left_out[best][0],
        {candidate.name: figures for candidate, figures in compared.items()},
    )


def calibration_document(choice: Choice) -> dict[str, Any]:
    """The manifest's ``calibration``: method, parameters, fold, class frequencies, and the comparison."""
    stated: dict[str, Any] = choice.calibration.model_dump(mode="json", exclude_none=True)
    return stated | {"left_out_lesions": choice.compared}


def lesion_parts(target: Targets, lesions: Sequence[str], count: int, seed: int) -> NDArray[np.int64]:
    """Part (0 … count - 1) of each image: whole lesions, dealt out class by class so that each part has of each."""
    names, first, lesion = np.unique(np.asarray(lesions), return_index=True, return_inverse=True)
    random = np.random.default_rng(seed)
    order = random.permutation(len(names))
    order = order[np.argsort(target[first[order]], kind="stable")]
    part_of = np.empty(len(names), np.int64)
    part_of[order] = np.arange(len(names)) % min(count, len(names))
    return np.asarray(part_of[lesion])


def lesion_draws(lesions: Sequence[str], draws: int, seed: int) -> NDArray[np.int64]:
    """How often each image occurs, [draws, N], in each resample of the lesions with replacement."""
    names, lesion = np.unique(np.asarray(lesions), return_inverse=True)
    times = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return np.asarray(times[:, lesion])


def at_threshold(score: NDArray[np.float64], positive: NDArray[np.bool_], threshold: float) -> tuple[float, float]:
    """Sensitivity and specificity of ``score >= threshold``."""
    called = score >= threshold
    return share(called[positive]), share(~called[~positive])


def share(right: NDArray[np.bool_]) -> float:
    """The share that is true; not a number where there is nothing to count."""
    return float(right.mean()) if len(right) else float("nan")


def operating_point(
    probability: Probabilities, target: Targets, classes: tuple[str, ...], sensitivity: float
) -> OperatingPoint:
    """The highest threshold on the summed probability of ``classes`` that still finds ``sensitivity`` of them."""
    score, positive = _score(probability, target, classes)
    ordered = np.sort(score[positive])[::-1]
    needed = max(1, int(np.ceil(sensitivity * len(ordered) - 1e-9)))
    threshold = _floor(float(ordered[needed - 1]))
    return OperatingPoint(threshold, *at_threshold(score, positive, threshold))


def safe_operating_point(
    probability: Probabilities,
    target: Targets,
    classes: tuple[str, ...],
    sensitivity: float,
    lesions: Sequence[str],
    seed: int,
) -> OperatingPoint:
    """The highest threshold that finds ``sensitivity`` of ``classes`` in at least `HOLDS` of resamples of the lesions.

    A threshold that just finds the wanted share here finds less elsewhere half of the time.
    """
    score, positive = _score(probability, target, classes)
    order = np.argsort(-score[positive], kind="stable")
    ordered = score[positive][order]
    found = lesion_draws(np.asarray(lesions)[positive][order].tolist(), DRAWS, seed).cumsum(axis=1)
    needed = np.maximum(1, np.ceil(sensitivity * found[:, -1:] - 1e-9))
    thresholds = ordered[(found >= needed).argmax(axis=1)]
    threshold = _floor(float(np.quantile(thresholds, 1 - HOLDS, method="lower")))
    return OperatingPoint(threshold, *at_threshold(score, positive, threshold))


def _score(
    probability: Probabilities, target: Targets, classes: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Summed probability of ``classes`` [N], and whether an image is one of them [N]."""
    indices = [CLASSES.index(name) for name in classes]
    return probability[:, indices].sum(axis=1), np.isin(target, indices)


def _floor(threshold: float) -> float:
    """Six decimals, never above; and never 0, which a manifest does not take for a probability."""
    return max(1e-6, float(np.floor(threshold * 1e6) / 1e6))


def _leave_out(
    candidate: Candidate, logits: NDArray[np.float32], target: Targets, part: NDArray[np.int64]
) -> Probabilities:
    """Probabilities [N, 7] of each part's images from a fit to the others."""
    found = np.empty(logits.shape, np.float64)
    for number in np.unique(part):
        here = part == number
        found[here] = calibrated(logits[here], fit(candidate, logits[~here], target[~here]), LABELS)
    return found


def _fit_vector(log_p: Probabilities, target: Targets, strength: float) -> tuple[Probabilities, Probabilities]:
    """Scale [7] and bias [7] of least loss: -log p + ``strength`` × variance of the scales."""
    k = log_p.shape[1]

    def loss(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scale, bias = x[:k], x[k:]
        value, by_weight, by_bias = _likelihood(log_p * scale + bias, log_p, target)
        spread = scale - scale.mean()
        value += strength * float((spread**2).mean()) + BIAS_STRENGTH * float((bias**2).mean())
        by_scale = np.diag(by_weight) + 2 * strength * spread / k
        return value, np.concatenate([by_scale, by_bias + 2 * BIAS_STRENGTH * bias / k])

    bounds = [(1e-3, None)] * k + [(None, None)] * k
    found = minimize(loss, np.concatenate([np.ones(k), np.zeros(k)]), jac=True, method="L-BFGS-B", bounds=bounds)
    return found.x[:k], found.x[k:]


def _fit_matrix(log_p: Probabilities, target: Targets, strength: float) -> tuple[Probabilities, Probabilities]:
    """Weights [7, 7] and bias [7] of least loss: -log p + ``strength`` × mean square of the off-diagonal weights."""
    k = log_p.shape[1]
    outside = 1 - np.eye(k)

    def loss(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights, bias = x[: k * k].reshape(k, k), x[k * k :]
        value, by_weight, by_bias = _likelihood(log_p @ weights.T + bias, log_p, target)
        off = weights * outside
        value += strength * float((off**2).sum()) / (k * (k - 1)) + BIAS_STRENGTH * float((bias**2).mean())
        by_weight = by_weight + 2 * strength * off / (k * (k - 1))
        return value, np.concatenate([by_weight.ravel(), by_bias + 2 * BIAS_STRENGTH * bias / k])

    start = np.concatenate([np.eye(k).ravel(), np.zeros(k)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300, "ftol": 1e-7})
    return found.x[: k * k].reshape(k, k), found.x[k * k :]


def _likelihood(
    scores: Probabilities, log_p: Probabilities, target: Targets
) -> tuple[float, Probabilities, Probabilities]:
    """Mean -log softmax(scores)[target], and its derivatives by W [7, 7] and b [7] of scores = W log p + b."""
    rows = np.arange(len(target))
    logs = _log_softmax(scores)
    error = np.exp(logs)
    error[rows, target] -= 1.0
    error /= len(target)
    return float(-logs[rows, target].mean()), error.T @ log_p, error.sum(axis=0)


def _log_softmax(scores: Probabilities) -> Probabilities:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _by_class(values: NDArray[np.float64]) -> dict[LesionClass, float]:
    return {label: float(value) for label, value in zip(LABELS, values, strict=True)}
