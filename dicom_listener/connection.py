"""Accepted connections as pynetdicom is given them: PDUs come whole, in bounded size and in bounded time.

pynetdicom reads a PDU in pieces of 4 KiB and believes the length that its header states. These sockets read a PDU at
once, hand out the pieces from memory, and end the connection where a PDU claims to be longer than agreed.
"""

from __future__ import annotations

import math
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

log = structlog.get_logger(__name__)

MAX_ASSOCIATE_BYTES: Final = 1 << 20
"""Longest PDU that is not data: 128 presentation contexts with many transfer syntaxes need far less."""

_HEADER_BYTES: Final = 6
_P_DATA_TF: Final = 4


class _PduReader:
    """What of the current PDU is still to be asked for; ``recv`` of both kinds of socket goes through `take`."""

    def __init__(self, max_pdu: int, patience: float, lowest_rate: float) -> None:
        self.max_pdu = max_pdu
        self.patience = patience
        self.lowest_rate = lowest_rate
        self.announced = 0
        self.body = b""
        self.position = 0
        self.deadline = 0.0

    def allow(self, count: int) -> None:
        """Set the time by which ``count`` bytes must be here: a byte now and then is no sender at work."""
        slowest = count / self.lowest_rate if self.lowest_rate else math.inf
        self.deadline = time.monotonic() + self.patience + slowest

    def check_time(self) -> None:
        """Raises `TimeoutError` when the bytes that were to be here by now are not."""
        if time.monotonic() > self.deadline:
            raise TimeoutError("the peer sends more slowly than it may")

    def note_header(self, header: bytes) -> None:
        """Remember how long the PDU is. Raises `ConnectionAbortedError` when that is more than agreed (PS3.8 9.3.1)."""
        if len(header) < _HEADER_BYTES:
            return
        kind, length = header[0], int.from_bytes(header[2:6], "big")
        if length > (self.max_pdu if kind == _P_DATA_TF else MAX_ASSOCIATE_BYTES):
            log.warning("association.pdu_too_long", type=kind, length=length)
            raise ConnectionAbortedError("the peer announced a PDU that is longer than agreed")
        self.announced = length

    def take(self, size: int) -> bytes:
        """The next piece of the PDU that was read."""
        piece = self.body[self.position : self.position + size]
        self.position += len(piece)
        if self.position == len(self.body):
            self.body, self.position = b"", 0
        return piece


class Connection(socket.socket):
    """A plain connection. Silence inside a PDU ends it after ``patience`` seconds, by the kernel's clock.

    So does a PDU that takes ``patience`` and the time that its length needs at ``lowest_rate`` (bytes per second; 0
    asks for none). The socket itself blocks: Python's own timeout costs a poll for each call.
    """

    def __init__(self, accepted: socket.socket, max_pdu: int, patience: float, lowest_rate: float = 0.0) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self._reader = _PduReader(max_pdu, patience, lowest_rate)
        self.settimeout(None)
        limit = struct.pack("ll", int(patience), int(patience % 1 * 1_000_000))
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As `socket.socket.recv`, except that the rest of a PDU is read at once. Raises `OSError`."""
        reader = self._reader
        if reader.body:
            return reader.take(bufsize)
        if not reader.announced:
            reader.allow(0)
            header = self._whole(min(bufsize, _HEADER_BYTES))
            reader.note_header(header)
            return header
        wanted, reader.announced = reader.announced, 0
        reader.allow(wanted)
        reader.body = self._whole(wanted)
        return reader.take(bufsize)

    def shutdown(self, how: int, /) -> None:
        """As `socket.socket.shutdown`, silent where the peer is gone: pynetdicom closes only what it can shut down."""
        with suppress(OSError):
            super().shutdown(how)

    def _whole(self, count: int) -> bytes:
        """``count`` bytes, fewer only at the end of the connection. Raises `OSError` when they take too long."""
        data = super().recv(count, socket.MSG_WAITALL)
        while data and len(data) < count:  # a signal or the kernel's timeout came in between
            self._reader.check_time()
            more = super().recv(count - len(data), socket.MSG_WAITALL)
            if not more:
                break
            data += more
        return data


class TlsConnection(ssl.SSLSocket):
    """A TLS connection, with the same bound on PDUs. The handshake happens with the first read, in its own thread."""

    _reader: _PduReader | None = None
    _patience: float | None = None
    _greeted = False
    _on_failure: Callable[[OSError], None] | None = None

    def bound(
        self,
        max_pdu: int,
        patience: float,
        handshake: float,
        on_failure: Callable[[OSError], None],
        lowest_rate: float = 0.0,
    ) -> None:
        """Set the limits; `ssl.SSLContext.wrap_socket` makes the object and takes no further arguments.

        ``handshake`` seconds bound the whole handshake, ``patience`` each read after it, ``lowest_rate`` as in
        `Connection`. ``on_failure`` is told why a handshake failed.
        """
        self._reader = _PduReader(max_pdu, patience, lowest_rate)
        self._patience, self._on_failure = patience, on_failure
        self.settimeout(handshake)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As `ssl.SSLSocket.recv`, except that PDU headers are checked. Raises `OSError`."""
        reader = self._reader
        if reader is None:
            return super().recv(buflen, flags)
        if not self._greeted:
            self._greet()
        if not reader.announced:
            reader.allow(0)
        data = super().recv(buflen, flags)
        if reader.announced:
            reader.announced = max(0, reader.announced - len(data))
            reader.check_time()
        else:
            while data and len(data) < min(buflen, _HEADER_BYTES):
                reader.check_time()
                more = super().recv(buflen - len(data), flags)
                if not more:
                    break
                data += more
            reader.note_header(data)
            reader.allow(reader.announced)
        return data

    def shutdown(self, how: int) -> None:
        """As `Connection.shutdown`."""
        with suppress(OSError):
            super().shutdown(how)

    def _greet(self) -> None:
        try:
            self.do_handshake()
        except OSError as error:
            told, self._on_failure = self._on_failure, None  # pynetdicom may read once more before it closes
            if told is not None:
                told(error)
            raise
        self._greeted = True
        self.settimeout(self._patience)
