"""FP16 and INT8 forms of a tiny package: made, measured, offered or refused."""

import csv
import json

import numpy as np
import onnx
import pytest

from dermoscopy.errors import Misconfigured
from models.manifest import read_manifest
from models.registry import open_package
from models.session import OnnxSession
from models.training import variants
from models.training.configuration import file_digest
from models.training.variants import main, make_forms, open_images


@pytest.fixture
def package(build_package):
    def claim(manifest):
        manifest["data"] = {"dataset": "HAM10000"}

    return build_package(claim)


@pytest.fixture
def images(package, miniature):
    return open_images(package.manifest, miniature, miniature / "split.csv", 8, 6)


def reopened(package):
    return open_package(package.folder.parent.parent, package.manifest.name, package.manifest.version)


def spoil(weights, _target):
    """The same network with its melanoma logit raised by 50."""
    graph = onnx.load(weights)
    for tensor in graph.graph.initializer:
        if tensor.name == "b_classes":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.eye(7, dtype=np.float32)[4] * 50, "b_classes"))
    onnx.save(graph, _target)


def test_forms_are_made_measured_and_offered(package, images):
    verdicts = make_forms(package, images, threads=1)
    assert [(one.precision, one.refused) for one in verdicts] == [("fp16", ()), ("int8", ())]
    found = reopened(package)
    found.verify()
    assert found.precisions == ("fp32", "fp16", "int8")
    assert sorted(path.name for path in found.folder.glob("*.onnx")) == [
        "model.fp16.onnx",
        "model.int8.onnx",
        "model.onnx",
    ]
    image = np.random.default_rng(1).normal(0, 1, (1, 3, 64, 64)).astype(np.float32)
    plain = OnnxSession.open(found, threads=1).run(image)
    for precision in ("fp16", "int8"):
        other = OnnxSession.open(found.in_form(precision), threads=1).run(image)
        gap = np.abs(other.class_logits - plain.class_logits).max()
        assert 0 < gap < {"fp16": 0.005, "int8": 0.5}[precision]
        parity = found.manifest.forms[precision].parity
        assert parity["validation"]["images"] == 6 and parity["test"]["images"] == 6
        assert parity["outputs"]["class_logits"]["max"] > 0
        assert parity["validation"]["change"]["balanced_accuracy"] is not None
    int8 = onnx.load(found.in_form("int8").weights)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in int8.graph.node}
    half = onnx.load(found.in_form("fp16").weights)
    assert {tensor.data_type for tensor in half.graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert half.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_the_rest_of_the_manifest_stays_as_it_was(package, images):
    before = package.manifest
    make_forms(package, images, ["fp16"], threads=1)
    assert reopened(package).manifest.model_copy(update={"forms": {}}) == before


def test_a_form_that_answers_otherwise_is_refused_recorded_and_taken_away(package, images, monkeypatch):
    make_forms(package, images, threads=1)
    monkeypatch.setattr(variants, "to_fp16", spoil)
    (verdict,) = make_forms(reopened(package), images, ["fp16"], threads=1)
    assert verdict.refused and "called otherwise" in verdict.refused[-1]
    found = reopened(package)
    assert found.precisions == ("fp32", "int8")
    assert not (found.folder / "model.fp16.onnx").exists()
    record = json.loads((found.folder / "evaluation" / "forms.json").read_text())
    assert record["fp16"]["offered"] is False and record["fp16"]["refused_because"] == list(verdict.refused)
    assert record["int8"]["offered"] is True
    assert record["fp32_sha256"] == package.manifest.sha256
    with pytest.raises(Misconfigured, match="has no fp16 form"):
        found.in_form("fp16")


def test_what_breaks_on_the_way_leaves_the_package_as_it_was(package, images, monkeypatch):
    def broken(*_):
        raise Misconfigured("no")

    monkeypatch.setattr(variants, "to_fp16", broken)
    with pytest.raises(Misconfigured):
        make_forms(package, images, ["fp16"], threads=1)
    assert sorted(path.name for path in package.folder.iterdir()) == ["manifest.yaml", "model.onnx"]


def test_ranges_come_from_the_training_fold_alone(package, miniature):
    found = open_images(package.manifest, miniature, miniature / "split.csv", 100, 0)
    with (miniature / "split.csv").open() as file:
        folds = {row["image_id"]: row["fold"] for row in csv.DictReader(file)}
    assert len(found.calibration) == sum(fold == "train" for fold in folds.values())
    assert {folds[case.id.upper()] for case in found.calibration} == {"train"}
    for fold, cases in found.folds.items():
        assert {folds[case.id.upper()] for case in cases} == {fold}


def test_another_split_than_the_models_is_refused(package, miniature, tmp_path):
    split = {"file": "models/training/splits/ham10000-v1.csv", "sha256": file_digest(miniature / "split.csv")}
    manifest = package.manifest.model_copy(update={"data": {"dataset": "HAM10000", "split": split}})
    other = tmp_path / "other.csv"
    other.write_text((miniature / "split.csv").read_text() + "\n")
    with pytest.raises(Misconfigured, match="not the split"):
        open_images(manifest, miniature, other, 8, 4)
    assert open_images(manifest, miniature, miniature / "split.csv", 8, 4).calibration


def test_a_model_that_names_no_split_asks_for_one(package, miniature):
    with pytest.raises(Misconfigured, match="--split"):
        open_images(package.manifest, miniature, None, 8, 4)


def test_no_image_to_calibrate_with_is_said(package, images):
    with pytest.raises(Misconfigured, match="no image to calibrate with"):
        make_forms(package, variants.Images((), images.folds), ["int8"], threads=1)


def test_the_command_says_what_it_did_and_what_is_wrong(package, miniature, capsys):
    store = str(package.folder.parent.parent)
    given = ["--data", str(miniature), "--store", store, "--split", str(miniature / "split.csv"), "--threads", "1"]
    assert main(["tiny==1.0.0", *given, "--forms", "fp16", "--limit", "4"]) == 0
    assert "fp16: offered" in capsys.readouterr().out
    assert read_manifest(package.folder / "manifest.yaml").forms.keys() == {"fp16"}
    assert main(["tiny==2.0.0", *given]) == 2
    assert "tiny==2.0.0 is not installed" in capsys.readouterr().err
