"""The storage SCP: listens, gives each association a thread, ends cleanly."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Final

import structlog

from dermoscopy.errors import Misconfigured
from dicom_listener.association import Association, Limits
from dicom_listener.handlers import Accept, OnRejected, StoreHandler

log = structlog.get_logger(__name__)

REJECTING_ASSOCIATIONS: Final = 16
"""Connections beyond the limit that may wait for their polite refusal at a time; further ones are closed."""


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Where to listen and what to allow. Port 0 takes a free one. Sizes in bytes, times in seconds."""

    host: str = "127.0.0.1"
    port: int = 11112
    ae_title: str = "DERMCDS"
    require_called_ae: bool = False
    calling_aes: frozenset[str] = frozenset()
    max_pdu: int = 131072
    max_associations: int = 32
    max_object_bytes: int = 512 * 1024 * 1024
    negotiation_timeout: float = 30.0
    idle_timeout: float = 300.0
    share_port: bool = False
    """SO_REUSEPORT: several processes listen on one port and the kernel spreads associations over them."""
    tls: ssl.SSLContext | None = None


class StorageListener:
    """Receives images by C-STORE and answers C-ECHO. ``accept`` and ``on_rejected``: see `handlers`."""

    def __init__(self, settings: ListenerSettings, accept: Accept, on_rejected: OnRejected | None = None) -> None:
        self.settings = settings
        self._store = StoreHandler(accept, on_rejected)
        self._limits = Limits(
            ae_title=settings.ae_title,
            require_called_ae=settings.require_called_ae,
            calling_aes=settings.calling_aes,
            max_pdu=settings.max_pdu,
            max_object_bytes=settings.max_object_bytes,
            negotiation_timeout=settings.negotiation_timeout,
            idle_timeout=settings.idle_timeout,
        )
        self._lock = threading.Lock()
        self._open: dict[Association, threading.Thread] = {}
        self._server: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def port(self) -> int:
        """The port really bound (useful with port 0). Raises `RuntimeError` before `start`."""
        if self._server is None:
            raise RuntimeError("the listener is not started")
        return int(self._server.getsockname()[1])

    @property
    def associations(self) -> int:
        """How many associations are open now."""
        with self._lock:
            return len(self._open)

    def start(self) -> None:
        """Bind and listen; returns at once. Raises `Misconfigured` when the address cannot be bound."""
        settings = self.settings
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        server = socket.socket(family, socket.SOCK_STREAM)
        try:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if settings.share_port:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # inherited by accepted connections
            server.bind((settings.host, settings.port))
            server.listen(128)
        except OSError as error:
            server.close()
            raise Misconfigured(
                f"cannot listen for DICOM on {settings.host}:{settings.port} ({error.strerror}); is the port taken?"
            ) from error
        self._server = server
        self._acceptor = threading.Thread(target=self._accept_loop, name="dicom-accept", daemon=True)
        self._acceptor.start()
        log.info("listener.started", host=settings.host, port=self.port, ae_title=settings.ae_title)

    def shutdown(self, grace: float = 30.0) -> None:
        """Take no new association, finish the messages in hand (at most ``grace`` seconds), close the rest."""
        self._stopping.set()
        if self._server is None or self._acceptor is None:
            return
        try:
            self._server.shutdown(socket.SHUT_RDWR)  # wakes accept()
        except OSError:
            pass
        self._acceptor.join(5)
        self._server.close()
        with self._lock:
            open_now = dict(self._open)
        for association in open_now:
            association.finish()
        deadline = time.monotonic() + grace
        for association, thread in open_now.items():
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("listener.cut", caller=association.caller)
                association.cut()
                thread.join(1)
        log.info("listener.stopped", associations=len(open_now))

    def _accept_loop(self) -> None:
        server = self._server
        while server is not None and not self._stopping.is_set():
            try:
                connection, _address = server.accept()
            except OSError as error:
                if self._stopping.is_set():
                    return
                log.error("listener.accept_failed", reason=error.strerror)  # out of file descriptors: wait, go on
                time.sleep(0.1)
                continue
            self._begin(connection)

    def _begin(self, connection: socket.socket) -> None:
        with self._lock:
            count = len(self._open)
            if self._stopping.is_set() or count >= self.settings.max_associations + REJECTING_ASSOCIATIONS:
                connection.close()
                return
            full = count >= self.settings.max_associations
            association = Association(connection, self._limits, self._store, full=full, tls=self.settings.tls)
            thread = threading.Thread(target=self._serve, args=(association,), name="dicom-association", daemon=True)
            self._open[association] = thread
        thread.start()

    def _serve(self, association: Association) -> None:
        try:
            association.serve()
        except Exception:
            log.exception("association.failed", caller=association.caller)
        finally:
            with self._lock:
                self._open.pop(association, None)
