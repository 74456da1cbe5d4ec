"""``python -m models.training.variants NAME==VERSION --data FOLDER``: FP16 and INT8 forms of an installed model.

Each form is made from the package's FP32 file, measured beside it on the validation and the test fold, and offered
(named in the manifest) only if it loses less than `models.training.agreement.TOLERANCES` on the validation fold. What
was measured of every form, refused ones too, stands in ``evaluation/forms.json``. Needs no torch.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from dermoscopy.errors import DermoscopyError, Misconfigured
from models.evaluation.dataset import Case
from models.evaluation.layouts import Choice, open_dataset
from models.evaluation.predict import Answers, Predictor
from models.manifest import MANIFEST_NAME, Form, Manifest, read_manifest
from models.preprocess import prepare
from models.registry import FP16, INT8, ModelPackage, champion
from models.training.agreement import DECIDING, TOLERANCES, compare, differences, refusals
from models.training.configuration import file_digest
from models.training.conversion import CALIBRATIONS, to_fp16, to_int8

FOLDS = (DECIDING, "test")
FORMS = (FP16, INT8)
RECORD = Path("evaluation") / "forms.json"
CLOSELY = 64
"""Images whose raw outputs are compared number by number."""
STORE = Path(__file__).resolve().parents[1] / "store"
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Images:
    """What forms are calibrated and measured on: the training fold's share, and cases by fold."""

    calibration: tuple[Case, ...]
    folds: Mapping[str, tuple[Case, ...]]


@dataclass(frozen=True)
class Verdict:
    """One form: its figures for the manifest, and why it is not offered (empty: it is)."""

    precision: str
    parity: Mapping[str, Any]
    refused: tuple[str, ...]


def open_images(manifest: Manifest, data: Path, split: Path | None, calibration: int, limit: int) -> Images:
    """``calibration`` images of the training fold and the folds of `FOLDS` (``limit`` images each; 0: all).

    Raises `Misconfigured` if the split is not the one that the model was trained with.
    """
    said = manifest.data.get("split")
    if split is None:
        if not isinstance(said, Mapping) or "file" not in said:
            raise Misconfigured(f"{manifest.name}=={manifest.version} does not name its split: say which with --split")
        split = REPOSITORY / str(said["file"])
    if isinstance(said, Mapping) and said.get("sha256") not in (None, file_digest(split)):
        raise Misconfigured(f"{split} is not the split that {manifest.name}=={manifest.version} was trained with")
    table = data / f"{str(manifest.data.get('dataset', '')).lower()}.csv"
    place = table if table.is_file() else data
    classes = [label.value for label in manifest.classes]

    def cases(fold: str, most: int) -> tuple[Case, ...]:
        return open_dataset(place, classes, Choice(split=split, fold=fold, limit=most)).cases

    return Images(cases("train", calibration), {fold: cases(fold, limit) for fold in FOLDS})


def make_forms(
    package: ModelPackage,
    images: Images,
    forms: Sequence[str] = FORMS,
    calibration: str = "minmax",
    threads: int = 2,
    progress: bool = False,
) -> list[Verdict]:
    """Make, measure and file ``forms``; the package's manifest then offers those that passed, and no other of them.

    Raises `Misconfigured` or `WeightsMismatch` where the package is not whole.
    """
    package.verify()
    plain = Predictor(package, threads)
    expected = {fold: _answers(plain, cases, f"fp32, {fold}", progress) for fold, cases in images.folds.items()}
    verdicts = []
    for precision in forms:
        candidate = package.folder / f"model.{precision}.partial.onnx"
        try:
            if precision == FP16:
                to_fp16(package.weights, candidate)
            else:
                to_int8(package.weights, candidate, _inputs(images.calibration, package.manifest), calibration)
            other = Predictor(_with(package, precision, candidate), threads)
            parity: dict[str, Any] = {
                "calibration": _calibrated(precision, calibration, images),
                "outputs": differences(plain, other, images.folds[DECIDING][:CLOSELY]),
            }
            for fold, cases in images.folds.items():
                answers = _answers(other, cases, f"{precision}, {fold}", progress)
                parity[fold] = compare(expected[fold], answers, cases, package.manifest)
            verdict = Verdict(precision, parity, tuple(refusals(parity[DECIDING])))
            _file(package, verdict, candidate)
            verdicts.append(verdict)
        finally:
            candidate.unlink(missing_ok=True)
    return verdicts


