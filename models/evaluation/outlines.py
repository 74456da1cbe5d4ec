"""Figures of the outline: overlap with the reference mask, its spread, and how it goes with the lesion's size."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.evaluation.resampling import Float64, estimate, mean, rounded

FAILED_OUTLINE = 0.65
"""Below this Jaccard an outline counts as failed, and as zero in the thresholded mean (ISIC 2018 Task 1)."""
SIZES = (0.0, 0.05, 0.15, 0.30, 0.50, 1.0)
"""Shares of the frame that part lesions by size."""
SIZE_NAMES = ("below 5 %", "5–15 %", "15–30 %", "30–50 %", "50 % and more")
_WORST = 20
_BINS = 20


def main_figures(overlap: Float64, weights: Float64) -> dict[str, dict[str, Any]]:
    """Mean, thresholded mean and share of failed outlines for Jaccard ``overlap`` [N], each with an interval."""
    failed = overlap < FAILED_OUTLINE
    return {
        "mean_jaccard": estimate(mean(overlap, weights)),
        "thresholded_jaccard": estimate(mean(np.where(failed, 0.0, overlap), weights)),
        "failed_outlines": estimate(mean(failed.astype(np.float64), weights)),
        "mean_dice": estimate(mean(2.0 * overlap / (1.0 + overlap), weights)),
    }


def histogram(overlap: Float64) -> dict[str, Any]:
    """Counts in twenty bins of equal width, with the quartiles."""
    counts, _ = np.histogram(overlap, bins=_BINS, range=(0.0, 1.0))
    quartiles: list[float] = np.quantile(overlap, (0.05, 0.25, 0.5, 0.75)).tolist() if len(overlap) else []
    return {
        "bins": _BINS,
        "counts": counts.tolist(),
        "quantiles": dict(zip(("p5", "p25", "p50", "p75"), (rounded(q) for q in quartiles), strict=False)),
    }


def worst(
    ids: tuple[str, ...], overlap: Float64, reference: Float64, drawn: Float64, diagnoses: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The twenty outlines with the least overlap; ``reference`` and ``drawn`` are shares of the frame [N]."""
    order = np.argsort(overlap, kind="stable")[:_WORST]
    return [
        {
            "id": ids[row],
            "jaccard": rounded(float(overlap[row])),
            "reference_share": rounded(float(reference[row])),
            "drawn_share": rounded(float(drawn[row])),
            "diagnosis": diagnoses[row],
        }
        for row in order
    ]


def by_class(diagnoses: tuple[str, ...], overlap: Float64) -> dict[str, float | None]:
    """Mean Jaccard of each diagnosis that occurs."""
    labels = np.array(diagnoses, dtype=str)
    return {name: rounded(float(overlap[labels == name].mean())) for name in sorted({*diagnoses} - {""})}


def by_size(share: Float64, overlap: Float64, right: Float64) -> list[dict[str, Any]]:
    """Overlap and error by the reference lesion's ``share`` of the frame [N]; ``right`` is not a number if unlabelled.

    Wrong answers are counted over the labelled images of the group.
    """
    group = np.digitize(share, SIZES[1:-1])
    table = []
    for number, name in enumerate(SIZE_NAMES):
        inside = group == number
        labelled = inside & np.isfinite(right)
        table.append(
            {
                "size": name,
                "images": int(inside.sum()),
                "mean_jaccard": rounded(float(overlap[inside].mean())) if inside.any() else None,
                "failed_outlines": rounded(float((overlap[inside] < FAILED_OUTLINE).mean())) if inside.any() else None,
                "labelled": int(labelled.sum()),
                "error": rounded(float(1.0 - right[labelled].mean())) if labelled.any() else None,
            }
        )
    return table
