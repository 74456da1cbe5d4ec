"""Start and stop a program on this machine, and say plainly when it is not installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PEERS = Path(__file__).resolve().parent
LOOPBACK = "127.0.0.1"


class MissingPeer(Exception):
    """A program that a test needs is not installed here; the message says how to get it."""


def program(name: str, *, package: str) -> str:
    """Full path of a program, or MissingPeer naming the Debian package that holds it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        raise MissingPeer(f"{name} is not installed (Debian package {package}; see tests/peers/apt-packages.txt)")
    return found


def installed(path: Path) -> Path:
    """A path that `tests/peers/install.sh` makes, or MissingPeer."""
    if not path.exists():
        raise MissingPeer(f"{path.relative_to(PEERS)} is missing: run tests/peers/install.sh")
    return path


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    """Does something accept TCP connections on this loopback port?"""
    with suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False


def wait_until(ready: Callable[[], bool], what: str, *, seconds: float = 30, every: float = 0.05) -> None:
    """Poll until ready() holds; TimeoutError names what was awaited."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(every)


class Service:
    """A long-lived program: start, stop gently, kill hard, start again. Its output goes to one log file.

    The program gets a pipe as its standard input, which closes when this process dies: programs of
    our own (the node servers) end on it, so that nothing outlives a killed test run.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
        seconds: float = 30,
    ) -> None:
        self.command = list(command)
        self.log = log
        self._ready = ready
        self._environment = environment
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if self._environment is None else dict(self._environment),
                start_new_session=True,
            )
        try:
            wait_until(self._up, f"{Path(self.command[0]).name} to answer", seconds=self._seconds)
        except BaseException:
            self.kill()
            raise

    def _up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self.command[0]} ended with {self._process.returncode}:\n{tail}")
        return self._ready()

    def stop(self, *, seconds: float = 10) -> None:
        """Ask it to end (SIGTERM); kill it when it does not within the time."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """SIGKILL, as a power cut would: nothing is flushed."""
        if self._process is None:
            return
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                # The program leads its own session, so the group holds its children too.
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
        self._process = None
