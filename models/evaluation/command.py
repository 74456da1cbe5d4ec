"""Evaluate one package on one data set: every figure into one dict, written as JSON and as a page.

The page is made from the dict alone, so whoever has the JSON can make it again.
"""

from __future__ import annotations

import json
import math
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from dermoscopy.errors import Misconfigured, UnreadableObject
from models.evaluation import curves, figures, outlines, service
from models.evaluation.cost import cost
from models.evaluation.dataset import Case, Dataset
from models.evaluation.figures import Sample
from models.evaluation.predict import Answers, Predictor
from models.evaluation.prediction_sets import members, prediction_sets
from models.evaluation.resampling import DRAWS, Float64, lesion_weights, rounded
from models.evaluation.seen import seen_images, warning
from models.evaluation.selective import measure_selective
from models.evaluation.subgroups import measure_subgroups
from models.manifest import Manifest
from models.registry import ModelPackage
from models.uncertainty import Rule

SCHEMA = 1
DISTORTED_IMAGES = 600
"""How many images the distortions are measured on, evenly over the diagnoses; twelve times as many answers."""
OCCLUDED_IMAGES = 200
"""How many lesions the maps are checked on; a dozen answers each."""
GATED_IMAGES, STRANGERS_PER_FAMILY = 300, 30
"""How many images are tried for false alarms of the gate, and strangers of each family to be turned away."""
_MISSED = 20
_SHOWN = 5


@dataclass(frozen=True)
class Extent:
    """How much is done. ``thorough`` adds what takes many times as long (distortions, faithfulness, gate)."""

    thorough: bool = False
    skip_bad: bool = False
    seed: int = 0
    draws: int = DRAWS
    threads: int = 2
    progress: bool = False
    command: str = ""
    """The command that makes this report again, for the record."""


def evaluate(package: ModelPackage, dataset: Dataset, extent: Extent | None = None) -> dict[str, Any]:
    """The report of ``package`` on ``dataset``, ready for JSON.

    Raises `UnreadableObject` naming every image that cannot be read, unless ``extent.skip_bad``; `Misconfigured` where
    none is left.
    """
    extent = extent or Extent()
    started = time.perf_counter()
    predictor = Predictor(package, threads=extent.threads)
    bad: dict[str, str] = {}
    answers = predictor.answers(
        dataset.cases, _words(extent, "predicting"), lambda case, error: bad.update({case.id: str(error)})
    )
    if bad and not extent.skip_bad:
        named = "; ".join(list(bad.values())[:_SHOWN]) + (" …" if len(bad) > _SHOWN else "")
        raise UnreadableObject(
            f"{len(bad)} of {len(dataset.cases)} images cannot be used: {named}. "
            "Repair or remove them, or give --skip-bad to leave them out"
        )
    cases = [case for case in dataset.cases if case.id not in bad]
    if not cases:
        raise Misconfigured(f"{dataset.name}: none of the {len(dataset.cases)} images can be read")
    weights = lesion_weights([case.group for case in cases], extent.draws, extent.seed)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "model": _model(package.manifest),
        "dataset": _dataset(package.manifest, dataset, cases, bad),
        "figures": {},
        **_diagnosis(predictor, cases, answers, weights),
        **_outline(predictor, cases, answers, weights),
    }
    report["figures"] = {**report.pop("diagnosis_figures", {}), **report.pop("outline_figures", {})}
    report.update(_service(predictor, cases, weights, extent))
    report.update(_further(predictor, dataset.name, cases, answers, extent))
    report["cost"] = {**cost(predictor, cases, extent.threads), "analysis_milliseconds": report.pop("speed", None)}
    report["provenance"] = _provenance(package, dataset, extent, time.perf_counter() - started)
    return _without_nan(report)


def write_report(report: Mapping[str, Any], folder: Path, stem: str = "report") -> tuple[Path, Path]:
    """Write ``<stem>.json`` and ``<stem>.html`` into ``folder``."""
    from models.evaluation.report import render

    folder.mkdir(parents=True, exist_ok=True)
    data, page = folder / f"{stem}.json", folder / f"{stem}.html"
    data.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page.write_text(render(report), encoding="utf-8")
    return data, page


def evaluate_package(
    package: ModelPackage, datasets: Mapping[str, Dataset], output: Path | None = None, extent: Extent | None = None
) -> dict[str, dict[str, Any]]:
    """Reports of a package on several data sets, into its folder's ``evaluation/`` unless ``output`` says otherwise.

    The first becomes ``report.json`` and ``report.html``, the others ``report-<name>.…``; the first links to them.
    """
    folder = output or package.folder / "evaluation"
    reports = {name: evaluate(package, dataset, extent) for name, dataset in datasets.items()}
    first, *others = reports
    reports[first]["others"] = [
        {"name": name, "file": f"{_stem(name)}.html", "figures": reports[name]["figures"]} for name in others
    ]
    for name, report in reports.items():
        write_report(report, folder, "report" if name == first else _stem(name))
    return reports


