"""Where a run took place: figures without this mean nothing."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from cds_service.bootstrap import code_version

_LIBRARIES = ("onnxruntime", "numpy", "pydicom", "pynetdicom", "highdicom", "dbos", "sqlalchemy", "fastapi", "uvicorn")
_PROGRAMS = {"dcmtk": ("storescp", "--version"), "Orthanc": ("Orthanc", "--version"), "PostgreSQL": ("psql", "-V")}


def describe(folder: Path, model: str) -> dict[str, str]:
    """Machine, system, versions. ``folder`` is where the run keeps its files, ``model`` what was run."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "load before": f"{os.getloadavg()[0]:.1f} (one minute)",
        "files on": _file_system(folder),
        "system": platform.platform(),
        "model": model,
        "version": f"{code_version()} ({_revision()})",
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "libraries": ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        "peers": ", ".join(f"{name} {_version(*command)}" for name, command in _PROGRAMS.items()),
    }


def children_of(pid: int) -> list[int]:
    """Child processes in the order in which they were started."""
    return sorted(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def proportional_set_mb(pid: int) -> float:
    """Memory of a process in 10⁶ bytes; pages that processes share are counted once, in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/{pid}/smaps_rollup names no Pss")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def _file_system(folder: Path) -> str:
    """Kind of the file system: on a tmpfs an fsync costs nothing, and ingest figures are void."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, found, *_ = line.split()
        if folder.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, found
    return kind


def _revision() -> str:
    root = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no git"


def _version(program: str, argument: str) -> str:
    found = shutil.which(program, path=f"{os.defpath}:/usr/sbin:/usr/local/bin")
    if found is None:
        return "not installed"
    done = subprocess.run([found, argument], capture_output=True, text=True, check=False)
    words = (done.stdout or done.stderr).replace("$", " ").split()
    return next((word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit()), "?")
