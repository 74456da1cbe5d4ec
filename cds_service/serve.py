"""The service: a supervisor that runs the API, the DICOM listeners and the workers as processes of their own.

One process each, because an interpreter runs one thread of Python at a time: a burst of images must not slow a card.
A child that ends is started again; when the supervisor ends, however that happens, its children end too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from types import FrameType

import structlog

from dermoscopy.settings import Settings

log = structlog.get_logger(__name__)

RESTART_PAUSE_SECONDS = (0.2, 1.0, 5.0, 15.0)
SHUTDOWN_SECONDS = 45.0


@dataclass(slots=True)
class _Child:
    role: str
    number: int
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    due_at: float = field(default=0.0)


def planned_roles(settings: Settings) -> list[tuple[str, int]]:
    """The processes of this deployment: role and number."""
    return [
        ("api", 0),
        *(("listener", n) for n in range(settings.dicom_processes)),
        *(("worker", n) for n in range(settings.worker_processes)),
    ]


def supervise(settings: Settings) -> int:
    """Start every process, keep each alive, stop on SIGTERM or SIGINT. Returns the exit code."""
    children = [_Child(role, number) for role, number in planned_roles(settings)]
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while not stopping.is_set():
        for child in children:
            _tend(child)
        stopping.wait(0.1)
    return _stop(children)


def _tend(child: _Child) -> None:
    now = time.monotonic()
    if child.process is not None and child.process.poll() is not None:
        lived = now - child.started_at
        child.failures = 0 if lived > 60 else child.failures + 1
        pause = RESTART_PAUSE_SECONDS[min(child.failures, len(RESTART_PAUSE_SECONDS)) - 1] if child.failures else 0.0
        log.error(
            "process.ended", role=child.role, number=child.number, code=child.process.returncode, restart_in=pause
        )
        child.process, child.due_at = None, now + pause
    if child.process is None and now >= child.due_at:
        command = [sys.executable, "-m", "cds_service", "serve", "--role", child.role, "--number", str(child.number)]
        # The pipe's write end stays with us: when we die, even by SIGKILL, the child reads its end and stops.
        environment = {**os.environ, "CDS_SUPERVISED": "1"}
        child.process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)  # noqa: S603 - our own
        child.started_at = now


def _stop(children: list[_Child]) -> int:
    alive = [c.process for c in children if c.process is not None]
    for process in alive:
        process.terminate()
    deadline = time.monotonic() + SHUTDOWN_SECONDS
    code = 0
    for process in alive:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            code = 1
    return code


def stop_signal() -> threading.Event:
    """Event that is set by SIGTERM, SIGINT, or the end of the supervisor (its pipe closes)."""
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if os.environ.get("CDS_SUPERVISED"):
        threading.Thread(target=_end_with_supervisor, args=(stopping,), daemon=True).start()
    return stopping


def _end_with_supervisor(stopping: threading.Event) -> None:
    # os.read, not sys.stdin: a thread that waits inside the buffered stream breaks the interpreter's end.
    while os.read(0, 1):
        pass
    stopping.set()
    time.sleep(SHUTDOWN_SECONDS)
    os._exit(1)  # the graceful way did not end in time