def _stem(name: str) -> str:
    return "report-" + re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _words(extent: Extent, words: str) -> str:
    return words if extent.progress else ""


def _model(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "title": manifest.title,
        "sha256": manifest.sha256,
        "input": manifest.input.size,
        "classes": [label.value for label in manifest.classes],
        "calibration": manifest.calibration.method,
        "intended_use": manifest.intended_use,
        "licence": manifest.licence.model_dump(),
    }


def _dataset(manifest: Manifest, dataset: Dataset, cases: list[Case], bad: Mapping[str, str]) -> dict[str, Any]:
    labels = [case.diagnosis for case in cases]
    left_out = {**dataset.left_out, **bad}
    seen = seen_images(manifest, (case.id for case in cases))
    return {
        "name": dataset.name,
        "layout": dataset.layout,
        "sha256": dataset.digest,
        "images": len(cases),
        "lesions": len({case.group for case in cases}),
        "labelled": sum(bool(label) for label in labels),
        "classes": {name: labels.count(name) for name in sorted(set(labels) - {""})},
        "left_out": [{"id": name, "why": why} for name, why in sorted(left_out.items())],
        "seen_in_training": seen,
        "notes": [*([warning(seen, len(cases))] if seen else []), *dataset.notes],
    }


def _sample(predictor: Predictor, cases: list[Case], answers: Answers) -> tuple[Sample, np.ndarray]:
    """The labelled part of the answers, and which rows those are."""
    classes = tuple(label.value for label in predictor.manifest.classes)
    rows = np.array([row for row, case in enumerate(cases) if case.diagnosis], np.int64)
    sample = Sample(
        tuple(cases[row].id for row in rows),
        classes,
        answers.probability[rows],
        np.array([classes.index(cases[row].diagnosis) for row in rows], np.int64),
        answers.called[rows],
        tuple(cases[row].group for row in rows),
    )
    return sample, rows


def _diagnosis(predictor: Predictor, cases: list[Case], answers: Answers, weights: Float64) -> dict[str, Any]:
    """Everything that needs a diagnosis; empty where no image has one."""
    sample, rows = _sample(predictor, cases, answers)
    if not len(rows):
        return {}
    weights = weights[:, rows]
    manifest = predictor.manifest
    melanoma, malignancy = manifest.thresholds.melanoma, manifest.thresholds.malignancy
    malignant = [label.value for label in malignancy.classes]
    chosen = {"sensitivity", "specificity", "fold"}
    found: dict[str, Any] = {
        "diagnosis_figures": figures.main_figures(sample, weights),
        "per_class": figures.per_class(sample, weights),
        "confusion_matrix": figures.confusion(sample),
        "roc": {
            "melanoma": curves.roc(sample.score(["mel"]), sample.positive(["mel"]), weights),
            "malignancy": curves.roc(sample.score(malignant), sample.positive(malignant), weights),
        },
        "operating_points": {
            "melanoma": curves.operating_point(
                sample, ["mel"], melanoma.probability, melanoma.model_dump(include=chosen)
            ),
            "malignancy": curves.operating_point(
                sample, malignant, malignancy.probability, malignancy.model_dump(include=chosen)
            ),
        },
        "reliability": {
            "most_probable": figures.reliability(
                sample.probability.max(axis=1),
                (sample.probability.argmax(axis=1) == sample.target).astype(np.float64),
            ),
            "melanoma": figures.reliability(sample.score(["mel"]), sample.positive(["mel"]).astype(np.float64)),
        },
        "missed_melanomas": _missed(sample, melanoma.probability),
    }
    sizes = None
    if manifest.prediction_sets is not None:
        rule = Rule.of(manifest)
        sizes = members(sample, rule).sum(axis=1)
        found["prediction_sets"] = prediction_sets(sample, rule, manifest.prediction_sets.alpha, weights)
    found["selective"] = measure_selective(sample, weights, melanoma.probability, sizes)
    return found


