"""What every measurement is given, and the service and the sender as it uses them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from benchmarks.sample_files import SampleImages
from benchmarks.sizes import Size
from dermoscopy.database import create_database_engine
from dermoscopy.settings import Settings
from dicom_listener.camera import sending
from tests.peers.processes import LOOPBACK, MissingPeer, program
from tests.service import RunningService, running_service

AE_TITLE = "DERMCDS"
NO_DELAY = ("/usr/bin/env", "TCP_NODELAY=1")
"""Put before a program of dcmtk: without it Debian's build waits for the 40 ms of a delayed acknowledgement (RFC 896),
twice for each small object, whoever is at the other end."""
WAIT_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Setting:
    """Sizes, images, the folder for files of this run, and where to say what is being done."""

    size: Size
    images: SampleImages
    folder: Path
    settings: Settings
    tell: Callable[[str], None]

    @contextmanager
    def fresh_folder(self) -> Iterator[Path]:
        """An empty folder that is gone afterwards."""
        path = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def service(self, folder: Path, **more: object) -> Iterator[RunningService]:
        """The real service as it is deployed, with the model of this run; ready when the block begins."""
        values: dict[str, object] = {"models_dir": self.settings.models_dir, "model": self.settings.model, **more}
        with running_service(folder, **values) as service:
            yield service


def database_of(service: RunningService) -> sa.Engine:
    """The service's database, to count in without asking its API."""
    url = service.environment.get("CDS_DATABASE_URL")
    return create_database_engine(url or f"sqlite:///{service.folder / 'data' / 'cds.sqlite3'}")


def send(port: int, called: str, files: Sequence[Path], *, compressed: bool = False, associations: int = 1) -> None:
    """C-STORE ``files`` over so many associations at once, each by a storescu process of dcmtk.

    Raises `MissingPeer` without dcmtk and `RuntimeError` when a sender says that an object was not taken.
    """
    command = [*NO_DELAY, program("storescu", package="dcmtk"), "-R", "--max-pdu", "131072"]
    command += [*(["-xy"] if compressed else []), "-aec", called, "-aet", "BENCH", LOOPBACK, str(port)]
    senders = [
        subprocess.Popen(
            [*command, *map(str, files[number::associations])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for number in range(associations)
    ]
    try:
        for sender in senders:
            _, complaint = sender.communicate(timeout=WAIT_SECONDS)
            if sender.returncode:
                raise RuntimeError(f"storescu ended with {sender.returncode}: {complaint.decode(errors='replace')}")
    finally:
        for sender in senders:
            if sender.poll() is None:
                sender.kill()
                sender.wait()


def send_one_by_one(port: int, called: str, files: Sequence[Path], *, compressed: bool, at_once: int) -> None:
    """C-STORE each of ``files`` over an association and by a storescu process of its own, so many at once.

    Raises as `send`.
    """
    names = "\0".join(str(file) for file in files)
    command = ["xargs", "-0", "-P", str(at_once), "-n", "1", *NO_DELAY, program("storescu", package="dcmtk")]
    command += ["-R", *(["-xy"] if compressed else []), "--max-pdu", "131072"]
    command += ["-aec", called, "-aet", "BENCH", LOOPBACK, str(port)]
    done = subprocess.run(command, input=names.encode(), capture_output=True, timeout=WAIT_SECONDS)
    if done.returncode:
        raise RuntimeError(f"storescu ended with {done.returncode}: {done.stderr.decode(errors='replace')}")


def send_all(service: RunningService, files: Sequence[Path]) -> None:
    """C-STORE ``files`` to the service: by dcmtk where it is installed, else by a sender of our own."""
    try:
        send(service.dicom_port, AE_TITLE, files)
    except MissingPeer:
        with sending(LOOPBACK, service.dicom_port, called_ae=AE_TITLE, calling_ae="BENCH") as store:
            for file in files:
                store(file.read_bytes())


def await_analyses(service: RunningService, count: int) -> None:
    """Return once ``count`` analyses are complete. Raises `RuntimeError` if one failed or time is over."""
    states = sa.text("SELECT state, count(*) AS number FROM analysis GROUP BY state")
    engine = database_of(service)
    deadline = time.monotonic() + WAIT_SECONDS
    try:
        while True:
            with engine.connect() as connection:
                found = {str(row.state): int(row.number) for row in connection.execute(states)}
            if found.get("failed"):
                raise RuntimeError(f"{found['failed']} analyses failed: see the service's log in {service.folder}")
            if found.get("complete", 0) >= count:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"not {count} analyses within {WAIT_SECONDS:.0f} s, but {found}")
            time.sleep(0.05)
    finally:
        engine.dispose()
