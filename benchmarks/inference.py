"""The network alone: our session beside a plain ONNX Runtime loop on the same graph, and the algorithm step by step."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, get_args

import onnxruntime

from benchmarks.inference_case import ANALYZE, OURS, PLAIN, Case, ask
from benchmarks.results import Cell, Table, median, quantile
from benchmarks.setting import Setting
from cds_service.bootstrap import chosen_package
from models.providers import PROVIDER_NAMES, Provider
from models.registry import Precision
from tests.service import REPOSITORY

BATCHES = (1, 8, 32)
AIM = 0.9
"""Our images per second, as a share of the plain loop's."""
REFUSED = 3
"""Exit status of a case that cannot be measured here; anything else is a fault."""
MEMORY_RUNS = 5
_FIGURES = 7


def measure(setting: Setting) -> list[Table]:
    """Every form on every provider at every batch size; then where the whole algorithm's time goes."""
    rows: list[tuple[Cell, ...]] = []
    samples: dict[str, list[float]] = {}
    notes: list[str] = []
    package = chosen_package(setting.settings.model_copy(update={"inference_precision": "fp32"}))
    for provider in _providers():
        for precision in get_args(Precision):
            if precision not in package.precisions:
                notes.append(f"The model has no {precision} form.") if provider == "cpu" else None
                continue
            for batch in BATCHES:
                case = Case((OURS, PLAIN), max(1, setting.size.inferences // batch), precision, provider, batch)
                setting.tell(f"inference: {precision}, batch {batch}, {provider}")
                name = f"{precision}, batch {batch}, {provider}"
                found = _measured(case)
                if "refused" in found:
                    notes.append(f"{name}: {found['refused']}.")
                    rows.append((precision, provider, batch, *[None] * (_FIGURES + 2)))
                    break
                ours, plain = (found["milliseconds"][who] for who in (OURS, PLAIN))
                samples |= {f"{name}, {OURS}": ours, f"{name}, {PLAIN}": plain}
                rows.append((precision, provider, batch, *_figures(ours, plain, batch), *_memory(case)))
    return [_table(setting, rows, samples, notes), _steps(setting)]


def _figures(ours: list[float], plain: list[float], batch: int) -> list[Cell]:
    """Images per second, p50 and p99 of a run for both, and the ratio of runs that stood next to each other."""
    cells: list[Cell] = []
    for taken in (ours, plain):
        cells += [1000 * batch / median(taken), median(taken) / batch, quantile(taken, 0.99) / batch]
    return [*cells, median([b / a for a, b in zip(ours, plain, strict=True)])]


def _memory(case: Case) -> list[Cell]:
    """Peak memory of either alone, each in a process of its own."""
    return [
        _measured(Case((who,), MEMORY_RUNS, case.precision, case.provider, case.batch))["peak_mb"]
        for who in (OURS, PLAIN)
    ]


def _providers() -> list[Provider]:
    """The CPU, and each GPU provider that this build of the runtime brings."""
    there = onnxruntime.get_available_providers()
    return [provider for provider in get_args(Provider) if PROVIDER_NAMES[provider] in there]


def _measured(case: Case) -> dict[str, Any]:
    done = subprocess.run([sys.executable, *ask(case)], cwd=REPOSITORY, stdout=subprocess.PIPE, check=False)
    if done.returncode not in (0, REFUSED):
        raise RuntimeError(f"{case} ended with status {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _table(setting: Setting, rows: list[tuple[Cell, ...]], samples: dict[str, list[float]], notes: list[str]) -> Table:
    threads = setting.settings.inference_threads or "as many as the runtime chooses (one per core)"
    columns = [f"{who}: {what}" for who in ("ours", "plain loop") for what in ("images/s", "ms per image p50", "p99")]
    return Table(
        "inference",
        "Inference: our session beside a plain onnxruntime loop",
        ("form", "on", "batch", *columns, f"ours ÷ plain (aim ≥ {AIM})", "ours: peak MB", "plain loop: peak MB"),
        tuple(rows),
        f"{setting.size.inferences} images each, in turns within one process, threads: {threads}. Ours is the session "
        "of the service with its check of every output; a batch above 1 goes in as one request. Milliseconds per image "
        "are those of a run, divided by its images. Peak memory is that of a process which only loads the "
        f"model and runs it {MEMORY_RUNS} times, interpreter and libraries included. " + " ".join(notes),
        samples,
    )


def _steps(setting: Setting) -> Table:
    """The whole algorithm on real images, in a process of its own."""
    setting.tell("the whole algorithm, step by step")
    with setting.fresh_folder() as folder:
        files = setting.images.write(folder, setting.size.analyses, batch="inference")
        found = _measured(Case((ANALYZE,), 1, files=tuple(map(str, files))))
    if "refused" in found:
        return Table("algorithm", "The whole algorithm, step by step", ("",), ((None,),), found["refused"])
    taken: dict[str, list[float]] = found["milliseconds"]
    total = median(taken["total"])
    rows: list[tuple[Cell, ...]] = [
        (step, median(ms), quantile(ms, 0.99), f"{median(ms) / total:.0%}".replace("%", " %"))
        for step, ms in taken.items()
    ]
    return Table(
        "algorithm",
        f"The whole algorithm, step by step: {len(files)} images, {setting.images.source}",
        ("step", "ms p50", "ms p99", "share"),
        tuple(rows),
        f"One image after the other, decoded before; {setting.settings.inference_precision}. "
        f"Peak memory of the process: {found['peak_mb']:.0f} MB.",
        taken,
    )
