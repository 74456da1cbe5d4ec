"""dcmtk as a second PACS vendor: storescu, echoscu, storescp, img2dcm, dcmdump."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers.processes import LOOPBACK, Service, free_port, listening, program

PACKAGE = "dcmtk"


@dataclass(frozen=True)
class Outcome:
    """How one call of a dcmtk program ended; `output` holds its stdout and stderr."""

    returncode: int
    output: str

    @property
    def ok(self) -> bool:
        return self.returncode == 0


def _run(name: str, *arguments: str, seconds: float = 120) -> Outcome:
    done = subprocess.run(
        [program(name, package=PACKAGE), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=seconds,
        check=False,
    )
    return Outcome(done.returncode, done.stdout.decode(errors="replace"))


def echoscu(port: int, *, called: str, calling: str = "ECHOSCU") -> Outcome:
    """C-ECHO."""
    return _run("echoscu", "-aec", called, "-aet", calling, LOOPBACK, str(port), seconds=30)


def storescu(
    port: int,
    files: Sequence[Path],
    *,
    called: str,
    calling: str = "STORESCU",
    propose: str = "-R",
    options: Sequence[str] = (),
) -> Outcome:
    """C-STORE files over one association.

    propose: "-R" (only what the files need; without it no Dermoscopic context is offered). For compressed files say
    the syntax in options: "-xy" JPEG baseline, "-xx" extended, "-xs" lossless JPEG, "-xv" JPEG 2000 lossless,
    "-xw" JPEG 2000 lossy, "-xt" JPEG-LS, "-xr" RLE, "-xd" deflated. "-v" or "-d" in options give status codes.
    """
    chosen = [propose] if propose else []
    names = [str(file) for file in files]
    return _run(
        "storescu", "-v", *chosen, *options, "--max-pdu", "131072", "-aec", called, "-aet", calling, LOOPBACK,
        str(port), *names,
    )  # fmt: skip


@dataclass(frozen=True)
class StoreScp:
    """A running storescp: its port, AE title and the folder that it writes to."""

    port: int
    aet: str
    folder: Path
    service: Service

    def files(self) -> list[Path]:
        """What was received, in the order of names."""
        return sorted(path for path in self.folder.iterdir() if path.is_file() and path.suffix != ".part")


@contextmanager
def storescp(
    folder: Path | None = None,
    *,
    aet: str = "STORESCP",
    port: int | None = None,
    pdu: int = 131072,
    options: Sequence[str] = (),
) -> Iterator[StoreScp]:
    """dcmtk's receiver, on a free port unless one is given; takes every SOP class and known transfer syntax.

    It writes bit for bit what it was sent.
    options: e.g. "--refuse", "--abort-after", "--sleep-during", "5" to misbehave.
    """
    with tempfile.TemporaryDirectory(prefix="test-storescp-") as temporary:
        received = folder or Path(temporary) / "received"
        received.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        service = Service(
            [
                program("storescp", package=PACKAGE), "-aet", aet, "-od", str(received), "--promiscuous", "+xa",
                "--bit-preserving", "--filename-extension", ".dcm", "--max-pdu", str(pdu), *options, str(port),
            ],
            log=Path(temporary) / "storescp.log",
            ready=lambda: listening(port),
        )  # fmt: skip
        service.start()
        try:
            yield StoreScp(port, aet, received, service)
        finally:
            service.stop()


def img2dcm(image: Path, target: Path, *, attributes: Sequence[str] = ()) -> Outcome:
    """Wrap a JPEG as VL Photographic Image; attributes as "PatientID=1" (dcmtk's -k)."""
    keys = [part for attribute in attributes for part in ("-k", attribute)]
    return _run("img2dcm", "--vl-photo", *keys, str(image), str(target), seconds=60)


def dcmdump(path: Path) -> str:
    """The object as dcmtk reads it."""
    return _run("dcmdump", "+L", str(path), seconds=60).output


def transcode(source: Path, target: Path, syntax: str) -> Outcome:
    """Compress with dcmtk: syntax "jpeg-baseline", "jpeg-lossless", "jpeg-ls" or "rle"."""
    programs = {
        "jpeg-baseline": ("dcmcjpeg", "+eb"),
        "jpeg-lossless": ("dcmcjpeg", "+e1"),
        "jpeg-ls": ("dcmcjpls", "+el"),
        "rle": ("dcmcrle",),
    }
    name, *options = programs[syntax]
    return _run(name, *options, str(source), str(target))
