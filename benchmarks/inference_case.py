"""One case of the inference benchmark in a process of its own, so that its peak memory is its own.

``python -m benchmarks.inference_case JSON`` takes the fields of `Case` and prints milliseconds and memory as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.bare_loop import open_algorithm, read
from cds_service.bootstrap import ENGINES, chosen_package
from dermoscopy.errors import Misconfigured
from dermoscopy.settings import Settings, read_settings
from dicom_listener.decode import decode
from models.analyze import checked
from models.manifest import Manifest
from models.providers import PROVIDER_NAMES, Provider
from models.registry import ModelPackage, Precision
from models.session import NetworkOutput, OnnxSession
from monitoring.logs import configure_logging

Float32 = npt.NDArray[np.float32]
OURS, PLAIN, ANALYZE = "ours", "plain", "analyze"
WARM_UP = 3
STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Case:
    """What one process measures. ``who`` takes turns on the same input; files are DICOM objects for ``analyze``."""

    who: tuple[str, ...]
    runs: int
    precision: Precision = "fp32"
    provider: Provider = "cpu"
    batch: int = 1
    files: tuple[str, ...] = ()


def measure(case: Case, settings: Settings) -> dict[str, Any]:
    """Milliseconds of each run by who ran, and the most memory that the process ever held, in 10⁶ bytes."""
    if case.who == (ANALYZE,):
        found = _steps(case, settings)
    else:
        found = _runs(case, settings)
    return {"milliseconds": found, "peak_mb": peak_memory()}


def _runs(case: Case, settings: Settings) -> dict[str, list[float]]:
    package = chosen_package(settings.model_copy(update={"inference_precision": case.precision}))
    side = package.manifest.input.size
    images = np.random.default_rng(0).normal(0.0, 1.0, (case.batch, 3, side, side)).astype(np.float32)
    openers = {OURS: _open_ours, PLAIN: _open_plain}
    runners = {name: openers[name](case, package, settings) for name in case.who}
    for run in runners.values():
        for _ in range(WARM_UP):
            run(images)
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(case.runs):
        for name in case.who if number % 2 else reversed(case.who):
            began = time.perf_counter()
            runners[name](images)
            found[name].append((time.perf_counter() - began) * 1000)
    return dict(found)


def _open_ours(case: Case, package: ModelPackage, settings: Settings) -> Callable[[Float32], object]:
    """The room's way: its session, then its check of every image's outputs."""
    session = OnnxSession.open(
        package,
        provider=case.provider,
        threads=settings.inference_threads,
        batch=case.batch,
        cache=settings.data_dir / ENGINES,
    )
    manifest = package.manifest

    def run(images: Float32) -> None:
        output = session.run(images)
        for number in range(len(images)):
            checked(_single(output, number), manifest)

    return run


def _single(output: NetworkOutput, number: int) -> NetworkOutput:
    one = slice(number, number + 1)
    return NetworkOutput(
        output.mask_logits[one], output.class_logits[one], output.activation_map[one], output.embedding[one]
    )


def _open_plain(case: Case, package: ModelPackage, settings: Settings) -> Callable[[Float32], object]:
    """ONNX Runtime as its documentation shows it, with our number of threads and the same four outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.inference_threads
    providers = list(dict.fromkeys((PROVIDER_NAMES[case.provider], PROVIDER_NAMES["cpu"])))
    session = onnxruntime.InferenceSession(package.read_weights(), options, providers=providers)
    if session.get_providers()[0] != PROVIDER_NAMES[case.provider]:
        raise Misconfigured(f"the plain loop does not run on {case.provider} either: {session.get_providers()}")
    entry, outputs = package.manifest.input.name, _outputs(package.manifest)
    return lambda images: session.run(outputs, {entry: images})


def _outputs(manifest: Manifest) -> list[str]:
    outputs = manifest.outputs
    return [outputs.mask, outputs.classes, outputs.activation_map, outputs.embedding]


def _steps(case: Case, settings: Settings) -> dict[str, list[float]]:
    """The whole algorithm over decoded images, by its own clock; ``total`` is by ours."""
    algorithm = open_algorithm(settings)
    images = [decode(read(Path(name))) for name in case.files]
    algorithm.analyze(images[0])
    found: dict[str, list[float]] = defaultdict(list)
    for image in images:
        began = time.perf_counter()
        finding = algorithm.analyze(image)
        found["total"].append((time.perf_counter() - began) * 1000)
        for step, milliseconds in finding.inference.milliseconds.items():
            found[step].append(milliseconds)
    return dict(found)


def peak_memory() -> float | None:
    """High-water mark of resident memory since this program began (proc(5), VmHWM), in 10⁶ bytes.

    Not ``getrusage``: what that reports is inherited from the process that started this one.
    """
    if not STATUS.exists():
        return None
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) * 1024 / 1e6


def ask(case: Case) -> list[str]:
    """Arguments for a Python that measures ``case``."""
    return ["-m", "benchmarks.inference_case", json.dumps({name: getattr(case, name) for name in Case.__slots__})]


def main(text: str) -> Literal[0, 3]:
    """Print the figures; or, with exit status 3, why there are none."""
    configure_logging(level="WARNING", format="console")
    given = json.loads(text)
    case = Case(**{**given, "who": tuple(given["who"]), "files": tuple(given["files"])})
    try:
        print(json.dumps(measure(case, read_settings())))
    except Misconfigured as error:
        print(json.dumps({"refused": str(error)}))
        return 3
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
