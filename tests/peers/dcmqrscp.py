"""dcmtk's dcmqrscp: an archive of another maker that answers C-FIND, C-MOVE and C-GET."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers.dcmtk import PACKAGE
from tests.peers.orthanc import OurApplicationEntity
from tests.peers.processes import LOOPBACK, Service, free_port, listening, program

_CONFIGURATION = """
NetworkTCPPort = {port}
MaxPDUSize = 131072
MaxAssociations = 16
HostTable BEGIN
us = ({us_aet}, {host}, {us_port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{aet} {folder} RW (200, 512mb) ANY
AETable END
"""


@dataclass(frozen=True)
class QueryRetrieveScp:
    """A running dcmqrscp: its port and AE title; stop and start its process by ``service``."""

    port: int
    aet: str
    service: Service


@contextmanager
def dcmqrscp(us: OurApplicationEntity, *, aet: str = "QRSCP") -> Iterator[QueryRetrieveScp]:
    """An empty archive on a free port that sends to ``us`` when asked by C-MOVE; fill it by C-STORE."""
    with tempfile.TemporaryDirectory(prefix="test-dcmqrscp-") as temporary:
        folder = Path(temporary) / "archive"
        folder.mkdir()
        port = free_port()
        configuration = Path(temporary) / "dcmqrscp.cfg"
        configuration.write_text(
            _CONFIGURATION.format(port=port, us_aet=us.aet, host=LOOPBACK, us_port=us.port, aet=aet, folder=folder)
        )
        service = Service(
            [program("dcmqrscp", package=PACKAGE), "-c", str(configuration)],
            log=Path(temporary) / "dcmqrscp.log",
            ready=lambda: listening(port),
        )
        service.start()
        try:
            yield QueryRetrieveScp(port, aet, service)
        finally:
            service.stop()
