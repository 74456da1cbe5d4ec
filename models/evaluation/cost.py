"""What an answer costs: file, parameters, milliseconds per image, memory; on a machine told in general words."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from models.evaluation.dataset import Case
from models.evaluation.predict import Predictor
from models.evaluation.resampling import rounded
from models.registry import ModelPackage

_WARM_UP, _TIMED = 3, 60


def cost(predictor: Predictor, cases: Sequence[Case], threads: int) -> dict[str, Any]:
    """Time preprocessing and network on up to 60 images, one at a time, decoding left out."""
    spent = []
    for number, case in enumerate(cases[: _WARM_UP + _TIMED]):
        pixels = case.pixels()
        started = time.perf_counter()
        predictor.network(pixels)
        if number >= _WARM_UP or len(cases) <= _WARM_UP:
            spent.append(1000.0 * (time.perf_counter() - started))
    median, high = np.quantile(spent, (0.5, 0.95)) if spent else (np.nan, np.nan)
    return {
        "file_megabytes": rounded(predictor.manifest.bytes / 1e6, 2),
        "parameters": parameters(predictor.package),
        "network_milliseconds": {
            "images": len(spent), "median": rounded(float(median), 1), "p95": rounded(float(high), 1),
        },
        "peak_memory_megabytes": peak_memory(),
        "machine": machine(threads),
    }  # fmt: skip


def parameters(package: ModelPackage) -> int | None:
    """How many numbers the graph holds; ``None`` where the onnx library is not installed (serving does not need it)."""
    if find_spec("onnx") is None:
        return None
    import onnx

    graph = onnx.load_from_string(package.read_weights()).graph
    return int(sum(int(np.prod(tensor.dims)) for tensor in graph.initializer))


def peak_memory() -> float | None:
    """The most memory that this process has held so far, in MB; ``None`` where the system does not say."""
    if find_spec("resource") is None:
        return None
    import resource

    unit = 1.0 if sys.platform == "darwin" else 1024.0  # bytes there, kibibytes elsewhere (getrusage(2))
    return rounded(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 0)


def machine(threads: int) -> str:
    """Processor family, cores and system, without a name that would tell whose machine it is."""
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}; {threads} threads, CPU only"
