"""One training run from configuration to model package, in stages that are done once and go on where they stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import yaml

from dermoscopy.errors import Misconfigured
from models.manifest import MANIFEST_NAME
from models.training.batches import limit_per_class, log_frequencies
from models.training.configuration import TrainingConfiguration, file_digest, load_configuration
from models.training.datasets import Crops, load_crops, load_task1, read_native_images, stack
from models.training.export import export
from models.training.loop import fit
from models.training.package import Provenance, write_package
from models.training.predictions import Predictions, crop_cases, embeddings, native_cases, predict
from models.training.splits import FOLDS, Split, check_against_labels, read_split
from models.training.strangers import strangers

logger = logging.getLogger("models.training")

#: Sections of the configuration that decide what the weights become; the rest acts after training.
DECIDING = ("seed", "architecture", "input", "data", "augmentation", "losses", "optimisation")


class OtherRun(Misconfigured):
    """The output folder or the store holds what another run made."""


def train(
    config_path: Path,
    data: Path = Path("../shared/data"),
    output: Path = Path("var/training"),
    store: Path | None = None,
    restart: bool = False,
) -> Path:
    """Train, export, calibrate, evaluate and package what a configuration describes.

    Args:
        config_path: the YAML file; see :class:`~models.training.configuration.TrainingConfiguration`.
        data: folder with the HAM10000 archives and ``ham10000.csv``.
        output: decoded images, checkpoints, predictions and the log; a killed run goes on from here.
        store: where the package goes, as ``<store>/<name>/<version>``; by default ``<output>/store``.
        restart: throw away the checkpoints of an earlier run first.

    Returns:
        The package folder.
    """
    configuration = load_configuration(config_path)
    run = output / f"{configuration.name}-{configuration.version}"
    if restart:
        shutil.rmtree(run, ignore_errors=True)
    start = None
    if configuration.optimisation.start_from is not None:
        start = first_weights(config_path.parent / configuration.optimisation.start_from, data, output)
    run.mkdir(parents=True, exist_ok=True)
    _log_to(run / "train.log")
    cv2.setNumThreads(1)
    split = read_split(configuration.data.split)
    package = (store or output / "store") / configuration.name / configuration.version
    weights = run / "model.onnx"
    refuse_to_replace(package, weights)
    code = begin_run(run, configuration, split)

    logger.info("decoding %s (once)", data)
    ham = load_crops(data, output / "cache" / "ham10000")
    check_against_labels(split, ham.labels)
    collections, more = [ham], dict[str, list[str]]()
    for further in configuration.data.further:
        its_split = read_split(further.split)
        collections.append(load_task1(data, output / "cache" / further.collection, its_split.lesion_by_image))
        for fold in FOLDS:
            more.setdefault(fold, []).extend(its_split.images(fold))
    crops = stack(collections)
    positions = crops.positions()
    rows = {
        fold: [positions[image] for image in split.images(fold)]
        for fold in ("train", "validation", "calibration", "test")
    }

    further_rows = {fold: [positions[image] for image in images] for fold, images in more.items()}
    fitted = fit(
        configuration,
        crops,
        rows["train"] + further_rows.get("train", []),
        rows["validation"] + further_rows.get("validation", []),
        run / "checkpoints",
        start,
    )
    logger.info("kept epoch %d of %d", fitted.best.epoch, len(fitted.history))

    prior = configuration.calibration.prior_strength * log_frequencies(crops, rows["train"])
    differences = export(fitted.network, configuration.input.size, prior.tolist(), weights)
    logger.info("exported; largest difference to torch: %s", differences)

    predictions = _predict_all(weights, crops, rows, data, configuration, run / "predictions")
    drawn = strangers(configuration.seed)
    write_package(
        package,
        weights,
        configuration,
        split,
        crops.labels,
        predictions,
        dict(zip(drawn, embeddings(weights, list(drawn.values()), configuration), strict=True)),
        Provenance(
            command=f"python -m models.training {_place(config_path)} --data {_place(data)}"
            + (f" --store {_place(store)}" if store else ""),
            config=f"models/training/configs/{config_path.name}",
            config_sha256=file_digest(config_path),
            code=code,
            seed=configuration.seed,
            epochs=len(fitted.history),
            best_epoch=fitted.best.epoch,
            wall_minutes=round(fitted.history[-1].minutes, 1),
            export_difference=max(differences.values()),
            remarks=configuration.remarks,
        ),
    )
    (package / "evaluation" / "history.json").write_text(
        json.dumps([asdict(item) for item in fitted.history], indent=1) + "\n", encoding="utf-8"
    )
    logger.info("wrote %s", package)
    return package


def first_weights(config_path: Path, data: Path, output: Path) -> Path:
    """The best checkpoint of the run that another configuration describes; trained now where it is not there yet."""
    earlier = load_configuration(config_path)
    best = output / f"{earlier.name}-{earlier.version}" / "checkpoints" / "best.pt"
    if not best.is_file():
        train(config_path, data, output)
    return best


def begin_run(run: Path, configuration: TrainingConfiguration, split: Split) -> str:
    """Claim a run folder for a configuration, or check that it is this one's; returns the code's commit.

    Raises:
        OtherRun: the folder's checkpoints were made with other settings.
    """
    claim = run / "run.json"
    settings: dict[str, Any] = configuration.model_dump(mode="json", include=set(DECIDING))
    settings["split_sha256"] = split.sha256
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    if claim.is_file():
        earlier = json.loads(claim.read_text(encoding="utf-8"))
        if earlier["digest"] != digest:
            changed = sorted(key for key in settings if settings[key] != earlier["settings"].get(key))
            raise OtherRun(
                f"{run} holds a run with other settings ({', '.join(changed)} changed): "
                "choose another output folder or version, or give --restart to throw it away"
            )
        return str(earlier["code"])
    code = _commit()
    claim.write_text(json.dumps({"digest": digest, "code": code, "settings": settings}, indent=1), encoding="utf-8")
    return code


def refuse_to_replace(package: Path, weights: Path) -> None:
    """A version means one set of weights for ever: what it once said must stay traceable.

    Raises:
        OtherRun: ``package`` exists, and its weights are not those that this run exported.
    """
    manifest = package / MANIFEST_NAME
    if not manifest.is_file():
        return
    installed = yaml.safe_load(manifest.read_text(encoding="utf-8"))["sha256"]
    if not weights.is_file() or file_digest(weights) != installed:
        raise OtherRun(
            f"{package} is there already, with the weights of another run: "
            "raise the configuration's version, or name another store"
        )


def _predict_all(
    weights: Path,
    crops: Crops,
    rows: dict[str, list[int]],
    data: Path,
    configuration: TrainingConfiguration,
    kept: Path,
) -> dict[str, Predictions]:
    """Predictions of every set of images that the package reports on; kept per model file."""
    kept = kept / file_digest(weights)[:16]
    reference = limit_per_class(crops, rows["train"], configuration.calibration.reference_per_class)
    sets = {
        "reference": crop_cases(crops, reference),
        **{fold: crop_cases(crops, rows[fold]) for fold in ("validation", "calibration", "test")},
    }
    if any(data.glob("ham10000-native-600x450-*.tar")):
        native = read_native_images(data)
        positions = crops.positions()
        sets["native_crops"] = crop_cases(crops, sorted(positions[image] for image in native))
        sets["native"] = native_cases(crops, native)
    predictions = {}
    for name, cases in sets.items():
        logger.info("predicting %s", name)
        predictions[name] = predict(weights, cases, crops, configuration, kept / f"{name}.npz")
    return predictions


def _place(path: Path) -> str:
    """A path for the record: as it was given, or only its name where it tells about this machine."""
    return f"<folder>/{path.name}" if path.is_absolute() else path.as_posix()


def _commit() -> str:
    """The commit that the code stands at, where git knows one."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    answer = subprocess.run(  # noqa: S603 - a fixed command
        [git, "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return f"commit {answer.stdout.strip()}" if answer.returncode == 0 else "unknown"


def _log_to(path: Path) -> None:
    """Log to a file and to the terminal."""
    logger.setLevel(logging.INFO)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    for handler in (logging.FileHandler(path, encoding="utf-8"), logging.StreamHandler(sys.stderr)):
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)
