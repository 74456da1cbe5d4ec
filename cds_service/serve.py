"""The service: a supervisor that runs the API, the DICOM listeners and the workers as processes of their own.

One process each, because an interpreter runs one thread of Python at a time: a burst of images must not slow a card.
The supervisor loads the code once and forks, so that a process starts in a moment and shares its memory with the
others; it has no threads and holds nothing open, which is what makes forking safe. A child that ends is started again;
when the supervisor ends, however that happens, its children end too.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import FrameType

import structlog

from cds_service.listening import check
from dermoscopy.errors import DermoscopyError
from dermoscopy.settings import Settings

log = structlog.get_logger(__name__)

RESTART_PAUSE_SECONDS = (0.2, 1.0, 5.0, 15.0)
SHUTDOWN_SECONDS = 45.0
STEADY_SECONDS = 60.0
"""A process that lived so long is started again at once when it ends."""
_PRELOADED = (
    "cds_service.processes",
    "cds_service.worker",
    "cds_service.app",
    "dicom_listener.scp",
    "dicom_listener.decode",
    "dicom_listener.render",
    "dicom_listener.deliver",
    "fhir_adapters.render",
    "fhir_adapters.deliver",
    "models.analyze",
)
_FORK = multiprocessing.get_context("fork")


@dataclass(slots=True)
class _Child:
    role: str
    number: int
    process: BaseProcess | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    failures: int = 0


def planned_roles(settings: Settings) -> list[tuple[str, int]]:
    """The processes of this deployment: role and number."""
    return [
        *(("api", n) for n in range(settings.api_processes)),
        *(("listener", n) for n in range(settings.dicom_processes)),
        *(("worker", n) for n in range(settings.worker_processes)),
    ]


def supervise(settings: Settings) -> int:
    """Start every process, keep each alive, stop on SIGTERM or SIGINT. Returns the exit code.

    Raises `Misconfigured` before anything is started.
    """
    check(settings)
    for module in _PRELOADED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # objects that live for ever stay in shared pages
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    lifeline = os.pipe()
    children = [_Child(role, number) for role, number in planned_roles(settings)]
    while not stopping.is_set():
        for child in children:
            _tend(child, settings, lifeline)
        stopping.wait(0.1)
    return _stop(children)


def run_role(role: str, settings: Settings, number: int, lifeline: int | None = None) -> None:
    """Do the work of one process until it is told to stop, or until ``lifeline`` (a pipe) closes."""
    from cds_service import processes
    from monitoring.metrics import configure_metrics
    from monitoring.tracing import configure_tracing

    traces = configure_tracing(endpoint=settings.otlp_endpoint, service=f"cds-{role}")
    configure_metrics()
    stopping = _stop_event(lifeline)
    try:
        if role == "api":
            processes.run_api(settings, number, stopping)
        elif role == "listener":
            processes.run_listener(settings, number, stopping)
        else:
            processes.run_worker(settings, number, stopping)
    finally:
        traces.shutdown()  # sends what waits; a forked process runs no exit handlers


def _tend(child: _Child, settings: Settings, lifeline: tuple[int, int]) -> None:
    now = time.monotonic()
    if child.process is not None and child.process.exitcode is not None:
        child.failures = 0 if now - child.started_at > STEADY_SECONDS else child.failures + 1
        pause = RESTART_PAUSE_SECONDS[min(child.failures, len(RESTART_PAUSE_SECONDS)) - 1] if child.failures else 0.0
        code = child.process.exitcode
        log.error("process.ended", role=child.role, number=child.number, code=code, restart_in=pause)
        child.process, child.due_at = None, now + pause
    if child.process is None and now >= child.due_at:
        name = f"cds-{child.role}-{child.number}"
        child.process = _FORK.Process(
            target=_run_child, name=name, args=(child.role, settings, child.number, lifeline), daemon=False
        )
        child.process.start()
        child.started_at = now


def _run_child(role: str, settings: Settings, number: int, lifeline: tuple[int, int]) -> None:
    read_end, write_end = lifeline
    os.close(write_end)  # only the supervisor may hold it: its end must close the pipe
    try:
        run_role(role, settings, number, read_end)
    except DermoscopyError as error:
        log.critical("process.cannot_run", role=role, error=type(error).__name__, reason=str(error))
        sys.exit(1)


def _stop(children: list[_Child]) -> int:
    alive = [c.process for c in children if c.process is not None]
    for process in alive:
        process.terminate()
    deadline = time.monotonic() + SHUTDOWN_SECONDS
    code = 0
    for process in alive:
        process.join(max(0.1, deadline - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            code = 1
    return code


def _stop_event(lifeline: int | None) -> threading.Event:
    """Event that is set by SIGTERM, SIGINT, or the end of the supervisor."""
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if lifeline is not None:
        threading.Thread(target=_end_with_supervisor, args=(stopping, lifeline), daemon=True).start()
    return stopping


def _end_with_supervisor(stopping: threading.Event, lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    stopping.set()
    time.sleep(SHUTDOWN_SECONDS)
    os._exit(1)  # the graceful way did not end in time
