"""One association, from its request to its release, on one thread (PS3.8 9.2, acceptor's side)."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, Final, cast

import structlog

from dicom_listener import wire
from dicom_listener.handlers import StoreRequest
from dicom_listener.status import SUCCESS, UNRECOGNISED_OPERATION, DimseStatus
from dicom_listener.syntaxes import IMAGE_CLASSES, NEGOTIATED_SYNTAXES, VERIFICATION
from dicom_listener.wire import (
    AssociateRequest,
    Command,
    ProposedContext,
    ProtocolError,
    Readable,
    SocketStream,
    set_timeouts,
)

log = structlog.get_logger(__name__)

RECEIVE_BUFFER: Final = 1 << 18
_SUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {
    VERIFICATION: NEGOTIATED_SYNTAXES[:3],
    **dict.fromkeys(IMAGE_CLASSES, NEGOTIATED_SYNTAXES),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one association may do. Times in seconds, sizes in bytes."""

    ae_title: str
    require_called_ae: bool
    calling_aes: frozenset[str]
    """AE titles that may open an association; empty means any."""
    max_pdu: int
    max_object_bytes: int
    negotiation_timeout: float
    idle_timeout: float


@dataclass(slots=True)
class _Message:
    context_id: int
    command: Command | None = None
    parts: list[memoryview] = field(default_factory=list)
    size: int = 0


