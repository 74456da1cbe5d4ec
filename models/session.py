"""The network as a function: one image tensor in, four arrays out, wherever it is computed.

`InferenceSession` is the Protocol; `OnnxSession` computes in this process with ONNX Runtime. The runtime is imported
when a session opens, not before.

Determinism. The same weights, input, execution provider, thread count and machine give the same bits: deterministic
kernels are asked for (``use_deterministic_compute``), operators run one after another (``ORT_SEQUENTIAL``), images go
in one at a time unless batches are asked for (kernels may sum in another order for another batch size, and who meets
whom is chance; ``precision`` then says so in every record), and on CUDA the convolution algorithm is fixed
(`models.providers`) and TF32 is off. Another provider or processor may differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import structlog

from dermoscopy.errors import AnalysisFailed, Misconfigured
from models.gathering import Gatherer
from models.providers import RECORD_PLACEMENT, Place, Provider, chain, check_used, check_wish
from models.registry import ModelPackage

log = structlog.get_logger(__name__)

Float32 = npt.NDArray[np.float32]
_NUMBERS: Mapping[str, str] = {"fp32": "float32", "fp16": "float16", "int8": "int8"}


@dataclass(frozen=True, slots=True)
class NetworkOutput:
    """What the network says of N images, all float32.

    ``mask_logits`` [N, 1, S, S]; ``class_logits`` [N, C]; ``activation_map`` [N, C, h, w]; ``embedding`` [N, D].
    """

    mask_logits: Float32
    class_logits: Float32
    activation_map: Float32
    embedding: Float32


class InferenceSession(Protocol):
    """A loaded network. Safe to call from many threads."""

    @property
    def execution_provider(self) -> str:
        """Where it computes, as the runtime names it (``CPUExecutionProvider`` …)."""
        ...

    @property
    def precision(self) -> str:
        """Number format of the computation (``float32`` …)."""
        ...

    def run(self, image: Float32) -> NetworkOutput:
        """``image`` [N, 3, S, S] float32, preprocessed. Raises `AnalysisFailed` or `ModelServerBusy`."""
        ...


class OnnxSession:
    """ONNX Runtime in this process."""

    def __init__(
        self, session: Any, package: ModelPackage, place: Place, failures: tuple[type[Exception], ...]
    ) -> None:
        self._session = session
        self._input = package.manifest.input.name
        outputs = package.manifest.outputs
        self._outputs = [outputs.mask, outputs.classes, outputs.activation_map, outputs.embedding]
        self._failures = failures
        self._provider = str(session.get_providers()[0])
        self._precision = _NUMBERS[package.precision]
        self._gatherer: Gatherer | None = None
        if place.batch > 1:
            self._precision += f", up to {place.batch} images at a time"
            self._gatherer = Gatherer(self._compute, place.batch, failures)

    @classmethod
    def open(
        cls,
        package: ModelPackage,
        *,
        provider: Provider = "cpu",
        threads: int = 0,
        batch: int = 1,
        cache: Path | None = None,
    ) -> OnnxSession:
        """Check the weights' digest and load them, in the form that the package was opened in.

        ``threads`` is the number of threads inside one operator; 0 leaves it to the runtime (one per physical core).
        Requests of several threads that meet share a run of up to ``batch`` images. ``cache`` is the folder for
        TensorRT's engines.

        Raises `WeightsMismatch` (the file is not what the manifest says) and `Misconfigured` (the runtime is not
        installed, the provider is not available, or the graph does not have the inputs and outputs that the manifest
        names). A GPU that was asked for and does not do the work is an error, never a silent fall back to the CPU.
        """
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as native
        except ImportError as error:
            raise Misconfigured(f"onnxruntime is not installed (extra cpu or gpu): {error}") from error
        place = Place(provider, batch, cache)
        check_wish(place, package.precision, onnxruntime.get_available_providers())
        if threads < 0:
            raise Misconfigured(f"inference threads must be 0 or more, not {threads}")
        if batch < 1:
            raise Misconfigured(f"inference batch must be 1 or more, not {batch}")
        natives = (value for value in vars(native).values() if isinstance(value, type) and issubclass(value, Exception))
        failures: tuple[type[Exception], ...] = (*natives, RuntimeError, ValueError, TypeError)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        if provider != "cpu":
            options.add_session_config_entry(RECORD_PLACEMENT, "1")
        weights = package.read_weights()
        try:
            session = onnxruntime.InferenceSession(weights, options, providers=chain(place, package))
        except failures as error:
            raise Misconfigured(f"{package.weights}: onnxruntime cannot load it: {_first_line(error)}") from error
        check_used(place, session)
        _check_graph(session, package)
        name, version = package.manifest.name, package.manifest.version
        log.info("model.loaded", model=name, version=version, precision=package.precision, provider=place.name)
        return cls(session, package, place, failures)

    @property
    def execution_provider(self) -> str:
        """The provider that the runtime says it uses first."""
        return self._provider

    @property
    def precision(self) -> str:
        """``float32``, ``float16`` or ``int8`` (TF32 is off), and the largest batch where it is not 1."""
        return self._precision

    def run(self, image: Float32) -> NetworkOutput:
        """``image`` [N, 3, S, S] float32.

        Each image runs by itself, so that its answer does not depend on company, unless batches were asked for.

        Raises `AnalysisFailed` with the runtime's first line.
        """
        try:
            if self._gatherer is not None:
                answers: Sequence[Sequence[Float32]] = self._gatherer.run(image)
            else:
                answers = [self._compute(one[None]) for one in image]
        except self._failures as error:
            raise AnalysisFailed(f"the network failed on an image: {_first_line(error)}") from error
        mask, classes, activation_map, embedding = (
            np.ascontiguousarray(np.concatenate(parts), dtype=np.float32) for parts in zip(*answers, strict=True)
        )
        return NetworkOutput(mask, classes, activation_map, embedding)

    def _compute(self, images: Float32) -> Sequence[Float32]:
        answer: Sequence[Float32] = self._session.run(self._outputs, {self._input: images})
        return answer


def _check_graph(session: Any, package: ModelPackage) -> None:
    manifest = package.manifest
    inputs = {tensor.name: tensor for tensor in session.get_inputs()}
    outputs = {tensor.name for tensor in session.get_outputs()}
    if set(inputs) != {manifest.input.name}:
        raise Misconfigured(
            f"{package.weights}: takes {', '.join(inputs)}, but the manifest's input.name is {manifest.input.name}"
        )
    tensor = inputs[manifest.input.name]
    if tensor.type != "tensor(float)":
        raise Misconfigured(f"{package.weights}: input {tensor.name} is {tensor.type}, not tensor(float)")
    for field, name in manifest.outputs.model_dump().items():
        if name not in outputs:
            raise Misconfigured(
                f"{package.weights}: gives {', '.join(sorted(outputs))}, but the manifest's outputs.{field} is {name}"
            )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
