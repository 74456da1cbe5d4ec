"""The trained network as one ONNX file, checked against torch before anybody trusts it."""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.training.architectures.contract import NetworkOutputs

OPSET = 17
#: Largest difference between torch and ONNX Runtime that counts as the same network.
TOLERANCE = 1e-3


class ParityBroken(RuntimeError):
    """The exported file does not answer as the trained network does."""


def export(network: nn.Module, size: int, class_bias: list[float], path: Path) -> dict[str, float]:
    """Write ``path`` and return the largest absolute difference between torch and ONNX Runtime, by output.

    Args:
        network: a trained lesion network.
        size: input side S; the batch is dynamic.
        class_bias: added to the class logits for good, [7].

    Raises:
        ParityBroken: a difference exceeds :data:`TOLERANCE`; the file is not written.
    """
    shipped = copy.deepcopy(network).eval().to(memory_format=torch.contiguous_format)
    shipped.shift_class_logits(class_bias)
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), warnings.catch_warnings():
        # The exporter that torch recommends writes a second file for the weights; a package has one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            shipped,
            (torch.zeros(2, 3, size, size),),
            str(partial),
            input_names=["image"],
            output_names=list(NetworkOutputs._fields),
            dynamic_axes={name: {0: "batch"} for name in ("image", *NetworkOutputs._fields)},
            opset_version=OPSET,
            dynamo=False,
        )
    differences = parity(shipped, partial, size)
    if max(differences.values()) > TOLERANCE:
        raise ParityBroken(f"torch and ONNX Runtime differ by {differences}; more than {TOLERANCE}")
    os.replace(partial, path)
    return differences


def parity(network: nn.Module, path: Path, size: int, images: int = 3, seed: int = 0) -> dict[str, float]:
    """Largest absolute difference of each output over random images, between torch and the file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(seed).normal(size=(images, 3, size, size)).astype(np.float32)
    with torch.inference_mode():
        expected: NetworkOutputs = network(torch.from_numpy(image))
    answers = session.run(list(NetworkOutputs._fields), {"image": image})
    return {
        name: float(np.abs(wanted.numpy() - given).max())
        for name, wanted, given in zip(NetworkOutputs._fields, expected, answers, strict=True)
    }