class Association:
    """Serves one connection. `serve` runs in the association's thread; `finish` may be called from another."""

    def __init__(
        self,
        connection: socket.socket,
        limits: Limits,
        store: Callable[[StoreRequest], DimseStatus],
        *,
        full: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._socket = connection
        self._limits = limits
        self._store = store
        self._full = full
        self._tls = tls
        self._contexts: dict[int, tuple[str, str]] = {}
        self._busy = False
        self._finishing = threading.Event()
        self.caller = ""

    def serve(self) -> None:
        """Negotiate, then answer messages until release, abort, loss of the connection or `finish`."""
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._opened() as stream:
                try:
                    self._converse(stream)
                except ProtocolError as error:
                    log.warning("association.aborted", reason=str(error), caller=self.caller)
                    self._socket.sendall(wire.encode_abort(error.reason))
        except TimeoutError:
            log.warning("association.timeout", caller=self.caller)
            self._abort_quietly()
        except OSError as error:  # TLS refused, connection lost: the peer is gone and there is nobody to tell
            log.warning("association.lost", reason=type(error).__name__, caller=self.caller)
        finally:
            self._close()

    @contextmanager
    def _opened(self) -> Iterator[Readable]:
        """The stream of this connection, after the TLS handshake where there is one."""
        if self._tls is None:
            self._limit(self._limits.negotiation_timeout)
            yield SocketStream(self._socket)
            return
        self._socket.settimeout(self._limits.negotiation_timeout)
        self._socket = self._tls.wrap_socket(self._socket, server_side=True)
        with cast(BinaryIO, self._socket.makefile("rb", buffering=RECEIVE_BUFFER)) as stream:
            yield stream

    def _limit(self, seconds: float) -> None:
        if self._tls is None:
            set_timeouts(self._socket, seconds)
        else:
            self._socket.settimeout(seconds)

    def finish(self) -> None:
        """End after the message in hand; an association that waits for its next message ends now."""
        self._finishing.set()
        if not self._busy:
            try:
                self._socket.shutdown(socket.SHUT_RD)
            except OSError:
                pass  # closed already

    def cut(self) -> None:
        """Close the connection whatever it is doing; what is not answered yet was not promised."""
        self._close()

    def _converse(self, stream: Readable) -> None:
        if not self._negotiate(stream):
            return
        self._limit(self._limits.idle_timeout)
        message: _Message | None = None
        while True:
            head = wire.read_pdu_header(stream)
            if head is None:
                if self._finishing.is_set():
                    self._socket.sendall(wire.encode_abort(0))
                elif message is not None:
                    log.warning("association.lost_in_message", caller=self.caller)
                return
            kind, length = head
            if kind == wire.P_DATA:
                self._busy = True
                message = self._read_values(stream, length, message)
                if message is None:
                    self._busy = False
                    if self._finishing.is_set():
                        self._socket.sendall(wire.encode_abort(0))
                        return
            elif kind == wire.RELEASE_RQ:
                wire.read_exactly(stream, min(length, 4))
                self._socket.sendall(wire.RELEASE_REPLY)
                return
            elif kind == wire.ABORT:
                log.info("association.aborted_by_peer", caller=self.caller)
                return
            else:
                raise ProtocolError(f"unexpected PDU type {kind}", 1 if kind > wire.ABORT or kind == 0 else 2)

    def _negotiate(self, stream: Readable) -> bool:
        head = wire.read_pdu_header(stream)
        if head is None:
            return False
        kind, length = head
        if kind != wire.ASSOCIATE_RQ:
            raise ProtocolError("the first PDU is not an A-ASSOCIATE-RQ", 2 if 0 < kind <= wire.ABORT else 1)
        if length > wire.MAX_ASSOCIATE_BYTES:
            raise ProtocolError("A-ASSOCIATE-RQ is too long", 6)
        request = wire.parse_associate_request(wire.read_exactly(stream, length))
        self.caller = request.calling
        refusal = self._refusal(request)
        if refusal is not None:
            reply, why = refusal
            log.warning("association.rejected", reason=why, caller=self.caller)
            self._socket.sendall(reply)
            return False
        results = {context.context_id: _result(context) for context in request.contexts}
        self._contexts = {
            context.context_id: (context.abstract_syntax, results[context.context_id][1])
            for context in request.contexts
            if results[context.context_id][0] == wire.ACCEPTED
        }
        self._socket.sendall(wire.encode_accept(request, results, self._limits.max_pdu))
        log.debug("association.accepted", caller=self.caller, contexts=len(self._contexts))
        return True

    def _refusal(self, request: AssociateRequest) -> tuple[bytes, str] | None:
        """(A-ASSOCIATE-RJ, reason) or ``None``: PS3.8 Table 9-21."""
        if self._full or self._finishing.is_set():
            return wire.encode_reject(2, 3, 2), "local limit exceeded"
        if self._limits.require_called_ae and request.called != self._limits.ae_title:
            return wire.encode_reject(1, 1, 7), "called AE title not recognised"
        if self._limits.calling_aes and request.calling not in self._limits.calling_aes:
            return wire.encode_reject(1, 1, 3), "calling AE title not recognised"
        return None

    def _read_values(self, stream: Readable, length: int, message: _Message | None) -> _Message | None:
        """Read the values of one P-DATA-TF (PS3.8 9.3.5); the unfinished message, or ``None`` once answered."""
        if length > self._limits.max_pdu + 6:
            raise ProtocolError("P-DATA-TF is longer than negotiated", 6)
        body = memoryview(wire.read_exactly(stream, length))
        position = 0
        while position < length:
            size, context_id, control = _value_header(body[position : position + 6])
            end = position + 4 + size
            if size < 2 or end > length:
                raise ProtocolError("presentation data value runs past its PDU", 6)
            fragment = body[position + 6 : end]
            position = end
            if message is None:
                message = _Message(context_id)
            if context_id != message.context_id or context_id not in self._contexts:
                raise ProtocolError("presentation context was not negotiated", 6)
            if self._take(message, fragment, control):
                message = None
        return message

    def _take(self, message: _Message, fragment: memoryview, control: int) -> bool:
        """Add ``fragment``; true once the message was complete and has been answered. Control header: PS3.8 E.2."""
        is_command, is_last = bool(control & 1), bool(control & 2)
        if is_command == (message.command is not None):
            raise ProtocolError("command and data fragments are out of order", 6)
        message.size += len(fragment)
        limit = wire.MAX_ASSOCIATE_BYTES if is_command else self._limits.max_object_bytes
        if message.size <= limit:
            message.parts.append(fragment)
        elif is_command:
            raise ProtocolError("command set is too long", 6)
        else:
            message.parts.clear()  # read on to keep in step with the sender, keep nothing
        if not is_last:
            return False
        whole = b"".join(message.parts)
        if is_command:
            message.command = wire.parse_command(whole)
            message.parts, message.size = [], 0
            if message.command.number(0x0800) != wire.NO_DATASET:
                return False
            self._answer(message, b"")
        else:
            message.parts = []
            self._answer(message, whole)
        return True

    def _answer(self, message: _Message, data: bytes) -> None:
        command = message.command
        if command is None:
            raise ProtocolError("dataset without a command", 6)
        sop_class, syntax = self._contexts[message.context_id]
        operation = command.number(0x0100)
        started = time.perf_counter()
        if operation == wire.C_STORE_RQ and sop_class != VERIFICATION:
            too_large = message.size > self._limits.max_object_bytes
            status = self._store(
                StoreRequest(command.uid(0x0002), command.uid(0x1000), syntax, self.caller, data, too_large)
            )
        elif operation == wire.C_ECHO_RQ:
            status = DimseStatus(SUCCESS)
        elif operation & wire.RESPONSE_BIT or operation == 0x0FFF:  # a response, or C-CANCEL: nothing to answer
            return
        else:
            status = DimseStatus(UNRECOGNISED_OPERATION, "Only C-STORE and C-ECHO are served")
        self._socket.sendall(wire.encode_response(message.context_id, command, status))
        milliseconds = round(1000 * (time.perf_counter() - started), 1)
        log.debug("association.answered", operation=operation, status=f"{status.code:04X}", milliseconds=milliseconds)

    def _abort_quietly(self) -> None:
        try:
            self._socket.sendall(wire.encode_abort(0))
        except OSError:
            pass  # the peer is gone

    def _close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # closed by the peer
        self._socket.close()


def _value_header(head: memoryview) -> tuple[int, int, int]:
    """(item length, presentation context id, message control header) of a presentation data value (PS3.8 9.3.5.1)."""
    if len(head) < 6:
        raise ProtocolError("presentation data value is too short", 6)
    return int.from_bytes(head[:4], "big"), head[4], head[5]


def _result(context: ProposedContext) -> tuple[int, str]:
    """(result, transfer syntax) for one proposed context: our first preference among what is offered."""
    offered = context.transfer_syntaxes
    first = offered[0] if offered else "1.2.840.10008.1.2"
    supported = _SUPPORTED.get(context.abstract_syntax)
    if supported is None:
        return wire.ABSTRACT_SYNTAX_REFUSED, first
    for syntax in supported:
        if syntax in offered:
            return wire.ACCEPTED, syntax
    return wire.TRANSFER_SYNTAXES_REFUSED, first
