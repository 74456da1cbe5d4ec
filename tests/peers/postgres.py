"""A real PostgreSQL cluster in a temporary folder, with a fresh database for each test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from tests.peers.processes import LOOPBACK, MissingPeer, free_port, program

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True)
_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "listen_addresses": LOOPBACK,
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_min_duration_statement": "-1",
}


class Postgres:
    """A running cluster. `url` names its first database; `database()` makes another one quickly."""

    def __init__(self, port: int, data: Path) -> None:
        self.port = port
        self.data = data
        self.url = self.url_of("postgres")

    def url_of(self, name: str) -> str:
        """SQLAlchemy URL of a database of this cluster."""
        return f"postgresql+psycopg://postgres@{LOOPBACK}:{self.port}/{name}"

    def create(self) -> str:
        """A new, empty database; its SQLAlchemy URL."""
        name = f"test_{uuid.uuid4().hex}"
        self._run(f'CREATE DATABASE "{name}"')
        return self.url_of(name)

    def drop(self, url: str) -> None:
        """Remove a database that create() made, with whatever is still connected to it."""
        name = url.rsplit("/", 1)[1]
        self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    @contextmanager
    def database(self) -> Iterator[str]:
        """A new database that goes away afterwards."""
        url = self.create()
        try:
            yield url
        finally:
            self.drop(url)

    def _run(self, statement: str) -> None:
        address = f"postgresql://postgres@{LOOPBACK}:{self.port}/postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement.encode())

    def stop(self, mode: str = "fast") -> None:
        """mode "immediate" is a crash: the next start() recovers from the write-ahead log."""
        _postgres_program("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def start(self) -> None:
        options = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
        options += f" -c port={self.port} -c unix_socket_directories={self.data}"
        log = str(self.data / "server.log")
        _postgres_program("pg_ctl", "-D", str(self.data), "-w", "-t", "60", "-l", log, "-o", options, "start")


def _postgres_program(name: str, *arguments: str) -> None:
    """Run a program of the newest installed PostgreSQL; as root through the user postgres, which it insists on."""
    command = [str(_BINARIES[0] / name), *arguments]
    if os.geteuid() == 0:
        command = [program("runuser", package="util-linux"), "-u", "postgres", "--", *command]
    # A file, not a pipe: the server would inherit the pipe and hold it open.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, cwd="/", timeout=120, check=False)
        if done.returncode:
            output.seek(0)
            raise RuntimeError(f"{name} ended with {done.returncode}: {output.read().decode(errors='replace')[-2000:]}")


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A cluster on a free loopback port, removed afterwards. Writes are flushed to disk as in production."""
    if not _BINARIES:
        raise MissingPeer("PostgreSQL is not installed (Debian package postgresql; see tests/peers/apt-packages.txt)")
    # Not below pytest's folder, which the user postgres may not enter.
    folder = Path(tempfile.mkdtemp(prefix="test-postgres-"))
    data = folder / "data"
    try:
        folder.chmod(0o755)
        data.mkdir()
        if os.geteuid() == 0:
            shutil.chown(data, "postgres", "postgres")
        _postgres_program("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        cluster = Postgres(free_port(), data)
        cluster.start()
        try:
            yield cluster
        finally:
            with suppress(RuntimeError):
                cluster.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
