"""pynetdicom's server with our settings, sockets and connections; its threads do the rest."""

from __future__ import annotations

import resource
import socket
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from socketserver import BaseServer
from typing import Any, Final, cast

import structlog
from pynetdicom.transport import ThreadedAssociationServer

from dicom_listener.admission import Peer
from dicom_listener.connection import Connection, TlsConnection
from dicom_listener.tls import ReloadedContext
from dicom_listener.turned_away import TurnedAway

log = structlog.get_logger(__name__)

MAX_WAITING: Final = 128
"""Connections that have not yet said who they are; further ones are closed unheard."""
MAX_WAITING_PER_ADDRESS: Final = 64
"""So that one silent machine does not keep all others out."""

_RECEIVE_BUFFER: Final = 1 << 20
_SELECTABLE: Final = 1024
"""pynetdicom asks select(2), which knows no higher descriptors."""
_RESERVED: Final = 64
"""Descriptors left to the database, the object store and the log."""


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Where to listen and what to allow. Port 0 takes a free one. Sizes in bytes, times in seconds."""

    host: str = "127.0.0.1"
    port: int = 11112
    ae_title: str = "DERMCDS"
    require_called_ae: bool = True
    peers: tuple[Peer, ...] = ()
    """Who may open an association; empty means anybody."""
    promiscuous: bool = False
    """Whether AE titles that are on no list may do so too."""
    max_pdu: int = 131072
    max_associations: int = 32
    max_object_bytes: int = 512 * 1024 * 1024
    handshake_timeout: float = 10.0
    """For the whole TLS handshake."""
    negotiation_timeout: float = 30.0
    """For the association request, and for silence in the middle of a PDU."""
    idle_timeout: float = 300.0
    lowest_rate: float = 1024.0
    """Bytes per second, on average over a PDU and over an object, below which a sender is cut off. 0 asks for none."""
    share_port: bool = False
    """SO_REUSEPORT: several processes listen on one port and the kernel spreads associations over them."""
    tls: ReloadedContext[ssl.SSLContext] | None = None


class Server(ThreadedAssociationServer):
    """Accepts connections as `connection` makes them. ``waiting`` says from which addresses unnegotiated ones come."""

    request_queue_size = 1024
    daemon_threads = True

    def __init__(
        self,
        *arguments: Any,
        settings: ListenerSettings,
        waiting: Callable[[], list[str]],
        on_tls_failure: Callable[[OSError, str], None],
        **options: Any,
    ) -> None:
        self._settings = settings
        self._waiting = waiting
        self._on_tls_failure = on_tls_failure
        self._turned_away = TurnedAway()
        self._without_room: Any = None
        self._descriptors = min(_SELECTABLE, resource.getrlimit(resource.RLIMIT_NOFILE)[0]) - _RESERVED
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
        except BlockingIOError:
            raise
        except OSError as error:
            log.error("listener.accept_failed", reason=error.strerror)  # out of file descriptors: wait, go on
            time.sleep(0.1)
            raise
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if settings.tls is None:
            return Connection(accepted, settings.max_pdu, settings.negotiation_timeout, settings.lowest_rate), address
        try:
            wrapped = settings.tls.current().wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        except OSError:  # gone already
            accepted.close()
            raise
        secured = cast(TlsConnection, wrapped)
        secured.bound(
            settings.max_pdu,
            settings.negotiation_timeout,
            settings.handshake_timeout,
            lambda error: self._on_tls_failure(error, address[0]),
            settings.lowest_rate,
        )
        return secured, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more that has not said who it is."""
        waiting = Counter(self._waiting())
        address = client_address[0]
        room = request.fileno() < self._descriptors
        if room and waiting.total() < MAX_WAITING and waiting[address] < MAX_WAITING_PER_ADDRESS:
            return True
        log.warning("connection.turned_away", address=address, waiting=waiting.total())
        self._without_room = request
        return False

    def shutdown_request(self, request: Any) -> None:
        """Close a connection; one for which there is no room is told to come again, unless it would speak TLS."""
        if request is self._without_room and isinstance(request, Connection) and self._turned_away.take(request):
            return
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line why a connection could not be served; its traceback would go to standard error."""
        error = sys.exception()
        log.error("connection.not_served", address=client_address[0], error=type(error).__name__)

    def shutdown(self) -> None:
        """Accept no more, but hear those that the kernel has accepted already: closing would reset them."""
        BaseServer.shutdown(self)  # pynetdicom's own also strikes it off a list that `make_server` leaves it off
        listening = cast(socket.socket, self.socket)
        if listening.fileno() < 0:
            return
        listening.setblocking(False)
        while self._take_one():
            pass
        self.server_close()

    def _take_one(self) -> bool:
        try:
            request, address = self.get_request()
        except OSError:
            return False
        if self.verify_request(request, address):
            self.process_request(request, address)
        else:
            self.shutdown_request(request)
        return True