def _answers(predictor: Predictor, cases: tuple[Case, ...], words: str, progress: bool) -> Answers:
    return predictor.answers(cases, words if progress else "")


def _inputs(cases: Sequence[Case], manifest: Manifest) -> Iterator[NDArray[np.float32]]:
    return (prepare(case.pixels(), manifest.preprocessing).tensor for case in cases)


def _calibrated(precision: str, calibration: str, images: Images) -> str:
    return "none" if precision == FP16 else f"{calibration} over {len(images.calibration)} images of the training fold"


def _with(package: ModelPackage, precision: str, weights: Path) -> ModelPackage:
    """The package as if it offered ``weights`` as its form."""
    form = Form(file=weights.name, sha256=file_digest(weights), bytes=weights.stat().st_size, parity={})
    manifest = package.manifest.model_copy(update={"forms": {precision: form}})
    return ModelPackage(package.folder, manifest).in_form("fp16" if precision == FP16 else "int8")


def _file(package: ModelPackage, verdict: Verdict, weights: Path) -> None:
    """Put the form in place and name it in the manifest, or take an earlier one out of both; the manifest comes last
    when a form is added and first when one goes, so that it never names a file that is not there.
    """
    final = package.folder / f"model.{verdict.precision}.onnx"
    path = package.folder / MANIFEST_NAME
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    forms: dict[str, Any] = dict(document.get("forms") or {})
    forms.pop(verdict.precision, None)
    _record(package, verdict)
    if verdict.refused:
        _write_manifest(path, document, forms)
        final.unlink(missing_ok=True)
        return
    entry = {"file": final.name, "sha256": file_digest(weights), "bytes": weights.stat().st_size}
    os.replace(weights, final)
    _write_manifest(path, document, forms | {verdict.precision: entry | {"parity": dict(verdict.parity)}})


def _write_manifest(path: Path, document: dict[str, Any], forms: Mapping[str, Any]) -> None:
    changed = {name: value for name, value in document.items() if name != "forms"}
    if forms:
        changed["forms"] = {name: forms[name] for name in sorted(forms)}
    partial = path.with_suffix(".writing")
    partial.write_text(yaml.safe_dump(changed, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8")
    read_manifest(partial)  # nothing is put in place that the service would refuse
    os.replace(partial, path)


def _record(package: ModelPackage, verdict: Verdict) -> None:
    path = package.folder / RECORD
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known["fp32_sha256"] = package.manifest.sha256
    known["tolerances"] = {"fold": DECIDING, **TOLERANCES}
    known[verdict.precision] = {
        "offered": not verdict.refused, "refused_because": list(verdict.refused), "parity": dict(verdict.parity),
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments and make the forms; 2 and one line where something that the user gave is wrong."""
    parser = argparse.ArgumentParser(prog="python -m models.training.variants", description=__doc__)
    parser.add_argument("model", help="name==version of an installed model")
    parser.add_argument("--data", type=Path, required=True, help="folder of the images that it was trained on")
    parser.add_argument("--store", type=Path, default=STORE, help="folder of installed models")
    parser.add_argument("--split", type=Path, help="CSV of folds; the one that the manifest names if not given")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="which forms to make")
    parser.add_argument("--calibration", choices=list(CALIBRATIONS), default="minmax", help="how INT8 ranges are found")
    parser.add_argument("--calibration-images", type=int, default=200, help="images of the training fold for INT8")
    parser.add_argument("--limit", type=int, default=0, help="images of each fold at most; 0 takes all, as it must be")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    try:
        package = champion(given.store, given.model)
        images = open_images(package.manifest, given.data, given.split, given.calibration_images, given.limit)
        verdicts = make_forms(package, images, given.forms, given.calibration, given.threads, progress=True)
    except DermoscopyError as error:
        print(error, file=sys.stderr)  # noqa: T201 - this is the command line
        return 2
    for verdict in verdicts:
        print(f"{verdict.precision}: {'; '.join(verdict.refused) or 'offered'}")  # noqa: T201 - this is the command line
        print(yaml.safe_dump(dict(verdict.parity), sort_keys=False))  # noqa: T201 - this is the command line
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