def _missed(sample: Sample, threshold: float) -> dict[str, Any]:
    """Melanomas that were called something else, those first that were given the least probability of being one."""
    score = sample.score(["mel"])
    missed = np.flatnonzero(sample.positive(["mel"]) & (sample.called != sample.classes.index("mel")))
    order = missed[np.argsort(score[missed], kind="stable")]
    return {
        "melanomas": int(sample.positive(["mel"]).sum()),
        "called_otherwise": len(missed),
        "below_threshold": int((score[sample.positive(["mel"])] < threshold).sum()),
        "threshold": rounded(threshold, 6),
        "cases": [
            {
                "id": sample.ids[row],
                "melanoma_probability": rounded(float(score[row])),
                "called": sample.classes[sample.called[row]],
                "probability": rounded(float(sample.probability[row, sample.called[row]])),
                "flagged": bool(score[row] >= threshold),
            }
            for row in order[:_MISSED]
        ],
    }


def _outline(predictor: Predictor, cases: list[Case], answers: Answers, weights: Float64) -> dict[str, Any]:
    """Everything that needs a mask; empty where no image has one."""
    rows = np.flatnonzero(np.isfinite(answers.jaccard))
    if not len(rows):
        return {}
    classes = [label.value for label in predictor.manifest.classes]
    target = [classes.index(case.diagnosis) if case.diagnosis else -1 for case in cases]
    right = np.array([math.nan if t < 0 else float(t == c) for t, c in zip(target, answers.called, strict=True)])
    overlap, reference, drawn = answers.jaccard[rows], answers.reference_share[rows], answers.drawn_share[rows]
    labels = tuple(cases[row].diagnosis for row in rows)
    return {
        "outline_figures": outlines.main_figures(overlap, weights[:, rows]),
        "outline": {
            "images": len(rows),
            "histogram": outlines.histogram(overlap),
            "by_size": outlines.by_size(reference, overlap, right[rows]),
            "by_class": outlines.by_class(labels, overlap),
            "worst": outlines.worst(tuple(cases[row].id for row in rows), overlap, reference, drawn, labels),
        },
    }


def _service(predictor: Predictor, cases: list[Case], weights: Float64, extent: Extent) -> dict[str, Any]:
    """The whole algorithm, with its gates."""
    served = service.serve(predictor, cases, _words(extent, "analysing"))
    diagnoses = {case.id: case.diagnosis for case in cases}
    classes = [label.value for label in predictor.manifest.classes]
    malignant = [label.value for label in predictor.manifest.thresholds.malignancy.classes]
    found: dict[str, Any] = {
        "abstention": service.abstention(served, diagnoses, weights, classes),
        "speed": service.speed(served),
    }
    if any(diagnoses.values()):
        found["triage"] = service.triage(served, diagnoses, malignant)
    return found


def _further(predictor: Predictor, name: str, cases: list[Case], answers: Answers, extent: Extent) -> dict[str, Any]:
    """Fairness, and what takes many times as long: distortions, whether the maps are faithful, and the gate."""
    found: dict[str, Any] = {}
    sample, rows = _sample(predictor, cases, answers)
    if len(rows):
        found["subgroups"] = measure_subgroups(
            predictor, cases, sample, seed=extent.seed, draws=extent.draws, progress=_words(extent, "grouping")
        )
    if extent.thorough:
        from models.evaluation.distortions import measure_distortions
        from models.evaluation.faithfulness import measure_faithfulness
        from models.evaluation.gate import measure_gate

        found["distortions"] = measure_distortions(
            predictor, cases, images=DISTORTED_IMAGES, seed=extent.seed, draws=extent.draws, progress=extent.progress
        )
        found["faithfulness"] = measure_faithfulness(
            predictor, cases, images=OCCLUDED_IMAGES, seed=extent.seed, progress=_words(extent, "occluding")
        )
        every = max(1, math.ceil(len(cases) / GATED_IMAGES))
        found["gate"] = measure_gate(predictor, {name: cases[::every]}, count=STRANGERS_PER_FAMILY, seed=extent.seed)
    return found


def _provenance(package: ModelPackage, dataset: Dataset, extent: Extent, seconds: float) -> dict[str, Any]:
    return {
        "model_sha256": package.manifest.sha256,
        "preprocessing_sha256": package.manifest.preprocessing_digest,
        "dataset_sha256": dataset.digest,
        "command": extent.command,
        "thorough": extent.thorough,
        "seed": extent.seed,
        "draws": extent.draws,
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds, 1),
        "versions": {
            "python": platform.python_version(),
            **{name: found for name in _RECORDED if (found := _version(name))},
        },
    }


_RECORDED = ("dermoscopy-cds", "numpy", "onnxruntime", "opencv-python-headless", "pillow")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _without_nan(value: Any) -> Any:
    """The same structure with ``None`` where JSON has no number."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
