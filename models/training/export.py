"""The trained network as one ONNX file, checked against torch before anybody trusts it."""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.training.architectures.contract import NetworkOutputs
from models.training.configuration import View

OPSET = 17
#: Largest difference between torch and ONNX Runtime that counts as the same network.
TOLERANCE = 1e-3
#: Axes of [N, C, S, S] that each view turns round; all of these undo themselves.
TURNED: dict[View, tuple[int, ...]] = {"identity": (), "mirror": (3,), "flip": (2,), "turn": (2, 3)}


class ParityBroken(RuntimeError):
    """The exported file does not answer as the trained network does."""


class AveragedViews(nn.Module):
    """A network asked about several views of each image, with the answers turned back and averaged.

    ``mirror`` exchanges left and right, ``flip`` top and bottom, ``turn`` is half a turn. The views go through the
    network as one batch, so the weights stand in the graph once. Class logits and embeddings are averaged as they are,
    mask logits and activation maps after they were turned back; since the average of linear heads is linear, a map's
    mean plus the bias still is its class logit.
    """

    def __init__(self, network: nn.Module, views: tuple[View, ...]) -> None:
        super().__init__()
        self.network = network
        self.turned = tuple(TURNED[view] for view in views)

    def forward(self, image: Tensor) -> NetworkOutputs:
        """Normalised RGB [N, 3, S, S] to the four outputs."""
        views = torch.cat([torch.flip(image, axes) if axes else image for axes in self.turned])
        mask_logits, class_logits, activation_map, embedding = (
            output.chunk(len(self.turned)) for output in self.network(views)
        )
        return NetworkOutputs(
            self._mean_place(mask_logits),
            torch.stack(class_logits).mean(dim=0),
            self._mean_place(activation_map),
            torch.stack(embedding).mean(dim=0),
        )

    def _mean_place(self, answers: tuple[Tensor, ...]) -> Tensor:
        """The mean of answers that have places, each turned back."""
        back = [torch.flip(part, axes) if axes else part for part, axes in zip(answers, self.turned, strict=True)]
        return torch.stack(back).mean(dim=0)


def export(
    network: nn.Module,
    size: int,
    class_bias: list[float],
    path: Path,
    views: tuple[View, ...] = ("identity",),
) -> dict[str, float]:
    """Write ``path`` and return the largest absolute difference between torch and ONNX Runtime, by output.

    Args:
        network: a trained lesion network.
        size: input side S; the batch is dynamic.
        class_bias: added to the class logits for good, [7].
        path: the ONNX file.
        views: views of the image that the file averages over.

    Raises:
        ParityBroken: a difference exceeds :data:`TOLERANCE`; the file is not written.
    """
    shipped = copy.deepcopy(network).eval().to(memory_format=torch.contiguous_format)
    shipped.shift_class_logits(class_bias)
    if views != ("identity",):
        shipped = AveragedViews(shipped, views).eval()
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
