"""Everything that takes C-STORE in the ingest measurement: ours, and the peers, each as its makers would tune it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from benchmarks.setting import AE_TITLE, NO_DELAY, Setting, database_of
from benchmarks.stored import instances
from tests.peers.processes import LOOPBACK, Service, free_port, listening, program


@dataclass(frozen=True, slots=True)
class Receiver:
    """A running receiver; ``count`` says how many objects it holds."""

    port: int
    ae_title: str
    count: Callable[[], int]


PDU = ("--max-pdu", "131072")
Opener = Callable[[Setting, Path], AbstractContextManager[Receiver]]
"""Starts a receiver with an empty store in a folder. Raises `MissingPeer`."""


@contextmanager
def ours(setting: Setting, folder: Path, *, workers: int, listeners: int = 1) -> Iterator[Receiver]:
    """`cds serve`: fsync, database commit, audit leaf and durable start of the work before each answer."""
    with setting.service(folder, worker_processes=workers, dicom_processes=listeners) as service:
        engine = database_of(service)

        try:
            yield Receiver(service.dicom_port, AE_TITLE, partial(instances, engine))
        finally:
            engine.dispose()
            service.service.kill()  # what it has not analysed yet is of no interest here


@contextmanager
def storescp(
    _setting: Setting, folder: Path, *, options: tuple[str, ...] = (), before: tuple[str, ...] = ()
) -> Iterator[Receiver]:
    """dcmtk's receiver: a C program that writes files and keeps nothing else."""
    store = folder / "received"
    store.mkdir(parents=True)
    port = free_port()
    accept = ("--promiscuous", "--accept-all", "-aet", "STORESCP", "-od", str(store))
    command = [*before, program("storescp", package="dcmtk"), *accept, *PDU, *options, str(port)]
    with _running(Service(command, log=folder / "storescp.log", ready=lambda: listening(port))):
        yield Receiver(port, "STORESCP", lambda: _files(store))


@contextmanager
def orthanc(_setting: Setting, folder: Path, *, before: tuple[str, ...] = ()) -> Iterator[Receiver]:
    """An Orthanc with no plugin, its own storage and index, the largest PDU and threads to spare."""
    store = folder / "storage"
    port, http_port = free_port(), free_port()
    configuration = folder / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "StorageDirectory": str(store),
                "IndexDirectory": str(store),
                "DicomAet": "ORTHANC",
                "DicomPort": port,
                "HttpPort": http_port,
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "DicomAlwaysAllowStore": True,
                "AcceptedTransferSyntaxes": ["1.2.840.10008.1.*"],
                "UnknownSopClassAccepted": True,
                "MaximumPduLength": 131072,
                "DicomThreadsCount": 8,
                "HttpThreadsCount": 4,
                "ConcurrentJobs": 4,
                "StableAge": 3600,
            }
        )
    )
    url = f"http://{LOOPBACK}:{http_port}"
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:

        def ready() -> bool:
            try:
                return client.get("/system").is_success and listening(port)
            except httpx.TransportError:
                return False

        command = [*before, program("Orthanc", package="orthanc"), str(configuration)]
        with _running(Service(command, log=folder / "orthanc.log", ready=ready)):
            yield Receiver(port, "ORTHANC", lambda: int(client.get("/statistics").json()["CountInstances"]))


@contextmanager
def plain_pynetdicom(_setting: Setting, folder: Path) -> Iterator[Receiver]:
    """What most Python services are built on, doing nothing but writing files."""
    store = folder / "received"
    store.mkdir(parents=True)
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("plain_receiver.py")), str(store), str(port)]
    with _running(Service(command, log=folder / "plain.log", ready=lambda: listening(port))):
        yield Receiver(port, "PLAIN", lambda: _files(store))


OURS = "ours, analysis elsewhere"
SLOW = ("dcmtk storescp, PDU 131072", "Orthanc, PDU 131072")
"""As Debian ships them they wait for delayed acknowledgements, whatever their PDU."""
OPENERS: Mapping[str, Opener] = {
    OURS: partial(ours, workers=0),
    "ours, two listener processes": partial(ours, workers=0, listeners=2),
    "ours, analysing meanwhile": partial(ours, workers=1),
    SLOW[0]: storescp,
    f"{SLOW[0]}, no delay": partial(storescp, before=NO_DELAY),
    f"{SLOW[0]}, no delay, --fork": partial(storescp, options=("--fork",), before=NO_DELAY),
    SLOW[1]: orthanc,
    f"{SLOW[1]}, no delay": partial(orthanc, before=NO_DELAY),
    "pynetdicom, PDU 131072, no fsync": plain_pynetdicom,
}


@contextmanager
def _running(service: Service) -> Iterator[None]:
    service.start()
    try:
        yield
    finally:
        service.kill()


def _files(folder: Path) -> int:
    return sum(1 for path in folder.iterdir() if path.is_file())
