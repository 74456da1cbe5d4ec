"""Whether the images at hand were among those that made the model: figures on them are no figures of unseen images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from models.evaluation.labels import read_folds
from models.manifest import Manifest

REPOSITORY = Path(__file__).resolve().parents[2]
UNSEEN = "test"


def seen_images(manifest: Manifest, ids: Iterable[str], root: Path = REPOSITORY) -> dict[str, int]:
    """How many of ``ids`` lie in each fold that training or tuning used, by the splits that the manifest names.

    Empty where none does, and where the splits are not installed beside the code: nothing is then known.
    """
    fold_of: dict[str, str] = {}
    for name in sorted(set(_named_splits(manifest.data))):
        path = root / name
        if path.is_file():
            fold_of.update(read_folds(path))
    found = Counter(fold for one in ids if (fold := fold_of.get(one.lower(), UNSEEN)) != UNSEEN)
    return dict(sorted(found.items()))


def warning(seen: Mapping[str, int], images: int) -> str:
    """What a reader must be told of it."""
    folds = ", ".join(f"{fold} {count}" for fold, count in seen.items())
    return (
        f"{sum(seen.values())} of these {images} images made this model ({folds}): the figures are not those of unseen "
        "images. Evaluate the test fold with --split and --fold test"
    )


def _named_splits(value: Any) -> Iterator[str]:
    """Every CSV that the manifest's ``data`` names, however deep."""
    if isinstance(value, str) and value.endswith(".csv"):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _named_splits(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _named_splits(one)
