"""One training run from data to model package, in stages that are done once and go on where they stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import cv2

from models.training.batches import limit_per_class, log_frequencies
from models.training.configuration import TrainingConfiguration, file_digest, load_configuration
from models.training.datasets import Crops, Pixels, read_native_images
from models.training.distillation import teacher_loss
from models.training.export import export
from models.training.loop import Fitted, fit
from models.training.material import Material, gather
from models.training.package import Provenance, write_package
from models.training.predictions import Case, Predictions, crop_cases, embeddings, native_cases, predict
from models.training.report import REPORT, write_reports
from models.training.run_folder import OtherRun, begin_run, refuse_to_replace
from models.training.sanity import refuse_insane
from models.training.splits import FOLDS
from models.training.stages import Stages, code_digest
from models.training.strangers import strangers

__all__ = ["OtherRun", "train"]

logger = logging.getLogger("models.training")


def train(
    config_path: Path,
    data: Path = Path("../shared/data"),
    output: Path = Path("var/training"),
    store: Path | None = None,
    restart: bool = False,
    skip_bad: bool = False,
) -> Path:
    """Split, train, export, calibrate, evaluate, package and report what a configuration describes.

    Args:
        config_path: the YAML file; see :class:`~models.training.configuration.TrainingConfiguration`.
        data: folder that the collections of the configuration are in.
        output: decoded images, checkpoints, predictions and the log; a killed run goes on from here.
        store: where the package goes, as ``<store>/<name>/<version>``; by default ``<output>/store``.
        restart: throw away what an earlier run of this version left in ``output`` first.
        skip_bad: leave out images that cannot be read, by name, instead of refusing.

    Returns:
        The package folder.

    Raises:
        Misconfigured: the configuration, the data or a folder cannot be used; the message says what to do.
        NotSane: the trained network is no better than a constant answer.
    """
    configuration = load_configuration(config_path)
    run = output / f"{configuration.name}-{configuration.version}"
    if restart:
        shutil.rmtree(run, ignore_errors=True)
    start = None
    if configuration.optimisation.start_from is not None:
        start = first_weights(config_path.parent / configuration.optimisation.start_from, data, output, skip_bad)
    run.mkdir(parents=True, exist_ok=True)
    _log_to(run / "train.log")
    cv2.setNumThreads(1)
    package = (store or output / "store") / configuration.name / configuration.version
    weights = run / "model.onnx"
    refuse_to_replace(package, weights)
    material = gather(configuration.data, data, output / "cache", run / "splits", skip_bad)
    code = begin_run(run, configuration, facts(material))
    stages = Stages(run)

    fitted = fit(
        configuration,
        material.crops,
        material.all_rows("train"),
        material.all_rows("validation"),
        run / "checkpoints",
        start,
        teacher_loss(configuration, config_path.parent, output, configuration.optimisation.device),
    )
    logger.info("kept epoch %d of %d", fitted.best.epoch, len(fitted.history))
    refuse_insane(fitted.best, material.crops, material.all_rows("validation"), configuration)

    difference = _export(stages, fitted, configuration, material, run)
    predictions = _predict_all(weights, material, data, configuration, run / "predictions")

    def pack() -> None:
        drawn = strangers(configuration.seed)
        write_package(
            package,
            weights,
            configuration,
            material.split,
            material.crops.labels,
            predictions,
            dict(zip(drawn, embeddings(weights, list(drawn.values()), configuration), strict=True)),
            Provenance(
                command=recorded_command(config_path, data, store),
                config=f"models/training/configs/{config_path.name}",
                config_sha256=file_digest(config_path),
                code=code,
                seed=configuration.seed,
                epochs=len(fitted.history),
                best_epoch=fitted.best.epoch,
                kept_weights=configuration.export.weights,
                wall_minutes=round(fitted.history[-1].minutes, 1),
                export_difference=difference,
                remarks=configuration.remarks,
            ),
        )
        (package / "evaluation" / "history.json").write_text(
            json.dumps([asdict(item) for item in fitted.history], indent=1) + "\n", encoding="utf-8"
        )

    rests_on = [file_digest(weights), file_digest(config_path), json.dumps(facts(material)), *sorted(predictions)]
    standing = [package / "manifest.yaml", package / "evaluation" / "metrics.json"]
    stages.once("package", [*rests_on, code_digest("models", "models/training")], standing, pack)

    def report() -> None:
        write_reports(package, configuration, material, recorded_command(config_path, data, store))

    rests_on = [file_digest(package / "manifest.yaml"), json.dumps(facts(material)), code_digest("models/evaluation")]
    standing = [
        package / "MODEL_CARD.md",
        *(package / "evaluation" / name for name in REPORT),
    ]  # the report's card last
    stages.once("report", rests_on, standing, report)
    logger.info("wrote %s", package)
    return package


def first_weights(config_path: Path, data: Path, output: Path, skip_bad: bool = False) -> Path:
    """The best checkpoint of the run that another configuration describes; trained now where it is not there yet."""
    earlier = load_configuration(config_path)
    best = output / f"{earlier.name}-{earlier.version}" / "checkpoints" / "best.pt"
    if not best.is_file():
        train(config_path, data, output, skip_bad=skip_bad)
    return best


def facts(material: Material) -> dict[str, object]:
    """What decides the weights beside the configuration: the splits, and which images were left out."""
    return {
        "split_sha256": material.split.sha256,
        "further_splits_sha256": {name: split.sha256 for name, split in material.further_splits.items()},
        "left_out": sorted(material.crops.unreadable),
    }


def recorded_command(config_path: Path, data: Path, store: Path | None) -> str:
    """The command that makes a package again, without what tells about this machine."""
    return f"cds train {_place(config_path)} --data {_place(data)}" + (f" --store {_place(store)}" if store else "")


def _export(
    stages: Stages, fitted: Fitted, configuration: TrainingConfiguration, material: Material, run: Path
) -> float:
    """Write ``model.onnx`` unless it stands; returns its largest difference to the trained network."""
    weights, compared = run / "model.onnx", run / "export.json"
    prior = configuration.calibration.prior_strength * log_frequencies(material.crops, material.rows["train"])
    options = configuration.export

    def work() -> None:
        differences = export(fitted.network, configuration.input.size, prior.tolist(), weights, options.views)
        logger.info("exported; largest difference to torch: %s", differences)
        compared.write_text(json.dumps(differences, indent=1) + "\n", encoding="utf-8")

    rests_on = [file_digest(run / "checkpoints" / name) for name in ("best.pt", "last.pt")]
    rests_on += [str(prior.tolist()), options.model_dump_json()]
    rests_on.append(configuration.input.model_dump_json())
    stages.once("export", rests_on, [weights, compared], work)
    return float(max(json.loads(compared.read_text(encoding="utf-8")).values()))


def _predict_all(
    weights: Path, material: Material, data: Path, configuration: TrainingConfiguration, kept: Path
) -> dict[str, Predictions]:
    """Predictions of every set of images that the package reports on; kept per model file."""
    crops, rows = material.crops, material.rows
    kept = kept / file_digest(weights)[:16]
    reference = limit_per_class(crops, rows["train"], configuration.calibration.reference_per_class)
    sets = {"reference": reference, **{fold: rows[fold] for fold in FOLDS[1:]}}
    sets |= {f"{name}-test": its["test"] for name, its in material.further.items()}
    folder, native = data / configuration.data.folder, dict[str, Pixels]()
    if configuration.data.layout == "ham10000-archives" and any(folder.glob("ham10000-native-600x450-*.tar")):
        native = read_native_images(folder)
        sets["native_crops"] = [row for row in rows["test"] if crops.labels[row].image_id in native]
    predictions = {}
    for name, some in sets.items():
        predictions[name] = _predicted(name, some, crop_cases(crops, some), weights, crops, configuration, kept)
    if native:
        some = sets["native_crops"]
        frames = {crops.labels[row].image_id: native[crops.labels[row].image_id] for row in some}
        cases = native_cases(crops, frames)
        predictions["native"] = _predicted("native", some, cases, weights, crops, configuration, kept)
    return {name: answers for name, answers in predictions.items() if len(answers.rows)}


def _predicted(
    name: str,
    rows: list[int],
    cases: Iterator[Case],
    weights: Path,
    crops: Crops,
    configuration: TrainingConfiguration,
    kept: Path,
) -> Predictions:
    """Predictions of some rows; kept under the set's name and a digest of its images."""
    images = ",".join(crops.labels[row].image_id for row in rows)
    file = kept / f"{name}-{hashlib.sha256(images.encode()).hexdigest()[:8]}.npz"
    logger.info("skipping %s: its predictions stand" if file.is_file() else "predicting %s", name)
    return predict(weights, cases, crops, configuration, file)


def _place(path: Path) -> str:
    """A path for the record: as it was given, or only its name where it tells about this machine."""
    return f"<folder>/{path.name}" if path.is_absolute() else path.as_posix()


def _log_to(path: Path) -> None:
    """Log to a file and to the terminal."""
    logger.setLevel(logging.INFO)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    for handler in (logging.FileHandler(path, encoding="utf-8"), logging.StreamHandler(sys.stderr)):
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)
