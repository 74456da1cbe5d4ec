"""The upper layer protocol as an acceptor needs it: PDUs and DIMSE command sets as bytes (PS3.8 9.3, PS3.7 6.3 and E).

A storage SCP with one outstanding operation per association is a plain read-answer loop. Reading the PDUs here instead
of through a polling state machine is what makes reception several times faster; requests that we send ourselves
(`dicom_listener.deliver`) go through pynetdicom.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.status import DimseStatus

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = 1, 2, 3, 4, 5, 6, 7
C_STORE_RQ: Final = 0x0001
C_ECHO_RQ: Final = 0x0030
RESPONSE_BIT: Final = 0x8000
NO_DATASET: Final = 0x0101
APPLICATION_CONTEXT: Final = b"1.2.840.10008.3.1.1.1"
MAX_ASSOCIATE_BYTES: Final = 1 << 20
"""Longest A-ASSOCIATE-RQ that is read: 128 presentation contexts with many transfer syntaxes need far less."""

ACCEPTED, ABSTRACT_SYNTAX_REFUSED, TRANSFER_SYNTAXES_REFUSED = 0, 3, 4
"""Result/reason of a presentation context (PS3.8 Table 9-18)."""


class Readable(Protocol):
    """A blocking byte stream: ``read(n)`` returns ``n`` bytes, or fewer at its end."""

    def read(self, size: int, /) -> bytes: ...


class SocketStream:
    """Reads a plain socket with as few system calls as can be: one for each piece that is asked for.

    The socket must block; its timeout is the kernel's (`set_timeouts`), since Python's own costs a poll per call.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._receive = connection.recv

    def read(self, size: int, /) -> bytes:
        """``size`` bytes, or fewer at the end. Raises `TimeoutError` when the peer is silent for too long."""
        try:
            data = self._receive(size, socket.MSG_WAITALL)
            while data and len(data) < size:  # a signal or a timeout came in between
                more = self._receive(size - len(data), socket.MSG_WAITALL)
                if not more:
                    break
                data += more
        except BlockingIOError as error:
            raise TimeoutError("the peer is silent") from error
        return data


def set_timeouts(connection: socket.socket, seconds: float) -> None:
    """Let the kernel end a receive or send on a blocking ``connection`` after ``seconds``."""
    connection.settimeout(None)
    limit = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


class ProtocolError(Exception):
    """The peer broke the upper layer protocol; ``reason`` is the A-ABORT diagnostic (PS3.8 Table 9-26)."""

    def __init__(self, message: str, reason: int = 0) -> None:
        super().__init__(message)
        self.reason = reason


