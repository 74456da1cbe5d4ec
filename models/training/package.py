"""The model package: weights, manifest, embedding reference, evaluation and card in one folder."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from models.manifest import MANIFEST_NAME, preprocessing_digest
from models.registry import open_package
from models.training.architectures.contract import NetworkOutputs
from models.training.configuration import CLASSES, TrainingConfiguration, file_digest
from models.training.conformal import coverage
from models.training.datasets import Label
from models.training.decision import HeldOut, fit_answering, stated_point
from models.training.embedding import QUANTILES, distances, fit_reference, write_reference
from models.training.evaluation import FAILED_OUTLINE, evaluate
from models.training.model_card import write_card
from models.training.predictions import Predictions
from models.training.splits import FOLDS, Split
from models.uncertainty import Rule

WEIGHTS = "model.onnx"
REFERENCE = "embedding_reference.npz"
#: Figures of a fold that the manifest repeats; all of them are in ``evaluation/metrics.json``.
SUMMARY = (
    "images", "lesions", "balanced_accuracy", "balanced_accuracy_95", "macro_f1", "melanoma_auc",
    "expected_calibration_error", "mean_jaccard", "thresholded_jaccard",
)  # fmt: skip


@dataclass(frozen=True)
class Provenance:
    """How the weights came about, for the manifest's ``training``."""

    command: str
    config: str
    config_sha256: str
    code: str
    seed: int
    epochs: int
    best_epoch: int
    kept_weights: str
    wall_minutes: float
    export_difference: float
    remarks: str


