"""Where a network computes: what the runtime is asked for, and whether that is what it did.

ONNX Runtime falls back silently, as a whole (the driver is too old) and node by node (a kernel is missing). Neither is
taken here: a GPU that was asked for and does not do the work is an error with what to do.
Option names: onnxruntime.ai/docs/execution-providers (CUDA, TensorRT).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog

from dermoscopy.errors import Misconfigured
from models.registry import FP16, FP32, INT8, ModelPackage

log = structlog.get_logger(__name__)

Provider = Literal["cpu", "cuda", "tensorrt"]
Chain = list[str | tuple[str, dict[str, str]]]

PROVIDER_NAMES: Mapping[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
"""Session entry after which the runtime can say which node runs where."""
HEAVY = frozenset(
    {"Conv", "ConvTranspose", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Resize", "Attention"}
)
"""Operators that are the work. Shapes and constants may be computed on the CPU; that is no fall back."""
_CUDA_OPTIONS: Mapping[str, str] = {
    # a search picks by timing, so by chance: other bits from one start to the next
    "cudnn_conv_algo_search": "DEFAULT",
    "cudnn_conv_use_max_workspace": "1",
    "use_tf32": "0",
    "arena_extend_strategy": "kSameAsRequested",  # else the arena doubles, and a GPU that others use too is full
}


@dataclass(frozen=True, slots=True)
class Place:
    """What was asked for: ``provider``, ``batch`` images at most in one run, and a folder for built engines."""

    provider: Provider = "cpu"
    batch: int = 1
    cache: Path | None = None
    """TensorRT keeps its engines below, by the weights' digest; without one it builds them anew at each start."""

    @property
    def name(self) -> str:
        """As the runtime calls it."""
        return PROVIDER_NAMES[self.provider]


def check_wish(place: Place, precision: str, available: Iterable[str]) -> None:
    """Raises `Misconfigured` where this build of the runtime, or the form of the weights, cannot do what is asked."""
    if place.provider not in PROVIDER_NAMES:
        raise Misconfigured(f"inference provider {place.provider!r} is unknown; there is: {', '.join(PROVIDER_NAMES)}")
    if precision == INT8 and place.provider != "cpu":
        raise Misconfigured(
            f"the int8 form is made for CPU kernels; with execution_provider {place.provider} ask for "
            f"inference_precision {FP16} or {FP32}"
        )
    if place.name not in (there := list(available)):
        raise Misconfigured(
            f"inference provider {place.provider!r} ({place.name}) was asked for, but this build of onnxruntime has "
            f"only {', '.join(there)}; install the gpu extra or ask for cpu"
        )


def chain(place: Place, package: ModelPackage) -> Chain:
    """The providers in the order of preference, with their options; makes the engine folder where one is used."""
    cpu = PROVIDER_NAMES["cpu"]
    if place.provider == "cpu":
        return [cpu]
    cuda = (PROVIDER_NAMES["cuda"], dict(_CUDA_OPTIONS))
    if place.provider == "cuda":
        return [cuda, cpu]
    return [(PROVIDER_NAMES["tensorrt"], _tensorrt_options(place, package)), cuda, cpu]


def _tensorrt_options(place: Place, package: ModelPackage) -> dict[str, str]:
    entry = package.manifest.input
    shape = f"3x{entry.size}x{entry.size}"
    options = {
        "trt_fp16_enable": "1" if package.precision == FP16 else "0",
        "trt_int8_enable": "0",
        # one engine for every batch up to the limit; without a profile each new size builds another one
        "trt_profile_min_shapes": f"{entry.name}:1x{shape}",
        "trt_profile_opt_shapes": f"{entry.name}:{place.batch}x{shape}",
        "trt_profile_max_shapes": f"{entry.name}:{place.batch}x{shape}",
    }
    if place.cache is None:
        return options
    # named by the weights: an engine of other weights is never picked up. Only this service may write here
    folder = place.cache / package.reference.digest[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Misconfigured(f"{folder}: TensorRT's engines cannot be kept there: {error.strerror}") from error
    return options | {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }


def check_used(place: Place, session: Any) -> None:
    """Raises `Misconfigured` if a GPU was asked for and the runtime gave all or part of the work to the CPU."""
    obtained = list(session.get_providers())
    if obtained[0] != place.name:
        raise Misconfigured(
            f"inference provider {place.provider!r} ({place.name}) was asked for, but onnxruntime fell back to "
            f"{', '.join(obtained)}; check the driver and the CUDA libraries, or ask for cpu"
        )
    if place.provider == "cpu":
        return
    nodes = _placement(session)
    left = {kind: count for kind, count in nodes[PROVIDER_NAMES["cpu"]].items() if kind in HEAVY}
    if left:
        raise Misconfigured(
            f"inference provider {place.provider!r} was asked for, but onnxruntime left "
            f"{', '.join(f'{count} {kind}' for kind, count in sorted(left.items()))} to the CPU: this build has no "
            "kernels for them; install another onnxruntime-gpu or ask for cpu"
        )
    if not nodes[place.name]:
        raise Misconfigured(
            f"inference provider {place.provider!r} was asked for, but onnxruntime gave it no part of the network; "
            "ask for cuda or cpu"
        )
    counts = {name: sum(kinds.values()) for name, kinds in nodes.items()}
    log.info("model.placed", provider=place.name, nodes=counts)


def _placement(session: Any) -> dict[str, Counter[str]]:
    """Number of nodes by provider and operator, as the runtime recorded it."""
    nodes: dict[str, Counter[str]] = {name: Counter() for name in PROVIDER_NAMES.values()}
    for part in session.get_provider_graph_assignment_info():
        nodes.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return nodes
