"""The floors: what a network has to beat, and what its embedding is worth to a simpler model.

``python -m models.training.classical --data ../shared/data`` fits every entry of :data:`FLOORS` on the train fold,
chooses its one setting on the validation fold, and writes the figures of the test fold, which nothing else saw.
Classes weigh alike while fitting, so the most probable class is the one that balanced accuracy asks for; the
majority class alone keeps the frequencies it stands for.
"""

from __future__ import annotations

import argparse
import json
import logging
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from dermoscopy.errors import DermoscopyError
from models.registry import open_package
from models.training.calibration import Probabilities
from models.training.classical_features import (
    Features,
    colour_histograms,
    imagenet_embeddings,
    kept,
    package_embeddings,
)
from models.training.configuration import CLASSES, Data, file_digest
from models.training.datasets import Crops
from models.training.evaluation import balanced_accuracy, evaluate
from models.training.material import gather

logger = logging.getLogger("models.training")

SEED = 20180803
RESULTS = Path(__file__).parent / "results" / "classical.json"
#: Figures of :func:`models.training.evaluation.evaluate` that a model without an outline has.
FIGURES = ("images", "lesions", "accuracy", "balanced_accuracy", "balanced_accuracy_95", "macro_f1", "melanoma_auc")

Targets = NDArray[np.int64]
Setting = Mapping[str, Any]


@dataclass(frozen=True)
class Fitted:
    """A fitted model: its class probabilities [N, 7] for features [N, D], and the bytes that it takes to keep."""

    probabilities: Callable[[Features], Probabilities]
    size_bytes: int


@dataclass(frozen=True)
class Floor:
    """A model that is no network: what it looks at, the settings to choose from, and how it is fitted."""

    features: str
    settings: tuple[Setting, ...]
    fit: Callable[[Features, Targets, Setting], Fitted]


def fit_majority(features: Features, target: Targets, setting: Setting) -> Fitted:
    """The class frequencies of the training fold, whatever the image."""
    frequencies = np.bincount(target, minlength=len(CLASSES)) / len(target)
    return Fitted(lambda some: np.tile(frequencies, (len(some), 1)), frequencies.nbytes)


def fit_forest(features: Features, target: Targets, setting: Setting) -> Fitted:
    """Five hundred trees, classes weighted alike."""
    return _sklearn(
        RandomForestClassifier(500, class_weight="balanced", random_state=SEED, n_jobs=1, **setting), features, target
    )


def fit_logistic(features: Features, target: Targets, setting: Setting) -> Fitted:
    """Standardised features, multinomial logistic regression, classes weighted alike."""
    regression = LogisticRegression(class_weight="balanced", max_iter=2000, random_state=SEED, **setting)
    return _sklearn(make_pipeline(StandardScaler(), regression), features, target)


def fit_boosting(features: Features, target: Targets, setting: Setting) -> Fitted:
    """Gradient-boosted trees (Chen & Guestrin, arXiv:1603.02754), images weighted so that classes weigh alike."""
    from xgboost import XGBClassifier

    present = np.unique(target)
    booster = XGBClassifier(
        max_depth=4, learning_rate=0.1, subsample=0.8, colsample_bytree=0.2, min_child_weight=2.0, tree_method="hist",
        n_jobs=1, random_state=SEED, **setting,
    )  # fmt: skip
    weight = compute_sample_weight("balanced", target)
    booster.fit(features, np.searchsorted(present, target), sample_weight=weight)
    size = len(booster.get_booster().save_raw("ubj"))
    return Fitted(lambda some: _all_classes(booster.predict_proba(some), present), size)


#: Entries are tried in this order and reported under these names.
FLOORS: dict[str, Floor] = {
    "majority-class": Floor("colour", ({},), fit_majority),
    "colour-random-forest": Floor("colour", tuple({"min_samples_leaf": n} for n in (1, 3, 10, 30)), fit_forest),
    "imagenet-embedding-logistic": Floor(
        "imagenet", tuple({"C": c} for c in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)), fit_logistic
    ),
    "imagenet-embedding-xgboost": Floor("imagenet", tuple({"n_estimators": n} for n in (15, 50, 150)), fit_boosting),
    "package-embedding-logistic": Floor(
        "package", tuple({"C": c} for c in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)), fit_logistic
    ),
    "package-embedding-xgboost": Floor("package", tuple({"n_estimators": n} for n in (15, 50, 150)), fit_boosting),
}


def measure(
    floor: Floor, features: Features, target: Targets, rows: Mapping[str, list[int]], lesions: tuple[str, ...]
) -> dict[str, Any]:
    """Fit on ``train``, choose on ``validation`` by balanced accuracy, report on ``test``.

    Args:
        floor: what to fit.
        features: of every image, [N, D].
        target: class index of every image, [N].
        rows: image numbers by fold.
        lesions: lesion id of every image; the interval resamples lesions.
    """
    tried: list[tuple[float, float, Setting, Fitted]] = []
    for setting in floor.settings:
        began = time.process_time()
        fitted = floor.fit(features[rows["train"]], target[rows["train"]], setting)
        seconds = time.process_time() - began
        guess = fitted.probabilities(features[rows["validation"]]).argmax(axis=1)
        matrix = confusion_matrix(target[rows["validation"]], guess, labels=range(len(CLASSES)))
        tried.append((balanced_accuracy(matrix), seconds, setting, fitted))
        logger.info("%s: validation balanced accuracy %.4f, %.0f s of CPU", dict(setting), tried[-1][0], seconds)
    validation, seconds, setting, fitted = max(tried, key=lambda item: item[0])
    test = rows["test"]
    figures = evaluate(
        fitted.probabilities(features[test]),
        target[test],
        np.full(len(test), np.nan),
        [lesions[row] for row in test],
        {},
        SEED,
    )
    return {
        "setting": dict(setting),
        "settings_tried": len(tried),
        "validation_balanced_accuracy": validation,
        "test": {name: figures[name] for name in FIGURES},
        "training_cpu_seconds": round(seconds, 1),
        "size_bytes": fitted.size_bytes,
    }


