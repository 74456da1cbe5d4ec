"""A proxy that misbehaves on demand, in front of an HTTP server (FHIR, DICOMweb) or a TCP port (DICOM).

with http_fault_proxy("http://127.0.0.1:8080/fhir") as proxy:
    proxy.script(Fault.DROP_AFTER, status(503, retry_after=2))   # first request, second request; then honest
    client.post(proxy.url, ...)
    assert proxy.forwarded == 1
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.peers.processes import LOOPBACK

_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "proxy-connection", "content-length", "host"}


class Fault(Enum):
    """What happens to one request or one connection."""

    NONE = "forward it and give the answer back"
    DROP_BEFORE = "close the connection; nothing reaches the server"
    DROP_AFTER = "let the server do the work, then close without an answer"
    REPEAT = "send it to the server twice, give the second answer back"
    GARBAGE = "answer 200 with an HTML page; nothing reaches the server"
    TRUNCATE = "forward, then give half of the answer's bytes and close"


@dataclass(frozen=True)
class Delay:
    """Forward after this many seconds."""

    seconds: float


@dataclass(frozen=True)
class Status:
    """Answer with this HTTP status and an OperationOutcome; nothing reaches the server."""

    code: int
    retry_after: int | None = None


def status(code: int, retry_after: int | None = None) -> Status:
    return Status(code, retry_after)


Step = Fault | Delay | Status


@dataclass
class _Script:
    """The steps to come, and what was counted; shared by the proxy's threads."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    steps: deque[Step] = field(default_factory=deque)
    always: Step = Fault.NONE
    received: int = 0
    forwarded: int = 0
    done: list[Step] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def take(self) -> Step:
        with self.lock:
            self.received += 1
            step = self.steps.popleft() if self.steps else self.always
            self.done.append(step)
            return step

    def count_forward(self) -> None:
        with self.lock:
            self.forwarded += 1


class _Proxy:
    def __init__(self) -> None:
        self._script = _Script()

    def script(self, *steps: Step) -> None:
        """One step for each of the next requests (connections); afterwards `always` holds again."""
        with self._script.lock:
            self._script.steps = deque(steps)

    def always(self, step: Step) -> None:
        """What happens to every request (connection) without a scripted step; Fault.NONE to be honest again."""
        with self._script.lock:
            self._script.always = step

    @property
    def received(self) -> int:
        """Requests (connections) that came in."""
        return self._script.received

    @property
    def forwarded(self) -> int:
        """How often one was sent on to the server; a repeated one counts twice."""
        return self._script.forwarded

    @property
    def done(self) -> list[Step]:
        """What was done to each, oldest first."""
        return list(self._script.done)


