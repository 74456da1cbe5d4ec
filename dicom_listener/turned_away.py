"""Connections for which there is no room are told so (A-ASSOCIATE-RJ: try again), not just cut.

One thread answers all of them, so that a thousand at once cost a thousand sockets for a moment and not two thousand
threads. An answer is sent once the peer has asked; the connection is kept until the peer closes it, because closing on
unread bytes would reset it and could take the answer away from the peer.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from typing import Final

LOCAL_LIMIT_EXCEEDED: Final = bytes((3, 0, 0, 0, 0, 4, 0, 2, 3, 2))
"""A-ASSOCIATE-RJ, rejected transient, by the presentation service provider: local limit exceeded (PS3.8 9.3.4)."""
MAX_KEPT: Final = 256
"""Connections kept for their answer; beyond that they are closed unheard."""
SECONDS: Final = 5.0
"""How long a peer may take to ask and to close."""

_ASK_BYTES: Final = 65536
_POLL_SECONDS: Final = 0.5


class TurnedAway:
    """Answers connections with a transient rejection; safe to call from the accepting thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._due: dict[socket.socket, float] = {}
        self._thread: threading.Thread | None = None

    def take(self, connection: socket.socket) -> bool:
        """Take ``connection`` over and answer it; ``False`` (not taken) when too many wait for their answer."""
        with self._lock:
            if len(self._due) >= MAX_KEPT:
                return False
            connection.setblocking(False)
            self._due[connection] = time.monotonic() + SECONDS
            self._selector.register(connection, selectors.EVENT_READ, True)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="dicom-turned-away", daemon=True)
                self._thread.start()
        return True

    def _work(self) -> None:
        while True:
            for key, _ in self._selector.select(_POLL_SECONDS):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                if not self._hear(connection, unanswered=key.data):
                    self._drop(connection)
            now = time.monotonic()
            for connection in [one for one, due in list(self._due.items()) if due < now]:
                self._drop(connection)
            with self._lock:
                if not self._due:
                    self._thread = None
                    return

    def _hear(self, connection: socket.socket, *, unanswered: bool) -> bool:
        """Whether the peer may still say something."""
        try:
            if not socket.socket.recv(connection, _ASK_BYTES):
                return False
            if unanswered:
                socket.socket.send(connection, LOCAL_LIMIT_EXCEEDED)
                self._selector.modify(connection, selectors.EVENT_READ, False)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def _drop(self, connection: socket.socket) -> None:
        with self._lock:
            self._due.pop(connection, None)
        try:
            self._selector.unregister(connection)
        except (KeyError, ValueError):
            pass
        connection.close()