def run(data: Path, cache: Path, options: Data, model: Path, names: list[str]) -> dict[str, Any]:
    """The figures of some entries of :data:`FLOORS`, and what they were made from.

    Args:
        data: folder of the HAM10000 archives.
        cache: decoded crops and computed features, used again.
        options: the collection and its split.
        model: an installed package, ``<store>/<name>/<version>``, for ``package-…`` entries.
        names: entries to run, in the order of :data:`FLOORS`.
    """
    material = gather(options, data, cache, cache)
    crops, split = material.crops, material.split
    target = np.array([CLASSES.index(label.diagnosis) for label in crops.labels], np.int64)
    lesions = tuple(label.lesion_id for label in crops.labels)
    sources = _sources(crops, cache, model)
    features: dict[str, Features] = {}
    floors: dict[str, Any] = {}
    for name in names:
        kind = FLOORS[name].features
        if kind not in features:
            logger.info("features: %s", kind)
            features[kind] = sources[kind]()
        logger.info("%s", name)
        floors[name] = measure(FLOORS[name], features[kind], target, material.rows, lesions)
    used = {FLOORS[name].features for name in names}
    return {
        "data": {"split": split.path.name, "split_sha256": split.sha256},
        "package": _described(model) if "package" in used else None,
        "seed": SEED,
        "libraries": {"scikit-learn": sklearn.__version__},
        "floors": floors,
    }


def beside_earlier(result: dict[str, Any], path: Path) -> dict[str, Any]:
    """The result together with the entries that ``path`` holds for the same data and package."""
    if not path.is_file():
        return result
    earlier = json.loads(path.read_text(encoding="utf-8"))
    if earlier["data"] != result["data"]:
        return result
    floors = {**earlier["floors"], **result["floors"]}
    package = result["package"] or earlier["package"]
    if earlier["package"] != package:
        ours = result["floors"]
        floors = {name: floor for name, floor in floors.items() if name in ours or FLOORS[name].features != "package"}
    return {**result, "package": package, "floors": {name: floors[name] for name in FLOORS if name in floors}}


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and run; 2 and one line where something that the user gave is wrong."""
    parser = argparse.ArgumentParser(prog="python -m models.training.classical", description="Measure the floors.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of HAM10000 archives")
    parser.add_argument("--cache", type=Path, default=Path("var/training/cache"), help="decoded crops, embeddings")
    parser.add_argument("--split", default="ham10000-v1.csv", help="name in models/training/splits, or a path")
    parser.add_argument(
        "--model",
        type=Path,
        default=Path("models/store/lesionnet-lite0/1.0.0"),
        help="package whose embedding is tried",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file to write")
    parser.add_argument(
        "--only", nargs="+", choices=list(FLOORS), help="some entries; the others stay as the file has them"
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    names = [name for name in FLOORS if given.only is None or name in given.only]
    try:
        result = run(given.data, given.cache, Data(split=given.split, sampling="natural"), given.model, names)
    except DermoscopyError as error:
        print(error, file=sys.stderr)  # noqa: T201 - this is the command line
        return 2
    given.output.parent.mkdir(parents=True, exist_ok=True)
    joined = beside_earlier(result, given.output)
    given.output.write_text(json.dumps(joined, indent=1) + "\n", encoding="utf-8")
    print(given.output)  # noqa: T201 - this is the command line
    return 0


def _sources(crops: Crops, cache: Path, model: Path) -> dict[str, Callable[[], Features]]:
    """How each kind of feature is computed, through the cache where that takes long."""

    def package() -> Features:
        opened = open_package(model.parent.parent, model.parent.name, model.name)
        digest = opened.manifest.sha256
        return kept(cache / "embeddings" / f"{digest}.npz", crops, digest, lambda: package_embeddings(crops, opened))

    return {
        "colour": lambda: kept(
            cache / "embeddings" / "colour.npz", crops, "colour 6x6x6+3x32", lambda: colour_histograms(crops)
        ),
        "imagenet": lambda: kept(
            cache / "embeddings" / "imagenet-lite0.npz", crops, "lite0 224", lambda: imagenet_embeddings(crops)
        ),
        "package": package,
    }


def _described(model: Path) -> dict[str, str]:
    """Name, version and digest of the package."""
    manifest = open_package(model.parent.parent, model.parent.name, model.name).manifest
    return {"name": manifest.name, "version": manifest.version, "sha256": file_digest(model / "model.onnx")}


def _sklearn(model: Any, features: Features, target: Targets) -> Fitted:
    """Fit an estimator of scikit-learn."""
    model.fit(features, target)
    return Fitted(lambda some: _all_classes(model.predict_proba(some), model.classes_), len(pickle.dumps(model)))


def _all_classes(probability: NDArray[Any], present: NDArray[Any]) -> Probabilities:
    """Probabilities of the classes that were fitted, spread over all seven."""
    full = np.zeros((len(probability), len(CLASSES)))
    full[:, present] = probability
    return full


if __name__ == "__main__":
    raise SystemExit(main())
