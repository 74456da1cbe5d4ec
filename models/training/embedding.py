"""The reference of embeddings: where the training images lie, so that a stranger can be told at run time."""

from __future__ import annotations

import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA

from models.preprocess import prepare
from models.quality import DEFAULTS, EmbeddingReferenceStatistics, assess_outline
from models.registry import open_package
from models.session import OnnxSession
from models.training.configuration import CLASSES, file_digest
from models.training.datasets import load_crops, load_task1

QUANTILES = (0.5, 0.95, 0.99)
LEADING = 128
"""Principal directions outside which an embedding's residual is taken."""
MOST_KNOWN, SKIPPED, DIMENSIONS = 2500, 128, 256
"""Training images of each collection, and principal directions left out and kept, when a package is fitted anew."""
FALSE_ALARMS = 0.01
"""Share of the validation images that novelty may call unlike the training images."""


def fit_reference(
    embedding: NDArray[np.float32], target: NDArray[np.int64], skipped: int, dimensions: int
) -> EmbeddingReferenceStatistics:
    """Class means and one shared precision after a PCA (Lee et al., "A Simple Unified Framework", NeurIPS 2018).

    Args:
        embedding: of the training fold, [N, D].
        target: class index [N]; a further index for all images without a diagnosis.
        skipped: leading principal directions left out, where there are enough: lesions differ from each other along
            them, while a stranger differs from all lesions along the later ones.
        dimensions: kept after those; the shared covariance of what is kept is shrunk (Ledoit-Wolf).
    """
    available = min(skipped + dimensions, *embedding.shape)
    first = min(skipped, max(0, available - dimensions))
    analysis = PCA(available, svd_solver="full").fit(embedding)
    components = analysis.components_[first:]
    points = (embedding - analysis.mean_) @ components.T
    known = np.unique(target)
    means = np.stack([points[target == k].mean(axis=0) for k in known])
    within = points - means[np.searchsorted(known, target)]
    return EmbeddingReferenceStatistics(
        mean=analysis.mean_,
        components=components,
        class_means=means,
        precision=LedoitWolf(assume_centered=True).fit(within).precision_,
        leading=analysis.components_[: min(LEADING, available)],
    )


