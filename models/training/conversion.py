"""The FP32 graph in other number formats: FP16 for GPUs, INT8 for CPUs. Input and outputs stay float32.

FP16: `onnxruntime.transformers.float16`. INT8: static quantisation with QuantizeLinear and DequantizeLinear nodes,
unsigned 8-bit activations and signed weights with one scale per channel, as ONNX Runtime's CPU kernels like them
(onnxruntime.ai/docs/performance/model-optimizations/quantization.html).

Everything is quantised, the first convolution and the heads included: to leave them out was tried and was worse
(ReLU6 is a node of its own here, and a convolution whose clipping is not quantised along with it wastes its range).
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermoscopy.errors import Misconfigured

CALIBRATIONS: Mapping[str, str] = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
"""How the range of each activation is found; the latter two keep a histogram each and take many times as long."""


def to_fp16(source: Path, target: Path) -> None:
    """Write ``source`` (ONNX, FP32) with half-precision weights and arithmetic to ``target``."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = OnnxModel(convert_float_to_float16(onnx.load(source), keep_io_types=True))
    half.topological_sort()  # the converter puts its casts at the end
    onnx.checker.check_model(half.model)
    _replace(target, half.model.SerializeToString())


def to_int8(source: Path, target: Path, images: Iterable[NDArray[np.float32]], calibration: str = "minmax") -> None:
    """Write ``source`` (ONNX, FP32) with 8-bit weights and activations to ``target``.

    ``images`` are preprocessed inputs [1, 3, S, S] that the network may see: from the training fold and no other.
    Raises `Misconfigured` if there are none, or ``calibration`` is not one of `CALIBRATIONS`.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if calibration not in CALIBRATIONS:
        raise Misconfigured(f"calibration {calibration!r} is unknown; there is: {', '.join(CALIBRATIONS)}")
    waiting = _counted(iter(images))

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            image = next(waiting, None)
            return None if image is None else {entry: image}

    with tempfile.TemporaryDirectory(prefix="cds-int8-") as folder, _quiet():
        folded, quantised = Path(folder) / "folded.onnx", Path(folder) / "int8.onnx"
        # shapes and constants are folded first: a convolution with its batch norm apart quantises badly
        quant_pre_process(str(source), str(folded), skip_symbolic_shape=True)
        entry = _input_name(folded)
        quantize_static(
            str(folded),
            str(quantised),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=getattr(CalibrationMethod, CALIBRATIONS[calibration]),
        )
        _replace(target, quantised.read_bytes())


def _input_name(path: Path) -> str:
    import onnx

    return str(onnx.load(path, load_external_data=False).graph.input[0].name)


def _counted(images: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """The same images. Raises `Misconfigured` if there is none, since every range would then be empty."""
    number = 0
    for number, image in enumerate(images, 1):  # noqa: B007 - counted
        yield image
    if number == 0:
        raise Misconfigured("there is no image to calibrate with: the training fold has none in this folder")


class _quiet:  # noqa: N801 - reads as a statement
    """The quantiser advises on the root logger at every call; its errors still come through."""

    def __enter__(self) -> None:
        self._before = logging.root.level
        logging.root.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.root.setLevel(self._before)


def _replace(target: Path, data: bytes) -> None:
    partial = target.with_name(target.name + ".writing")
    partial.write_bytes(data)
    os.replace(partial, target)