class ConnectionLost(ConnectionError):
    """The peer closed the connection; inside a message nothing of that message was kept."""


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """One presentation context as proposed (PS3.8 9.3.2.2)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """What an A-ASSOCIATE-RQ says (PS3.8 9.3.2). AE titles are stripped; ``max_pdu`` 0 means no limit."""

    called: str
    calling: str
    contexts: tuple[ProposedContext, ...]
    max_pdu: int
    raw_titles: bytes
    implementation: str = ""


@dataclass(slots=True)
class Command:
    """A DIMSE command set (PS3.7 6.3): element number of group 0000 → value bytes."""

    elements: Mapping[int, bytes] = field(default_factory=dict)

    def number(self, element: int) -> int:
        """Unsigned short ``element``. Raises `ProtocolError` when it is missing."""
        value = self.elements.get(element, b"")
        if len(value) != 2:
            raise ProtocolError(f"command element (0000,{element:04X}) is missing", 6)
        return int.from_bytes(value, "little")

    def uid(self, element: int) -> str:
        """UID ``element``, empty when missing."""
        return self.elements.get(element, b"").rstrip(b"\0 ").decode("ascii", "replace")


def read_exactly(stream: Readable, count: int) -> bytes:
    """``count`` bytes. Raises `ConnectionLost` when the peer closes first."""
    data = stream.read(count)
    if len(data) < count:
        raise ConnectionLost("connection closed inside a PDU")
    return data


def read_pdu_header(stream: Readable) -> tuple[int, int] | None:
    """(PDU type, length in bytes of the rest), or ``None`` when the peer closed the connection between PDUs."""
    head = stream.read(6)
    if not head:
        return None
    if len(head) < 6:
        raise ConnectionLost("connection closed inside a PDU header")
    return head[0], int.from_bytes(head[2:6], "big")


def parse_associate_request(body: bytes) -> AssociateRequest:
    """The A-ASSOCIATE-RQ in ``body`` (without its six header bytes). Raises `ProtocolError` on malformed items."""
    if len(body) < 68:
        raise ProtocolError("A-ASSOCIATE-RQ is too short", 6)
    if not int.from_bytes(body[0:2], "big") & 1:
        raise ProtocolError("protocol version is not 1", 2)
    contexts: list[ProposedContext] = []
    max_pdu, implementation = 0, ""
    for kind, item in _items(body, 68):
        if kind == 0x20:
            contexts.append(_proposed_context(item))
        elif kind == 0x50:
            for sub, value in _items(item, 0):
                if sub == 0x51 and len(value) == 4:
                    max_pdu = int.from_bytes(value, "big")
                elif sub == 0x55:
                    implementation = value.decode("ascii", "replace").strip()
    return AssociateRequest(
        called=body[4:20].decode("ascii", "replace").strip(" \0"),
        calling=body[20:36].decode("ascii", "replace").strip(" \0"),
        contexts=tuple(contexts),
        max_pdu=max_pdu,
        raw_titles=body[4:68],
        implementation=implementation,
    )


def _proposed_context(item: bytes) -> ProposedContext:
    if len(item) < 4:
        raise ProtocolError("presentation context item is too short", 6)
    abstract, transfers = "", []
    for kind, value in _items(item, 4):
        uid = value.rstrip(b"\0 ").decode("ascii", "replace")
        if kind == 0x30:
            abstract = uid
        elif kind == 0x40:
            transfers.append(uid)
    return ProposedContext(item[0], abstract, tuple(transfers))


def _items(body: bytes, position: int) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while position < len(body):
        if position + 4 > len(body):
            raise ProtocolError("item header runs past the end of the PDU", 6)
        kind, length = body[position], int.from_bytes(body[position + 2 : position + 4], "big")
        position += 4
        if position + length > len(body):
            raise ProtocolError("item runs past the end of the PDU", 6)
        found.append((kind, body[position : position + length]))
        position += length
    return found


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def pdu(kind: int, body: bytes) -> bytes:
    """A PDU of type ``kind`` around ``body``."""
    return struct.pack(">BBI", kind, 0, len(body)) + body


def encode_accept(request: AssociateRequest, results: Mapping[int, tuple[int, str]], max_pdu: int) -> bytes:
    """A-ASSOCIATE-AC (PS3.8 9.3.3). ``results``: context id → (result, transfer syntax), one for each proposed."""
    parts = [struct.pack(">HH", 1, 0), request.raw_titles, _item(0x10, APPLICATION_CONTEXT)]
    for context_id, (result, syntax) in results.items():
        transfer = _item(0x40, syntax.encode("ascii", "replace"))
        parts.append(_item(0x21, struct.pack(">BBBB", context_id, 0, result, 0) + transfer))
    user = (
        _item(0x51, struct.pack(">I", max_pdu))
        + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
        + _item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
    )
    parts.append(_item(0x50, user))
    return pdu(ASSOCIATE_AC, b"".join(parts))


def encode_reject(result: int, source: int, reason: int) -> bytes:
    """A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""
    return pdu(ASSOCIATE_RJ, struct.pack(">BBBB", 0, result, source, reason))


def encode_abort(reason: int) -> bytes:
    """A-ABORT by the service provider (PS3.8 9.3.8)."""
    return pdu(ABORT, struct.pack(">BBBB", 0, 0, 2, reason))


RELEASE_REPLY: Final = pdu(RELEASE_RP, b"\0" * 4)


def parse_command(data: bytes) -> Command:
    """The command set in ``data``: Implicit VR Little Endian, group 0000 (PS3.7 6.3.1)."""
    elements: dict[int, bytes] = {}
    position = 0
    while position + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHI", data, position)
        position += 8
        if group != 0 or position + length > len(data):
            raise ProtocolError("command set is malformed", 6)
        elements[element] = data[position : position + length]
        position += length
    return Command(elements)


def encode_response(context_id: int, command: Command, status: DimseStatus) -> bytes:
    """P-DATA-TF with the response to ``command``, without a dataset (PS3.7 9.3.1.2, 9.3.5.2)."""
    parts = []

    def add(element: int, value: bytes) -> None:
        value += b"\0" if len(value) % 2 else b""
        parts.append(struct.pack("<HHI", 0, element, len(value)) + value)

    if 0x0002 in command.elements:
        add(0x0002, command.elements[0x0002])
    elif 0x0003 in command.elements:  # Requested SOP Class UID of an N-service comes back as the affected one
        add(0x0002, command.elements[0x0003])
    add(0x0100, struct.pack("<H", command.number(0x0100) | RESPONSE_BIT))
    add(0x0120, struct.pack("<H", command.number(0x0110)))
    add(0x0800, struct.pack("<H", NO_DATASET))
    add(0x0900, struct.pack("<H", status.code))
    if status.comment:
        comment = status.comment.encode("ascii", "replace")[:64]
        add(0x0902, comment + (b" " if len(comment) % 2 else b""))
    if 0x1000 in command.elements:
        add(0x1000, command.elements[0x1000])
    body = b"".join(parts)
    message = struct.pack("<HHII", 0, 0, 4, len(body)) + body
    return pdu(P_DATA, struct.pack(">IBB", len(message) + 2, context_id, 0x03) + message)