def write_package(
    folder: Path,
    weights: Path,
    configuration: TrainingConfiguration,
    split: Split,
    labels: tuple[Label, ...],
    predictions: dict[str, Predictions],
    unlike: dict[str, NDArray[np.float32]],
    provenance: Provenance,
) -> Path:
    """Calibrate, evaluate and write ``folder`` (``<store>/<name>/<version>``); it appears whole or not at all.

    ``predictions`` holds ``reference`` (training images), ``validation``, ``calibration``, ``test``, of each further
    collection ``<its name>-test`` and, where the published frames are there, ``native`` (full frames) and
    ``native_crops`` (the same images as crops). ``unlike`` holds the embeddings of pictures that are no skin, by name.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "evaluation").mkdir(parents=True)
    shutil.copyfile(weights, partial / WEIGHTS)
    options = configuration.calibration
    groups = {"melanoma": ("mel",), "malignancy": options.malignant}
    held_out = {name: _held_out(predictions[name], labels) for name in ("validation", "calibration")}
    fitted = fit_answering(**held_out, groups=groups, sensitivity=options.sensitivity, seed=configuration.seed)
    thresholds = {name: (classes, fitted.points[name].probability) for name, classes in groups.items()}
    metrics: dict[str, Any] = {
        name: _figures(answer, labels, fitted.rule, thresholds, configuration.seed)
        for name, answer in predictions.items()
        if name != "reference"
    }
    known = _write_embedding_reference(partial / REFERENCE, configuration, predictions, unlike)
    metrics["embedding_distance"] = known
    steps = configuration.input.preprocessing()
    manifest: dict[str, Any] = {
        "schema": 1,
        "name": configuration.name,
        "version": configuration.version,
        "title": configuration.title,
        "file": WEIGHTS,
        "sha256": file_digest(partial / WEIGHTS),
        "bytes": (partial / WEIGHTS).stat().st_size,
        "licence": configuration.licence.model_dump(),
        "intended_use": configuration.intended_use,
        "input": {"name": "image", "size": configuration.input.size, "layout": "NCHW", "colour": "RGB"},
        "outputs": dict(zip(("mask", "classes", "activation_map", "embedding"), NetworkOutputs._fields, strict=True)),
        "preprocessing": steps,
        "preprocessing_digest": preprocessing_digest(steps),
        "classes": list(CLASSES),
        "calibration": {**fitted.calibration, "class_prior": _prior_in_words(options.prior_strength)},
        "decision": fitted.decision,
        "prediction_sets": fitted.prediction_sets,
        "thresholds": {
            "mask": 0.5,
            "melanoma": stated_point(fitted.points["melanoma"]),
            "malignancy": {**stated_point(fitted.points["malignancy"]), "classes": list(options.malignant)},
            "quality": {"embedding_distance_factor": options.novelty_factor},
            "embedding": {
                "file": REFERENCE,
                "sha256": file_digest(partial / REFERENCE),
                **{f"distance_p{round(100 * level)}": known["validation"][str(level)] for level in QUANTILES},
            },
        },
        "metrics": {
            name: {key: figures[key] for key in SUMMARY if key in figures}
            for name, figures in metrics.items()
            if "images" in figures
        },
        "data": {
            "dataset": configuration.data.dataset,
            "split": {
                "file": f"models/training/splits/{split.path.name}", "sha256": split.sha256,
            },
            "images": {fold: len(split.images(fold)) for fold in FOLDS},
            "lesions": {fold: len(split.lesions(fold)) for fold in FOLDS},
            "further": [
                {"dataset": one.collection, "split": {"file": f"models/training/splits/{Path(one.split).name}"}}
                for one in configuration.data.further
                if one.split is not None
            ],
        },
        "training": asdict(provenance),
    }  # fmt: skip
    (partial / MANIFEST_NAME).write_text(
        yaml.safe_dump(_without_nan(manifest), sort_keys=False, allow_unicode=True, width=120), encoding="utf-8"
    )
    (partial / "evaluation" / "metrics.json").write_text(
        json.dumps(_without_nan(metrics), indent=1) + "\n", encoding="utf-8"
    )
    write_card(partial / "MODEL_CARD.md", manifest, metrics)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, folder)
    open_package(folder.parent.parent, configuration.name, configuration.version).verify()
    return folder


def _held_out(answers: Predictions, labels: tuple[Label, ...]) -> HeldOut:
    """The images of one fold that have a diagnosis, as the fits read them."""
    known = answers.target >= 0
    return HeldOut(answers.logits[known], answers.target[known], [labels[row].lesion_id for row in answers.rows[known]])


def _figures(
    answers: Predictions,
    labels: tuple[Label, ...],
    rule: Rule,
    thresholds: dict[str, tuple[tuple[str, ...], float]],
    seed: int,
) -> dict[str, Any]:
    """The figures of one set of images: outlines of all that have one, diagnoses of the ``labelled`` ones."""
    known, outlined = answers.target >= 0, answers.jaccard[~np.isnan(answers.jaccard)]
    lesions = np.array([labels[row].lesion_id for row in answers.rows])
    figures: dict[str, Any] = {}
    if known.any():
        probability, target = rule.probabilities(answers.logits[known]), answers.target[known]
        overlap, called = answers.jaccard[known], rule.called(probability)
        figures = evaluate(probability, target, overlap, lesions[known].tolist(), thresholds, seed, called)
        figures["prediction_sets"] = coverage(probability, target, rule)
    if not known.all():
        figures |= {"images": len(known), "labelled": int(known.sum()), "lesions": len(set(lesions.tolist()))}
    if len(outlined):
        figures |= {
            "mean_jaccard": float(outlined.mean()),
            "thresholded_jaccard": float(np.where(outlined < FAILED_OUTLINE, 0, outlined).mean()),
            "failed_outlines": float((outlined < FAILED_OUTLINE).mean()),
        }
    return figures


def _prior_in_words(strength: float) -> str:
    """What the class logits take for granted about how frequent each class is."""
    if strength == 0:
        return "all seven classes taken as equally frequent"
    if strength == 1:
        return "those of the training fold"
    return f"between equal and those of the training fold ({strength:g} of the log frequencies)"


def _write_embedding_reference(
    path: Path,
    configuration: TrainingConfiguration,
    predictions: dict[str, Predictions],
    unlike: dict[str, NDArray[np.float32]],
) -> dict[str, dict[str, float]]:
    """Write the reference; return the quantiles of distances by set, and those of ``strangers`` over the limit."""
    seen = predictions["reference"]
    options = configuration.calibration
    reference = fit_reference(seen.embedding, seen.target, options.embedding_skipped, options.embedding_dimensions)
    measured = {
        name: distances(reference, answer.embedding) for name, answer in predictions.items() if name != "reference"
    }
    write_reference(path, reference, predictions["validation"].embedding)
    limit = options.novelty_factor * np.quantile(measured["validation"], 0.99)
    strange = {name: float(distances(reference, values[None])[0] / limit) for name, values in unlike.items()}
    return {"strangers_relative_to_limit": strange} | {
        name: {
            **{str(level): float(np.quantile(values, level)) for level in QUANTILES},
            "called_unlike": float((values > limit).mean()),
        }
        for name, values in measured.items()
    }


def _without_nan(value: Any) -> Any:
    """The same structure with ``None`` where JSON has no number."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
