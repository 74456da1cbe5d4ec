"""A tiny network that is a real ONNX graph: dark is lesion, and the class comes from the mean colour.

Its class activation map averages to its logits, as the real one's does.
"""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from dermoscopy.domain import DermoscopicImage
from dermoscopy.phantoms import phantom
from models.manifest import preprocessing_digest
from models.registry import open_package
from models.session import OnnxSession

SIZE = 64
CLASSES = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
FEATURES = 8


def tiny_graph(bias=None, seed=3):
    """Serialized ONNX; ``bias`` shifts the class logits."""
    random = np.random.default_rng(seed)
    bias = np.zeros(7) if bias is None else np.asarray(bias, dtype=float)
    constants = {
        "w_mask": np.full((1, 3, 1, 1), -4.0, np.float32),
        "b_mask": np.array([1.0], np.float32),
        "w_features": random.normal(0, 1, (FEATURES, 3, 8, 8)).astype(np.float32) / 8,
        "w_classes": random.normal(0, 0.4, (7, FEATURES, 1, 1)).astype(np.float32),
        "b_classes": bias.astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w_mask", "b_mask"], ["mask_logits"]),
        helper.make_node("Conv", ["image", "w_features"], ["raw"], strides=[8, 8]),
        helper.make_node("Relu", ["raw"], ["features"]),
        helper.make_node("Conv", ["features", "w_classes"], ["activation_map"]),
        helper.make_node("GlobalAveragePool", ["activation_map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["unbiased"]),
        helper.make_node("Add", ["unbiased", "b_classes"], ["class_logits"]),
        helper.make_node("GlobalAveragePool", ["features"], ["mean_features"]),
        helper.make_node("Flatten", ["mean_features"], ["embedding"]),
    ]

    def tensor(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "tiny",
        [tensor("image", ["N", 3, SIZE, SIZE])],
        [
            tensor("mask_logits", ["N", 1, SIZE, SIZE]),
            tensor("class_logits", ["N", 7]),
            tensor("activation_map", ["N", 7, SIZE // 8, SIZE // 8]),
            tensor("embedding", ["N", FEATURES]),
        ],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_manifest(weights: bytes) -> dict:
    steps = [
        {"step": "letterbox", "size": SIZE, "fill": [180, 150, 135]},
        {"step": "scale", "factor": 0.00392156862745098},
        {"step": "normalize", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
    ]
    return {
        "schema": 1,
        "name": "tiny",
        "version": "1.0.0",
        "title": "Tiny network for tests",
        "file": "model.onnx",
        "sha256": hashlib.sha256(weights).hexdigest(),
        "bytes": len(weights),
        "licence": {"weights": "Apache-2.0", "data": "none", "attribution": "none"},
        "intended_use": "Tests.",
        "input": {"name": "image", "size": SIZE, "layout": "NCHW", "colour": "RGB"},
        "outputs": {
            "mask": "mask_logits",
            "classes": "class_logits",
            "activation_map": "activation_map",
            "embedding": "embedding",
        },
        "preprocessing": steps,
        "preprocessing_digest": preprocessing_digest(steps),
        "classes": CLASSES,
        "calibration": {"method": "temperature", "temperature": 1.2, "fold": "calibration"},
        "thresholds": {
            "mask": 0.5,
            "melanoma": {"probability": 0.4, "sensitivity": 0.9, "specificity": 0.8, "fold": "validation"},
            "malignancy": {"probability": 0.6, "classes": ["akiec", "bcc", "mel"], "fold": "validation"},
            "confidence": {"probability": 0.15},
        },
        "metrics": {},
        "data": {},
        "training": {},
    }


@pytest.fixture(scope="session")
def tiny_weights() -> bytes:
    return tiny_graph()


@pytest.fixture
def build_package(tmp_path):
    """``build_package(change=…, bias=…)`` writes a package into ``tmp_path/store`` and opens it."""

    def build(change=None, bias=None, version="1.0.0", store=None):
        weights = tiny_graph(bias)
        manifest = tiny_manifest(weights)
        manifest["version"] = version
        if change is not None:
            change(manifest)
        folder = (store or tmp_path / "store") / manifest["name"] / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(weights)
        write_manifest(folder, manifest)
        return open_package(store or tmp_path / "store", manifest["name"], version)

    return build


@pytest.fixture
def add_form():
    """``add_form(package, "int8", bias=…)`` puts another network beside the weights as a form and opens the package."""

    def add(package, precision, bias=None):
        weights = tiny_graph(bias)
        (package.folder / f"model.{precision}.onnx").write_bytes(weights)
        path = package.folder / "manifest.yaml"
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        document.setdefault("forms", {})[precision] = {
            "file": f"model.{precision}.onnx",
            "sha256": hashlib.sha256(weights).hexdigest(),
            "bytes": len(weights),
            "parity": {"validation": {"called_otherwise": 0.0}},
        }
        write_manifest(package.folder, document)
        return open_package(package.folder.parent.parent, package.manifest.name, package.manifest.version)

    return add


@pytest.fixture
def open_session():
    return lambda package: OnnxSession.open(package, threads=1)


@pytest.fixture
def manifest_document(tiny_weights):
    return tiny_manifest(tiny_weights)


def write_manifest(folder: Path, document: dict) -> Path:
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture
def save_manifest(tmp_path):
    return lambda document: write_manifest(tmp_path, document)


@pytest.fixture(scope="session")
def draw():
    """``draw(kind, seed=…)`` gives an image and the phantom behind it."""

    def build(kind="nevus", seed=1, spacing_mm=None, **options):
        made = phantom(seed, kind=kind, **options)
        digest = hashlib.sha256(repr(made.pixels.shape).encode() + made.pixels.tobytes()).hexdigest()
        return DermoscopicImage(made.pixels, digest, spacing_mm), made

    return build
