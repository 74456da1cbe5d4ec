"""What durability costs: the whole service against the bare loop, seconds per image, on the same files in turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.results import NOT_INSTALLED, Cell, Table, median
from benchmarks.setting import Setting, await_analyses, send_all
from tests.peers.postgres import Postgres, postgres
from tests.peers.processes import MissingPeer
from tests.service import REPOSITORY

AIM = 1.5
BARE, SQLITE, POSTGRES = "bare loop", "service on SQLite", "service on PostgreSQL"
WORKERS = "service on SQLite, a worker process per core"


def measure(setting: Setting) -> list[Table]:
    """Bare loop and service in turns, on both databases."""
    size, cores = setting.size, len(os.sched_getaffinity(0))
    seconds: dict[str, list[float]] = {BARE: [], SQLITE: [], WORKERS: []}
    steps: dict[str, list[float]] = defaultdict(list)
    with setting.fresh_folder() as folder, ExitStack() as peers:
        files = setting.images.write(folder / "files", size.batch + 1, batch="end")  # the first one warms up
        cluster = _cluster(peers)
        if cluster is not None:
            seconds[POSTGRES] = []
        for number in range(size.repeats):
            setting.tell(f"bare loop, {size.batch} images, {number + 1} of {size.repeats}")
            bare = _bare_loop(setting, files)
            seconds[BARE].append(bare["seconds"] / bare["images"])
            for step, taken in bare["steps"].items():
                steps[step].append(taken / bare["images"])
            setting.tell(f"service on SQLite, {size.batch} images, {number + 1} of {size.repeats}")
            seconds[SQLITE].append(_service(setting, files))
            seconds[WORKERS].append(_service(setting, files, worker_processes=cores))
            if cluster is not None:
                setting.tell(f"service on PostgreSQL, {size.batch} images, {number + 1} of {size.repeats}")
                with cluster.database() as url:
                    seconds[POSTGRES].append(_service(setting, files, database_url=url))
    return [_comparison(setting, seconds), _shares(seconds[BARE], steps)]


def _cluster(peers: ExitStack) -> Postgres | None:
    try:
        return peers.enter_context(postgres())
    except MissingPeer:
        return None


def _bare_loop(setting: Setting, files: Sequence[Path]) -> dict[str, Any]:
    """In a process of its own, which has done nothing else before."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bare_loop", *map(str, files)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _service(setting: Setting, files: Sequence[Path], **more: object) -> float:
    """Seconds per image from the first C-STORE to the last analysis complete, in a service that has done one before."""
    with setting.fresh_folder() as folder, setting.service(folder, **more) as service:
        send_all(service, files[:1])
        await_analyses(service, 1)
        began = time.perf_counter()
        send_all(service, files[1:])
        await_analyses(service, len(files))
        return (time.perf_counter() - began) / (len(files) - 1)


def _comparison(setting: Setting, seconds: dict[str, list[float]]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name in (BARE, SQLITE, POSTGRES, WORKERS):
        if name not in seconds:
            rows.append((name, NOT_INSTALLED, None, None))
            continue
        per_image = median(seconds[name])
        ratio = median([ours / bare for ours, bare in zip(seconds[name], seconds[BARE], strict=True)])
        rows.append((name, per_image * 1000, 1 / per_image, ratio))
    return Table(
        "end-to-end",
        f"End to end: {setting.size.batch} images, {setting.images.source}",
        ("", "ms per image", "images/s", f"× bare loop (aim ≤ {AIM})"),
        tuple(rows),
        f"Medians of {setting.size.repeats} runs in turns. The service is timed from the first C-STORE to the last "
        "stored result, in its own processes, with fsync, audit log and the durable queue. "
        "One worker process is the default.",
        seconds,
    )


def _shares(whole: Sequence[float], steps: dict[str, list[float]]) -> Table:
    total = median(whole)
    ordered = sorted(steps.items(), key=lambda item: -median(item[1]))
    rows = [(name, median(taken) * 1000, f"{median(taken) / total:.0%}".replace("%", " %")) for name, taken in ordered]
    return Table(
        "steps",
        "Where the time of one image goes (bare loop)",
        ("step", "ms", "share"),
        tuple(rows),
        samples=steps,
    )
