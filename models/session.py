"""The network as a function: one image tensor in, four arrays out, wherever it is computed.

`InferenceSession` is the Protocol; `OnnxSession` computes in this process with ONNX Runtime. The runtime is imported
when a session opens, not before.

Determinism. The same weights, input, execution provider, thread count and machine give the same bits: deterministic
kernels are asked for (``use_deterministic_compute``), operators run one after another (``ORT_SEQUENTIAL``), images go
in one at a time (kernels may sum in another order for another batch size), and on CUDA the convolution algorithm is
fixed (``cudnn_conv_algo_search=DEFAULT``) and TF32 is off. Another provider or processor may differ in the last bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import structlog

from dermoscopy.errors import AnalysisFailed, Misconfigured
from models.manifest import Manifest
from models.registry import ModelPackage

log = structlog.get_logger(__name__)

Float32 = npt.NDArray[np.float32]
Provider = Literal["cpu", "cuda", "tensorrt"]

_PROVIDER_NAMES: Mapping[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_CUDA_OPTIONS: Mapping[str, str] = {"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0"}


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

    def __init__(self, session: Any, manifest: Manifest, failures: tuple[type[Exception], ...]) -> None:
        self._session = session
        self._input = manifest.input.name
        outputs = manifest.outputs
        self._outputs = [outputs.mask, outputs.classes, outputs.activation_map, outputs.embedding]
        self._failures = failures
        self._provider = str(session.get_providers()[0])

    @classmethod
    def open(cls, package: ModelPackage, *, provider: Provider = "cpu", threads: int = 0) -> OnnxSession:
        """Check the weights' digest and load them.

        ``threads`` is the number of threads inside one operator; 0 leaves it to the runtime (one per physical core).

        Raises `WeightsMismatch` (the file is not what the manifest says) and `Misconfigured` (the runtime is not
        installed, the provider is not available, or the graph does not have the inputs and outputs that the manifest
        names). A GPU that was asked for and is not there is an error, never a silent fall back to the CPU.
        """
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as native
        except ImportError as error:
            raise Misconfigured(f"onnxruntime is not installed (extra cpu or gpu): {error}") from error
        if provider not in _PROVIDER_NAMES:
            raise Misconfigured(f"inference provider {provider!r} is unknown; there is: {', '.join(_PROVIDER_NAMES)}")
        if threads < 0:
            raise Misconfigured(f"inference threads must be 0 or more, not {threads}")
        natives = (value for value in vars(native).values() if isinstance(value, type) and issubclass(value, Exception))
        failures: tuple[type[Exception], ...] = (*natives, RuntimeError, ValueError, TypeError)
        wanted = _PROVIDER_NAMES[provider]
        available = onnxruntime.get_available_providers()
        if wanted not in available:
            raise Misconfigured(
                f"inference provider {provider!r} ({wanted}) was asked for, but this build of onnxruntime has only "
                f"{', '.join(available)}; install the gpu extra or ask for cpu"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        weights = package.read_weights()
        try:
            session = onnxruntime.InferenceSession(weights, options, providers=_provider_chain(provider))
        except failures as error:
            raise Misconfigured(f"{package.weights}: onnxruntime cannot load it: {_first_line(error)}") from error
        obtained = session.get_providers()
        if obtained[0] != wanted:
            raise Misconfigured(
                f"inference provider {provider!r} ({wanted}) was asked for, but onnxruntime fell back to "
                f"{', '.join(obtained)}; check the driver and the CUDA libraries, or ask for cpu"
            )
        _check_graph(session, package)
        log.info("model.loaded", model=package.manifest.name, version=package.manifest.version, provider=wanted)
        return cls(session, package.manifest, failures)

    @property
    def execution_provider(self) -> str:
        """The provider that the runtime says it uses first."""
        return self._provider

    @property
    def precision(self) -> str:
        """Always ``float32``: TF32 and half precision are switched off."""
        return "float32"

    def run(self, image: Float32) -> NetworkOutput:
        """``image`` [N, 3, S, S] float32; each image runs by itself, so that its answer does not depend on company.

        Raises `AnalysisFailed` with the runtime's first line.
        """
        try:
            answers = [self._session.run(self._outputs, {self._input: one[None]}) for one in image]
        except self._failures as error:
            raise AnalysisFailed(f"the network failed on an image: {_first_line(error)}") from error
        mask, classes, activation_map, embedding = (
            np.ascontiguousarray(np.concatenate(parts), dtype=np.float32) for parts in zip(*answers, strict=True)
        )
        return NetworkOutput(mask, classes, activation_map, embedding)


def _provider_chain(provider: Provider) -> list[str | tuple[str, dict[str, str]]]:
    cpu = _PROVIDER_NAMES["cpu"]
    if provider == "cpu":
        return [cpu]
    cuda = (_PROVIDER_NAMES["cuda"], dict(_CUDA_OPTIONS))
    if provider == "cuda":
        return [cuda, cpu]
    return [(_PROVIDER_NAMES["tensorrt"], {"trt_fp16_enable": "0"}), cuda, cpu]


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
