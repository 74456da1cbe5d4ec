"""The reference of embeddings: where the training images lie, so that a stranger can be told at run time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from models.quality import EmbeddingReferenceStatistics
from models.training.configuration import CLASSES

QUANTILES = (0.5, 0.95, 0.99)


def fit_reference(
    embedding: NDArray[np.float32], target: NDArray[np.int64], skipped: int, dimensions: int
) -> EmbeddingReferenceStatistics:
    """Class means and one shared precision after a PCA (Lee et al., "A Simple Unified Framework", NeurIPS 2018).

    Args:
        embedding: of the training fold, [N, D].
        target: class index [N].
        skipped: leading principal directions left out, where there are enough: lesions differ from each other along
            them, while a stranger differs from all lesions along the later ones.
        dimensions: kept after those; the shared covariance of what is kept is shrunk (Ledoit-Wolf).
    """
    available = min(skipped + dimensions, *embedding.shape)
    first = min(skipped, max(0, available - dimensions))
    analysis = PCA(available, svd_solver="full").fit(embedding)
    components = analysis.components_[first:]
    points = (embedding - analysis.mean_) @ components.T
    means = np.stack([points[target == k].mean(axis=0) for k in range(len(CLASSES)) if (target == k).any()])
    known = np.unique(target)
    within = points - means[np.searchsorted(known, target)]
    return EmbeddingReferenceStatistics(
        mean=analysis.mean_,
        components=components,
        class_means=means,
        precision=LedoitWolf(assume_centered=True).fit(within).precision_,
    )


def distances(reference: EmbeddingReferenceStatistics, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mahalanobis distance of each embedding to the nearest class, [N]."""
    return np.array([reference.distance(row) for row in embedding])


def write_reference(path: Path, reference: EmbeddingReferenceStatistics, known: NDArray[np.float64]) -> None:
    """Write the reference in float32, with the quantiles of ``known`` (validation) distances beside it."""
    np.savez_compressed(
        path,
        mean=reference.mean.astype(np.float32),
        components=reference.components.astype(np.float32),
        class_means=reference.class_means.astype(np.float32),
        precision=reference.precision.astype(np.float32),
        quantiles=np.quantile(known, QUANTILES).astype(np.float32),
        levels=np.array(QUANTILES, np.float32),
    )
