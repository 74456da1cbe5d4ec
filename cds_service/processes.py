"""What each process of the service runs until it is told to stop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from cds_service.bootstrap import open_node
from dermoscopy.errors import Misconfigured
from dermoscopy.settings import Settings

_BACKLOG = 2048
"""Connections that wait to be accepted, as uvicorn has it by default."""


class _Server(uvicorn.Server):
    """Leaves the signals to `cds_service.serve`, which also knows of the supervisor's end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run_api(settings: Settings, number: int, stopping: threading.Event) -> None:
    """HTTP: REST API, CDS Hooks, pages, health. Several share the port; the first watches the audit log."""
    from audit.sequencer import waiting
    from cds_service.app import create_app
    from cds_service.audit_watch import watch_audit_log
    from cds_service.readiness import readiness_of
    from monitoring.gauges import register_gauges
    from monitoring.metrics import CONTENT_TYPE, render

    node = open_node(settings)
    register_gauges(node.engine, settings.data_dir, audit_pending=lambda: waiting(node.engine))
    if number == 0:
        watch_audit_log(node, stopping)
    else:
        _serve_metrics(settings, settings.worker_processes + settings.dicom_processes + number - 1)
    app = create_app(node, readiness=readiness_of(node), render_metrics=lambda: (render(), CONTENT_TYPE))
    server = _Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=20,
        )
    )
    threading.Thread(target=_stop_server, args=(stopping, server), daemon=True).start()
    server.run(sockets=[_shared_socket(settings)] if settings.api_processes > 1 else None)


def _shared_socket(settings: Settings) -> socket.socket:
    """A socket of this process on the common port (SO_REUSEPORT): the kernel spreads connections over them.

    Raises `Misconfigured` when somebody else has the port.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG, reuse_port=True)
    except OSError as error:
        raise Misconfigured(
            f"cannot listen for HTTP on {settings.host}:{settings.port} ({error.strerror}); is the port taken?"
        ) from error


def run_listener(settings: Settings, number: int, stopping: threading.Event) -> None:
    """DICOM storage SCP."""
    from cds_service.listening import open_listener

    listener = open_listener(open_node(settings))
    _serve_metrics(settings, settings.worker_processes + number)
    listener.start()
    stopping.wait()
    listener.shutdown(grace=settings.dicom_shutdown_seconds)


def run_worker(settings: Settings, number: int, stopping: threading.Event) -> None:
    """Durable workflows: analysis and delivery."""
    from cds_service.worker import running_worker

    _serve_metrics(settings, number)
    with running_worker(open_node(settings), number):
        stopping.wait()


def _serve_metrics(settings: Settings, offset: int) -> None:
    """The metrics of a process without a web server, on a loopback port of its own."""
    if settings.metrics_port:
        from monitoring.metrics import serve_metrics

        serve_metrics(settings.metrics_port + offset)


def _stop_server(stopping: threading.Event, server: uvicorn.Server) -> None:
    stopping.wait()
    server.should_exit = True
