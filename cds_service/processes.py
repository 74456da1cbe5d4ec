"""What each process of the service runs until it is told to stop."""

from __future__ import annotations

import structlog

from cds_service.bootstrap import open_node
from cds_service.serve import stop_signal
from dermoscopy.settings import Settings

log = structlog.get_logger(__name__)


def run_api(settings: Settings) -> None:
    """HTTP: REST API, CDS Hooks, pages, health."""
    import uvicorn

    from cds_service.app import create_app
    from cds_service.readiness import readiness_of
    from monitoring.metrics import render

    stopping = stop_signal()
    node = open_node(settings)
    app = create_app(node, readiness=readiness_of(node), render_metrics=render)
    server = uvicorn.Server(
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
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined,method-assign]
    import threading

    threading.Thread(target=_stop_server, args=(stopping, server), daemon=True).start()
    server.run()


def _stop_server(stopping, server) -> None:  # type: ignore[no-untyped-def]
    stopping.wait()
    server.should_exit = True


def run_listener(settings: Settings, number: int) -> None:
    """DICOM storage SCP."""
    from dicom_listener.scp import ListenerSettings, StorageListener

    stopping = stop_signal()
    node = open_node(settings)
    listener = StorageListener(
        ListenerSettings(
            host=settings.dicom_host,
            port=settings.dicom_port,
            ae_title=settings.ae_title,
            calling_aes=frozenset(settings.dicom_calling_ae_titles),
            max_pdu=settings.dicom_max_pdu,
            max_associations=settings.dicom_max_associations,
            max_object_bytes=settings.dicom_max_object_bytes,
            share_port=settings.dicom_processes > 1,
        ),
        accept=lambda data, header, caller: node.intake.accept(data, header, source="cstore", caller=caller),
        on_rejected=lambda error, header, caller, digest: node.intake.reject(
            error, digest=digest, source="cstore", caller=caller, header=header
        ),
    )
    listener.start()
    stopping.wait()
    listener.shutdown()


def run_worker(settings: Settings, number: int) -> None:
    """Durable workflows: analysis and delivery."""
    from cds_service.worker import running_worker

    stopping = stop_signal()
    with running_worker(open_node(settings), number):
        stopping.wait()