class HttpFaultProxy(_Proxy):
    """`url` stands for the server's own; `requests` lists (method, path) of what came in."""

    def __init__(self, target: str) -> None:
        super().__init__()
        parts = urlsplit(target)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"Only plain http to loopback, not {target}")
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _handler(self._script, parts.hostname, parts.port or 80))
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://{LOOPBACK}:{self.port}{parts.path}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def requests(self) -> list[tuple[str, str]]:
        return list(self._script.requests)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(script: _Script, host: str, port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            with suppress(ConnectionError):
                super().handle_one_request()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _serve(self) -> None:
            body = self._body()
            step = script.take()
            with script.lock:
                script.requests.append((self.command, self.path))
            if isinstance(step, Delay):
                time.sleep(step.seconds)
            if isinstance(step, Status):
                self._refuse(step)
            elif step is Fault.DROP_BEFORE:
                self._drop()
            elif step is Fault.GARBAGE:
                self._answer(200, [("Content-Type", "text/html")], b"<html><body>Please sign in.</body></html>")
            else:
                try:
                    code, headers, answer = self._forward(body)
                    if step is Fault.REPEAT:
                        code, headers, answer = self._forward(body)
                except (OSError, http.client.HTTPException):
                    self._refuse(Status(502))
                    return
                if step is Fault.DROP_AFTER:
                    self._drop()
                elif step is Fault.TRUNCATE:
                    self._answer(code, headers, answer, cut=len(answer) // 2)
                else:
                    self._answer(code, headers, answer)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = _serve

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(chunks)

        def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            script.count_forward()
            connection = http.client.HTTPConnection(host, port, timeout=60)
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
                connection.request(self.command, self.path, body=body or None, headers=headers)
                answer = connection.getresponse()
                kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
                return answer.status, kept, answer.read()
            finally:
                connection.close()

        def _refuse(self, step: Status) -> None:
            text = http.client.responses.get(step.code, "error")
            outcome = (
                '{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"transient",'
                f'"diagnostics":"{text}"}}]}}'
            )
            headers = [("Content-Type", "application/fhir+json")]
            if step.retry_after is not None:
                headers.append(("Retry-After", str(step.retry_after)))
            self._answer(step.code, headers, outcome.encode())

        def _answer(self, code: int, headers: list[tuple[str, str]], body: bytes, cut: int | None = None) -> None:
            self.send_response_only(code)
            for name, value in headers:
                self.send_header(name, value)
            if code not in (204, 304):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if cut is None else body[:cut])
            if cut is not None:
                self._drop()

        def _drop(self) -> None:
            self.close_connection = True
            self.wfile.flush()
            _reset(self.connection)

    return Handler


class TcpFaultProxy(_Proxy):
    """In front of a TCP port; a step holds for one connection.

    DROP_BEFORE closes at once; DROP_AFTER closes when the server has sent its first bytes, which never arrive;
    TRUNCATE cuts the connection after `cut_after` bytes from the client, in the middle of what it sends.
    """

    def __init__(self, target_port: int, *, cut_after: int = 100_000) -> None:
        super().__init__()
        self._target = target_port
        self.cut_after = cut_after
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(client,), daemon=True).start()

    def _connection(self, client: socket.socket) -> None:
        step = self._script.take()
        if isinstance(step, Delay):
            time.sleep(step.seconds)
        if step is Fault.DROP_BEFORE:
            _reset(client)
            return
        if isinstance(step, Status) or step in (Fault.REPEAT, Fault.GARBAGE):
            _reset(client)
            raise ValueError(f"{step} has no meaning for a TCP connection")
        try:
            server = socket.create_connection((LOOPBACK, self._target), timeout=10)
        except OSError:
            _reset(client)
            return
        server.settimeout(None)
        self._script.count_forward()
        upward = threading.Thread(target=_pump, args=(client, server), daemon=True)
        if step is Fault.TRUNCATE:
            upward = threading.Thread(target=_pump, args=(client, server, self.cut_after), daemon=True)
        upward.start()
        _pump(server, client, 0 if step is Fault.DROP_AFTER else None)
        upward.join(60)
        client.close()
        server.close()

    def close(self) -> None:
        # Closing alone leaves accept() waiting; shutdown wakes it.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _pump(source: socket.socket, sink: socket.socket, limit: int | None = None) -> None:
    """Copy until the source ends, or reset both ends when more than limit bytes came."""
    passed = 0
    with suppress(OSError):
        while data := source.recv(65536):
            passed += len(data)
            if limit is not None and passed > limit:
                _reset(sink)
                _reset(source)
                return
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket) -> None:
    """Close with a TCP reset, as a crashed peer does."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
    connection.close()


@contextmanager
def http_fault_proxy(target: str) -> Iterator[HttpFaultProxy]:
    """A proxy in front of an http URL; its path is kept."""
    proxy = HttpFaultProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()


@contextmanager
def tcp_fault_proxy(target_port: int, *, cut_after: int = 100_000) -> Iterator[TcpFaultProxy]:
    """A proxy in front of a loopback TCP port."""
    proxy = TcpFaultProxy(target_port, cut_after=cut_after)
    try:
        yield proxy
    finally:
        proxy.close()