def distances(reference: EmbeddingReferenceStatistics, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mahalanobis distance of each embedding to the nearest class, [N]."""
    return np.array([reference.distance(row) for row in embedding])


def scaled(
    reference: EmbeddingReferenceStatistics, known: NDArray[np.float32], sources: NDArray[np.str_] | None = None
) -> EmbeddingReferenceStatistics:
    """The reference with the scaling that makes novelty 1 where `FALSE_ALARMS` of ``known`` [N, D] lie beyond.

    ``known`` are validation embeddings. Distance and residual weigh alike: each has its median at 0 and its 99th
    percentile at the same place. With ``sources`` [N], the collection of each, none may have more false alarms.
    """
    measured = np.log([[reference.distance(row), reference.residual(row)] for row in known])
    middle = np.median(measured, axis=0)
    spread = np.maximum(np.quantile(measured, 0.99, axis=0) - middle, 1e-9)
    total = ((measured - middle) / spread).sum(axis=1)
    groups = [total] if sources is None else [total[sources == name] for name in np.unique(sources)]
    limit = max(float(np.quantile(group, 1.0 - FALSE_ALARMS)) for group in groups)
    return replace(reference, scaling=np.stack([middle, spread * limit], axis=1))


def write_reference(
    path: Path,
    reference: EmbeddingReferenceStatistics,
    known: NDArray[np.float32],
    sources: NDArray[np.str_] | None = None,
) -> None:
    """Write the reference in float32, scaled by ``known`` (embeddings of the validation fold, [N, D]; their
    collections in ``sources``), with the quantiles of their distances beside it.
    """
    reference = scaled(reference, known, sources)
    assert reference.leading is not None
    assert reference.scaling is not None
    np.savez_compressed(
        path,
        leading=reference.leading.astype(np.float32),
        scaling=reference.scaling.astype(np.float64),
        mean=reference.mean.astype(np.float32),
        components=reference.components.astype(np.float32),
        class_means=reference.class_means.astype(np.float32),
        precision=reference.precision.astype(np.float32),
        quantiles=np.quantile(distances(reference, known), QUANTILES).astype(np.float32),
        levels=np.array(QUANTILES, np.float32),
    )


def refit(folder: Path, data: Path, cache: Path, splits: Path) -> dict[str, float]:
    """Fit a package's reference and the limit of the outline's certainty anew, and state both in its manifest.

    Training images of each collection make the reference, validation images the limits. Nothing of the test fold is
    seen. Returns the limits. Raises what reading package and data raises.
    """
    package = open_package(folder.parent.parent, folder.parent.name, folder.name)
    manifest = package.manifest
    session = OnnxSession.open(package, threads=2)
    gathered: dict[str, list[tuple[NDArray[np.float32], float, int, str]]] = {"train": [], "validation": []}
    random = np.random.default_rng(0)
    for name in ("ham10000", "isic2018-task1"):
        with (splits / f"{name}-v1.csv").open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        lesions = {row["image_id"]: row["lesion_id"] for row in table}
        crops = load_crops(data, cache / name) if name == "ham10000" else load_task1(data, cache / name, lesions)
        places = crops.positions()
        for fold, kept in gathered.items():
            rows = np.array([places[row["image_id"]] for row in table if row["fold"] == fold])
            if fold == "train" and len(rows) > MOST_KNOWN:
                rows = random.choice(rows, MOST_KNOWN, replace=False)
            for row in rows:
                output = session.run(prepare(np.asarray(crops.images[int(row)]), manifest.preprocessing).tensor)
                surest = assess_outline(output.mask_logits[0, 0], DEFAULTS).scores["outline_certainty"]
                diagnosis = crops.labels[int(row)].diagnosis
                known_as = CLASSES.index(diagnosis) if diagnosis in CLASSES else len(CLASSES)
                kept.append((output.embedding[0], surest, known_as, name))
    embedding = np.stack([one[0] for one in gathered["train"]])
    target = np.array([one[2] for one in gathered["train"]])
    known = np.stack([one[0] for one in gathered["validation"]])
    sources = np.array([one[3] for one in gathered["validation"]])
    certainty = np.array([one[1] for one in gathered["validation"]])
    reference = fit_reference(embedding, target, SKIPPED, DIMENSIONS)
    path = folder / "manifest.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    stated = document["thresholds"]
    write_reference(folder / stated["embedding"]["file"], reference, known, sources)
    quantiles = np.quantile(distances(reference, known), QUANTILES)
    stated["embedding"] |= {f"distance_p{round(100 * q)}": float(v) for q, v in zip(QUANTILES, quantiles, strict=True)}
    stated["embedding"]["sha256"] = file_digest(folder / stated["embedding"]["file"])
    least = min(float(np.quantile(certainty[sources == name], FALSE_ALARMS)) for name in np.unique(sources))
    limits = {"novelty_max": 1.0, "outline_certainty_min": round(min(least, 0.995), 4)}
    stated["quality"] = {**stated.get("quality", {}), **limits}
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8")
    return limits


def main() -> int:
    """Fit the novelty reference and limits of an installed package anew."""
    parser = argparse.ArgumentParser(prog="python -m models.training.embedding", description=main.__doc__)
    parser.add_argument("package", type=Path, help="<store>/<name>/<version>")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("var/training/cache"), help="decoded images of earlier runs")
    parser.add_argument("--splits", type=Path, default=Path("models/training/splits"))
    given = parser.parse_args()
    print(refit(given.package.resolve(), given.data, given.cache, given.splits))  # noqa: T201 - a command line
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
