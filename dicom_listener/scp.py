"""The storage SCP: pynetdicom's acceptor, bounded in size and time, ended cleanly."""

from __future__ import annotations

import socket
import ssl
import threading
import time
import weakref
from dataclasses import dataclass
from socketserver import BaseServer
from typing import Any, Final, cast

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.transport import ThreadedAssociationServer

from dermoscopy.errors import Misconfigured
from dicom_listener.connection import Connection, TlsConnection
from dicom_listener.handlers import Accept, OnRejected, StoreHandler, StoreRequest
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.status import SUCCESS
from dicom_listener.syntaxes import IMAGE_CLASSES, NEGOTIATED_SYNTAXES, VERIFICATION

log = structlog.get_logger(__name__)

REJECTING_ASSOCIATIONS: Final = 16
"""Connections beyond the limit that may wait for their polite refusal at a time; further ones are closed."""

OVERSHOOT: Final = 16 * 1024 * 1024
"""An object this many bytes over the limit is not read to its end: the association is aborted."""

_RECEIVE_BUFFER: Final = 1 << 20
_SWEEP_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Where to listen and what to allow. Port 0 takes a free one. Sizes in bytes, times in seconds."""

    host: str = "127.0.0.1"
    port: int = 11112
    ae_title: str = "DERMCDS"
    require_called_ae: bool = False
    calling_aes: frozenset[str] = frozenset()
    """AE titles that may open an association; empty means any."""
    max_pdu: int = 131072
    max_associations: int = 32
    max_object_bytes: int = 512 * 1024 * 1024
    negotiation_timeout: float = 30.0
    """For the association request, and for silence in the middle of a PDU."""
    idle_timeout: float = 300.0
    share_port: bool = False
    """SO_REUSEPORT: several processes listen on one port and the kernel spreads associations over them."""
    tls: ssl.SSLContext | None = None


@dataclass(slots=True)
class _Load:
    """What an association has in hand. Written by its upper layer thread only."""

    received: int = 0
    """Bytes of the message that is coming in."""
    unanswered: int = 0
    """Messages that are complete and have no answer yet."""
    refused: bool = False
    """Too much has come; the association is being aborted."""

    @property
    def busy(self) -> bool:
        return bool(self.received or self.unanswered)


class StorageListener:
    """Receives images by C-STORE and answers C-ECHO. ``accept`` and ``on_rejected``: see `handlers`."""

    def __init__(self, settings: ListenerSettings, accept: Accept, on_rejected: OnRejected | None = None) -> None:
        self.settings = settings
        self._store = StoreHandler(accept, on_rejected)
        self._entity = _entity(settings)
        self._loads: weakref.WeakKeyDictionary[Association, _Load] = weakref.WeakKeyDictionary()
        self._server: _Server | None = None
        self._port = 0
        self._stopping = threading.Event()

    @property
    def port(self) -> int:
        """The port really bound (useful with port 0). Raises `RuntimeError` before `start`."""
        if self._server is None:
            raise RuntimeError("the listener is not started")
        return self._port

    @property
    def associations(self) -> int:
        """How many associations are open now."""
        return len(self._server.active_associations) if self._server else 0

    def start(self) -> None:
        """Bind and listen; returns at once. Raises `Misconfigured` when the address cannot be bound."""
        settings = self.settings
        _config.LOG_HANDLER_LEVEL = "none"  # formats every PDU and message otherwise; ours are logged by `handlers`
        if settings.tls is not None:
            settings.tls.sslsocket_class = TlsConnection
        try:
            server = self._entity.make_server(
                (settings.host, settings.port),
                evt_handlers=[
                    (evt.EVT_CONN_OPEN, self._on_open),
                    (evt.EVT_PDU_RECV, self._on_pdu),
                    (evt.EVT_DIMSE_RECV, self._on_message),
                    (evt.EVT_C_STORE, self._on_store),
                    (evt.EVT_PDU_SENT, self._on_sent),
                    (evt.EVT_REJECTED, self._on_rejected),
                    (evt.EVT_ABORTED, self._on_aborted),
                ],
                server_class=_Server,
                settings=settings,
            )
        except OSError as error:
            raise Misconfigured(
                f"cannot listen for DICOM on {settings.host}:{settings.port} ({error.strerror}); is the port taken?"
            ) from error
        self._server, self._port = cast(_Server, server), int(server.server_address[1])
        threading.Thread(target=server.serve_forever, name="dicom-accept", daemon=True).start()
        log.info("listener.started", host=settings.host, port=self.port, ae_title=settings.ae_title)

    def shutdown(self, grace: float = 30.0) -> None:
        """Take no new association, finish the messages in hand (at most ``grace`` seconds), abort the rest."""
        self._stopping.set()
        server = self._server
        if server is None:
            return
        server.shutdown()
        open_then = len(server.active_associations)
        deadline = time.monotonic() + grace
        while (still := server.active_associations) and time.monotonic() < deadline:
            for association in still:
                if not self._load(association).busy:
                    _end(association)
            time.sleep(_SWEEP_SECONDS)
        for association in still:
            log.warning("listener.cut", caller=_caller(association))
            _end(association)
        for association in still:
            association.join(1)
            _cut(association)
        log.info("listener.stopped", associations=open_then)

    # ---------------------------------------------------------------------- pynetdicom's events, in association threads

    def _load(self, association: Association) -> _Load:
        return self._loads.setdefault(association, _Load())

    def _on_open(self, event: evt.Event) -> None:
        event.assoc.dul.daemon = True  # an answer that never comes must not keep the process alive

    def _on_pdu(self, event: evt.Event) -> None:
        if not isinstance(event.pdu, P_DATA_TF):
            return
        load = self._load(event.assoc)
        load.received += event.pdu.pdu_length
        if load.received > self.settings.max_object_bytes + OVERSHOOT and not load.refused:
            load.refused = True
            log.warning("association.object_too_large", caller=_caller(event.assoc))
            self._store(StoreRequest("", "", "", _caller(event.assoc), b"", too_large=True))  # recorded as refused
            event.assoc.abort(block=False)

    def _on_message(self, event: evt.Event) -> None:
        load = self._load(event.assoc)
        load.received = 0
        load.unanswered += 1
        if load.unanswered > 1:  # no asynchronous operations were negotiated (PS3.7 D.3.3.3)
            log.warning("association.out_of_turn", caller=_caller(event.assoc))
            event.assoc.abort(block=False)

    def _on_store(self, event: evt.Event) -> int | Dataset:
        """Answer one C-STORE; the dataset is taken as it was encoded."""
        request: Any = event.request
        data = request.DataSet.getvalue()
        too_large = len(data) > self.settings.max_object_bytes
        status = self._store(
            StoreRequest(
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                caller=_caller(event.assoc),
                data=b"" if too_large else data,
                too_large=too_large,
            )
        )
        if status.code == SUCCESS:
            return SUCCESS
        answer = Dataset()
        answer.Status = status.code
        answer.ErrorComment = status.comment
        return answer

    def _on_sent(self, event: evt.Event) -> None:
        if not isinstance(event.pdu, P_DATA_TF):
            return
        load = self._load(event.assoc)
        load.unanswered = max(0, load.unanswered - 1)
        if self._stopping.is_set() and not load.busy:
            event.assoc.abort(block=False)

    def _on_rejected(self, event: evt.Event) -> None:
        log.warning("association.rejected", caller=_caller(event.assoc))

    def _on_aborted(self, event: evt.Event) -> None:
        log.info("association.aborted", caller=_caller(event.assoc))


class _Server(ThreadedAssociationServer):
    """pynetdicom's server with our socket options; connections as `connection` makes them."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, *arguments: Any, settings: ListenerSettings, **options: Any) -> None:
        self._settings = settings
        super().__init__(*arguments, **options)

    def server_bind(self) -> None:
        listening = cast(socket.socket, self.socket)
        if self._settings.share_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)  # inherited by connections
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept; the TLS handshake is left to the connection's own thread, so that a silent peer holds up no other."""
        settings = self._settings
        try:
            accepted, address = cast(socket.socket, self.socket).accept()
        except OSError as error:
            log.error("listener.accept_failed", reason=error.strerror)  # out of file descriptors: wait, go on
            time.sleep(0.1)
            raise
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if settings.tls is None:
            return Connection(accepted, settings.max_pdu, settings.negotiation_timeout), address
        secured = cast(
            TlsConnection, settings.tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        )
        secured.bound(settings.max_pdu, settings.negotiation_timeout)
        return secured, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room even for a refusal."""
        return len(self.active_associations) < self._settings.max_associations + REJECTING_ASSOCIATIONS

    def shutdown(self) -> None:
        """Accept no more. pynetdicom's own also strikes the server off a list that `make_server` leaves it off."""
        BaseServer.shutdown(self)
        self.server_close()


def _entity(settings: ListenerSettings) -> AE:
    entity = AE(settings.ae_title)
    entity.supported_contexts = [
        build_context(VERIFICATION, list(NEGOTIATED_SYNTAXES[:3])),
        *(build_context(uid, list(NEGOTIATED_SYNTAXES)) for uid in IMAGE_CLASSES),
    ]
    entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.require_called_aet = settings.require_called_ae
    entity.require_calling_aet = sorted(settings.calling_aes)
    entity.maximum_pdu_size = settings.max_pdu
    entity.maximum_associations = settings.max_associations
    entity.acse_timeout = settings.negotiation_timeout
    entity.dimse_timeout = entity.network_timeout = settings.idle_timeout
    return entity


def _caller(association: Association) -> str:
    return association.requestor.ae_title.strip()


def _end(association: Association) -> None:
    """Abort an established association, close the connection of one that is still being negotiated."""
    if association.is_established:
        association.abort(block=False)
    else:
        _cut(association)


def _cut(association: Association) -> None:
    wrapped = association.dul.socket
    connection = wrapped.socket if wrapped is not None else None
    if connection is not None:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # closed already
