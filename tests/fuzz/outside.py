"""Objects and PDUs thrown at a listener process over real connections, by several senders at once."""

from __future__ import annotations

import json
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN
from tests.fuzz.objects import mutated
from tests.fuzz.pdus import (
    ABORT,
    ASSOCIATE_AC,
    P_DATA,
    Pdu,
    command,
    context,
    conversation,
    request,
    store_command,
    value,
)
from tests.unit.dicom_listener.samples import dataset, encoded, picture

HOST = "127.0.0.1"
HANG_SECONDS = 30.0
SENDERS = 6
_PAUSE = 0.3
"""How long a broken sender waits for an answer that may not come (seconds)."""
_TRACES = ("Traceback", "exception", "uncaught", "store.failed")


class ListenerProcess:
    """A running `tests.fuzz.listener`."""

    def __init__(self, folder: Path, *settings: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "listener.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.listener", str(folder), *settings],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.port = int(self._answer()["port"])
        self._lock = threading.Lock()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the listener process ended: {self.log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def state(self) -> dict[str, int]:
        """Open associations, file descriptors, threads, resident bytes."""
        assert self.process.stdin is not None
        with self._lock:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            return self._answer()

    def stop(self) -> dict[str, Any]:
        """Stop it; what it found half stored."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            return self._answer()
        finally:
            self.process.wait(60)
            if self.process.stdout is not None:
                self.process.stdout.close()

    def errors(self) -> list[str]:
        """Log lines that tell of an error that nobody had foreseen."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line[:1500] for line in lines if any(trace in line for trace in _TRACES)]


@contextmanager
def listening(folder: Path, *settings: str) -> Iterator[ListenerProcess]:
    """A listener process, killed at the end if it has not been stopped."""
    listener = ListenerProcess(folder, *settings)
    try:
        yield listener
    finally:
        if listener.process.poll() is None:
            listener.process.kill()
            listener.process.wait()
            for pipe in (listener.process.stdin, listener.process.stdout):
                if pipe is not None:
                    pipe.close()


class Wire:
    """One connection that says what it is told; reads answers as PDUs."""

    def __init__(self, port: int, seconds: float = HANG_SECONDS) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> bool:
        """Whether the peer still took it."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def pdu(self) -> Pdu | None:
        """The next PDU, or nothing at the end of the connection. Raises `TimeoutError`: the peer hangs."""
        head = self._exactly(6)
        if len(head) < 6:
            return None
        return Pdu(head[0], self._exactly(int.from_bytes(head[2:6], "big")))

    def poll(self, seconds: float) -> Pdu | None:
        """The next PDU if it begins within ``seconds``."""
        ready, _, _ = select.select([self.socket], [], [], seconds)
        return self.pdu() if ready else None

    def _exactly(self, count: int) -> bytes:
        data = b""
        try:
            while len(data) < count and (more := self.socket.recv(count - len(data))):
                data += more
        except ConnectionResetError:
            pass
        return data

    def close(self, *, reset: bool = False) -> None:
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def send_object(port: int, data: bytes, syntax: str, sop_class: str, instance: str) -> str:
    """One C-STORE on an association of its own: its status, or how the association ended."""
    wire = Wire(port)
    try:
        wire.send(request(context(1, DERMOSCOPIC_PHOTOGRAPHY, syntax)).encoded())
        answer = wire.pdu()
        if answer is None or answer.kind != ASSOCIATE_AC:
            return "not associated" if answer is None else f"PDU {answer.kind}"
        told = store_command()
        told[0x0002], told[0x1000] = _even(sop_class), _even(instance)
        wire.send(Pdu(P_DATA, value(3, command(told))).encoded())
        pieces = [data[at : at + 16000] for at in range(0, len(data), 16000)] or [b""]
        for number, piece in enumerate(pieces):
            wire.send(Pdu(P_DATA, value(2 if number == len(pieces) - 1 else 0, piece)).encoded())
        answer = wire.pdu()
        if answer is None:
            return "closed"
        if answer.kind == ABORT:
            return "aborted"
        status = _status(answer.body)
        wire.send(Pdu(5, bytes(4)).encoded())
        released = wire.pdu()
        return status if released is not None and released.kind == 6 else f"{status} and no release"
    finally:
        wire.close()


def _status(body: bytes) -> str:
    at = body.find(struct.pack("<HHI", 0, 0x900, 2))
    return f"{int.from_bytes(body[at + 8 : at + 10], 'little'):04X}" if at >= 0 else "no status"


def _even(text: str) -> bytes:
    value = text.encode("latin-1", "replace")[:64]
    return value + b"\0" * (len(value) % 2)


def good_object(number: int) -> tuple[bytes, str]:
    """A sound object that has not been sent before, and its UID."""
    uid = f"2.25.{10**30 + number}"
    return encoded(dataset(picture(32, 40), SOPInstanceUID=uid, PatientID="GOOD")), uid


def hold_conversation(port: int, seed: int) -> str:
    """One broken conversation: which PDUs came back, and that the listener let go of the connection in time."""
    what = conversation(seed)
    wire = Wire(port)
    try:
        heard = []
        for piece, waits in zip(what.pieces, what.waits, strict=True):
            if not wire.send(piece):
                break
            if waits and (said := wire.poll(_PAUSE)) is not None:
                heard.append(said.kind)
        if what.ending != "half-close":
            wire.close(reset=what.ending == "reset")
            return what.ending
        try:
            wire.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        while (answer := wire.pdu()) is not None and len(heard) < 100:
            heard.append(answer.kind)
        return "heard " + ("".join(str(kind) for kind in sorted(set(heard))) or "nothing")
    finally:
        wire.close()


def throw_object(port: int, seed: int) -> str:
    """One mutated object over an association: every outcome is a status or an abort."""
    what = mutated(seed)
    return send_object(port, what.data, what.syntax, what.sop_class_uid, what.sop_instance_uid)


def throw(
    listener: ListenerProcess,
    one: Callable[[int, int], str],
    first: int,
    count: int,
    *,
    senders: int = SENDERS,
    check_every: int = 500,
    progress: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Throw ``count`` of something at ``listener``; after each batch it must be whole, idle, and take a good object."""
    outcomes: Counter[str] = Counter()
    wrong: list[str] = []
    memory: list[int] = []
    slowest = 0.0
    lock = threading.Lock()
    before: dict[str, int] = {}

    def work(seeds: Iterator[int]) -> None:
        nonlocal slowest
        while True:
            with lock:
                seed = next(seeds, None)
            if seed is None:
                return
            began = time.monotonic()
            try:
                outcome = one(listener.port, seed)
            except TimeoutError:
                outcome = "HANG"
            except OSError as error:
                outcome = type(error).__name__
            with lock:
                outcomes[outcome] += 1
                slowest = max(slowest, time.monotonic() - began)
                if outcome in ("HANG", "C211", "no status", "not associated", "ConnectionRefusedError"):
                    wrong.append(f"seed {seed}: {outcome}")

    for start in range(first, first + count, check_every):
        seeds = iter(range(start, min(start + check_every, first + count)))
        threads = [threading.Thread(target=work, args=(seeds,)) for _ in range(senders)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        state = _idle(listener, wrong)
        before = before or state  # the first batch fills the pools of the database
        memory.append(state["rss"])
        data, uid = good_object(start)
        if (good := send_object(listener.port, data, EXPLICIT_LITTLE_ENDIAN, DERMOSCOPIC_PHOTOGRAPHY, uid)) != "0000":
            wrong.append(f"after seed {start + check_every} a good object was answered with {good}")
        progress({"done": min(start + check_every, first + count) - first, "wrong": len(wrong), **state})
        if listener.process.poll() is not None:
            wrong.append(f"the listener process ended before seed {start + check_every}")
            break
    after = _idle(listener, wrong)
    if after["fds"] > before["fds"] + 12 or after["threads"] > before["threads"] + 2:
        wrong.append(f"file descriptors or threads grew from {before} to {after}")
    return {
        "count": count,
        "outcomes": dict(sorted(outcomes.items())),
        "slowest": round(slowest, 2),
        "memory": memory,
        "wrong": wrong,
    }


def _idle(listener: ListenerProcess, wrong: list[str]) -> dict[str, int]:
    """The state once no association is open any more; within 30 seconds."""
    deadline = time.monotonic() + HANG_SECONDS
    while (state := listener.state())["associations"] and time.monotonic() < deadline:
        time.sleep(0.02)
    if state["associations"]:
        wrong.append(f"{state['associations']} associations are still open")
    return state
