"""How soon the service is ready, what its imports cost, and how much memory each of its processes holds."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict

from benchmarks.machine import children_of, proportional_set_mb
from benchmarks.results import Cell, Table, median, rounded
from benchmarks.setting import Setting, await_analyses, send_all
from tests.service import REPOSITORY

IMPORTS = {
    "command line": "cds_service.__main__",
    "api": "cds_service.__main__, cds_service.processes, cds_service.app, monitoring.gauges, fhir_adapters.read",
    "listener": "cds_service.__main__, cds_service.processes, dicom_listener.scp",
    "worker": (
        "cds_service.__main__, cds_service.processes, cds_service.worker, dicom_listener.decode, "
        "dicom_listener.render, dicom_listener.deliver, fhir_adapters.render, fhir_adapters.deliver, models.analyze, "
        "onnxruntime"
    ),
}
"""What each role has imported by the time it works."""
ROLES = ("api", "listener", "worker")
FRESH, EXISTING = "fresh database", "existing database"


def measure(setting: Setting) -> list[Table]:
    """Starts, imports, memory."""
    starts: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, dict[str, list[float]]] = {"idle": defaultdict(list), "warm": defaultdict(list)}
    with setting.fresh_folder() as files_folder:
        files = setting.images.write(files_folder, setting.size.warm_images, batch="warm")
        for number in range(setting.size.starts):
            setting.tell(f"start and memory, {number + 1} of {setting.size.starts}")
            with setting.fresh_folder() as folder:
                began = time.perf_counter()
                with setting.service(folder):
                    starts[FRESH].append(time.perf_counter() - began)
                began = time.perf_counter()
                with setting.service(folder) as service:
                    starts[EXISTING].append(time.perf_counter() - began)
                    pid = service.service.pid or 0
                    _note(memory["idle"], pid)
                    send_all(service, files)
                    await_analyses(service, len(files))
                    _note(memory["warm"], pid)
    for role, modules in IMPORTS.items():
        setting.tell(f"imports of {role}")
        starts[f"imports: {role}"] = [_import_seconds(modules) for _ in range(setting.size.starts)]
    return [_starts(starts), _memory(memory, setting.size.warm_images)]


def _starts(starts: dict[str, list[float]]) -> Table:
    rows = [
        (f"cds serve until ready, {name}" if name in (FRESH, EXISTING) else name, median(seconds))
        for name, seconds in starts.items()
    ]
    note = "Medians. Ready: API, listener and worker answer, and the weights are loaded."
    return Table("startup", "Start-up", ("", "s"), tuple(rows), note, starts)


def _memory(memory: dict[str, dict[str, list[float]]], images: int) -> Table:
    idle, warm = memory["idle"], memory["warm"]
    rows: list[tuple[Cell, ...]] = [(role, median(idle[role]), median(warm[role])) for role in idle]
    rows.append(("all", rounded(sum(median(v) for v in idle.values())), rounded(sum(median(v) for v in warm.values()))))
    return Table(
        "memory",
        "Resident memory of each process, MB",
        ("process", "idle", f"after {images} images"),
        tuple(rows),
        "Proportional set size: pages that processes share are counted once, in parts.",
        {f"{role}, {when}": values for when, found in memory.items() for role, values in found.items()},
    )


def _note(found: dict[str, list[float]], supervisor: int) -> None:
    """Add the proportional set size of the supervisor and of each child, in 10⁶ bytes.

    Children are forked and bear no names, but are started in the order of `ROLES`.
    """
    found["supervisor"].append(proportional_set_mb(supervisor))
    for role, child in zip(ROLES, children_of(supervisor), strict=True):
        found[role].append(proportional_set_mb(child))


def _import_seconds(modules: str) -> float:
    """Wall time of the imports in a fresh interpreter, without the interpreter's own start."""
    program = f"import time; began = time.perf_counter(); import {modules}; print(time.perf_counter() - began)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, check=True, timeout=120
    )
    return float(done.stdout)
