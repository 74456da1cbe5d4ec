"""The figures of one fold, from predictions: diagnosis, calibration, outline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, roc_auc_score

from models.training.calibration import Probabilities, at_threshold, negative_log_likelihood, share
from models.training.configuration import CLASSES

#: Below this Jaccard an outline counts as failed (ISIC 2018 Task 1).
FAILED_OUTLINE = 0.65


def evaluate(
    probability: Probabilities,
    target: NDArray[np.int64],
    overlap: NDArray[np.float64],
    lesions: Sequence[str],
    thresholds: dict[str, tuple[tuple[str, ...], float]],
    seed: int,
    called: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Every figure of one fold.

    Args:
        probability: calibrated class probabilities [N, 7].
        target: class index [N].
        overlap: Jaccard of each outline [N].
        lesions: lesion id of each image; the interval resamples lesions, since images of one lesion are alike.
        thresholds: operating points as ``name: (classes, threshold)``.
        seed: of the bootstrap.
        called: class that the decision rule names [N]; the most probable one if absent.
    """
    guess = probability.argmax(axis=1) if called is None else called
    matrix = confusion_matrix(target, guess, labels=range(len(CLASSES)))
    return {
        "images": len(target),
        "lesions": len(set(lesions)),
        "accuracy": float((guess == target).mean()),
        "balanced_accuracy": balanced_accuracy(matrix),
        "balanced_accuracy_95": bootstrap_interval(target, guess, lesions, seed),
        "macro_f1": macro_f1(matrix),
        "macro_auc": macro_auc(probability, target),
        "melanoma_auc": _auc(probability[:, CLASSES.index("mel")], target == CLASSES.index("mel")),
        "expected_calibration_error": expected_calibration_error(probability, target),
        "negative_log_likelihood": negative_log_likelihood(probability, target),
        "brier": float(((probability - np.eye(len(CLASSES))[target]) ** 2).sum(axis=1).mean()),
        "mean_jaccard": float(overlap.mean()),
        "thresholded_jaccard": float(np.where(overlap < FAILED_OUTLINE, 0, overlap).mean()),
        "failed_outlines": float((overlap < FAILED_OUTLINE).mean()),
        "per_class": {name: _one_class(probability, target, guess, overlap, k) for k, name in enumerate(CLASSES)},
        "operating_points": {
            name: _point(probability, target, classes, threshold) for name, (classes, threshold) in thresholds.items()
        },
        "confusion_matrix": {
            "rows": "true", "columns": "predicted", "classes": list(CLASSES), "counts": matrix.tolist(),
        },
    }  # fmt: skip


def balanced_accuracy(matrix: NDArray[Any]) -> float:
    """Mean sensitivity over the classes that occur, from a confusion matrix (rows true)."""
    present = matrix.sum(axis=1) > 0
    return float((np.diag(matrix)[present] / matrix.sum(axis=1)[present]).mean())


def macro_f1(matrix: NDArray[Any]) -> float:
    """Mean F1 over the classes that occur or are predicted."""
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    return float((2 * np.diag(matrix)[total > 0] / total[total > 0]).mean())


def macro_auc(probability: Probabilities, target: NDArray[np.int64]) -> float:
    """Mean area under the ROC curve over the classes that have one; not a number where none has."""
    areas = np.array([_auc(probability[:, k], target == k) for k in range(len(CLASSES))])
    known = areas[~np.isnan(areas)]
    return float(known.mean()) if len(known) else float("nan")


def expected_calibration_error(probability: Probabilities, target: NDArray[np.int64], bins: int = 15) -> float:
    """Gap between confidence and accuracy of the top class, over equal-width bins (Guo et al., arXiv:1706.04599)."""
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == target
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float(confidence[bin_of == b].mean() - right[bin_of == b].mean())) * float((bin_of == b).mean())
        for b in range(bins)
        if (bin_of == b).any()
    ]
    return float(sum(gaps))


def bootstrap_interval(
    target: NDArray[np.int64], guess: NDArray[np.int64], lesions: Sequence[str], seed: int, draws: int = 1000
) -> list[float]:
    """95 % interval of balanced accuracy, resampling lesions with replacement."""
    _, lesion = np.unique(np.asarray(lesions), return_inverse=True)
    count, k = int(lesion.max()) + 1, len(CLASSES)
    matrices = np.zeros((count, k, k))
    np.add.at(matrices, (lesion, target, guess), 1)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    drawn = (weights @ matrices.reshape(count, -1)).reshape(draws, k, k)
    low, high = np.quantile([balanced_accuracy(matrix) for matrix in drawn], (0.025, 0.975))
    return [float(low), float(high)]


def _auc(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve; not a number where one side is empty."""
    return float(roc_auc_score(positive, score)) if positive.any() and not positive.all() else float("nan")


def _one_class(
    probability: Probabilities,
    target: NDArray[np.int64],
    guess: NDArray[np.int64],
    overlap: NDArray[np.float64],
    k: int,
) -> dict[str, float | int | None]:
    """Figures of one class against the rest; ``None`` where the class does not occur."""
    positive = target == k
    if not positive.any():
        return {"images": 0, "sensitivity": None, "specificity": None, "auc": None, "mean_jaccard": None}
    return {
        "images": int(positive.sum()),
        "sensitivity": share(guess[positive] == k),
        "specificity": share(guess[~positive] != k),
        "auc": _auc(probability[:, k], positive),
        "mean_jaccard": float(overlap[positive].mean()),
    }


def _point(
    probability: Probabilities, target: NDArray[np.int64], classes: tuple[str, ...], threshold: float
) -> dict[str, Any]:
    """Sensitivity and specificity of an operating point chosen elsewhere."""
    indices = [CLASSES.index(name) for name in classes]
    sensitivity, specificity = at_threshold(probability[:, indices].sum(axis=1), np.isin(target, indices), threshold)
    return {
        "classes": list(classes), "probability": threshold, "sensitivity": sensitivity, "specificity": specificity,
    }  # fmt: skip
