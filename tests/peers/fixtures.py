"""pytest fixtures for the peers. Use with `pytest_plugins = ["tests.peers.fixtures"]` in the outermost conftest.

A peer that is not installed skips the test with the reason; with CDS_REQUIRE_PEERS=1 it fails it instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

from tests.peers.dcmtk import StoreScp, storescp
from tests.peers.fault_proxy import HttpFaultProxy, TcpFaultProxy, http_fault_proxy, tcp_fault_proxy
from tests.peers.fhir_server import FhirServer, fhir_server
from tests.peers.fhir_validators import r4_validators
from tests.peers.orthanc import Orthanc, OurApplicationEntity, orthanc
from tests.peers.postgres import Postgres, postgres
from tests.peers.processes import MissingPeer, free_port

Peer = TypeVar("Peer")


def entered(stack: ExitStack, peer: AbstractContextManager[Peer]) -> Peer:
    """Start a peer; skip the test, or fail it where peers are required, when its program is not here."""
    try:
        return stack.enter_context(peer)
    except MissingPeer as missing:
        unavailable(missing)


def unavailable(missing: MissingPeer) -> NoReturn:
    if os.environ.get("CDS_REQUIRE_PEERS") == "1":
        pytest.fail(f"CDS_REQUIRE_PEERS=1, but {missing}", pytrace=False)
    pytest.skip(str(missing))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that calls a peer's function directly is skipped (or failed) for a missing program all the same."""
    try:
        return (yield)
    except MissingPeer as missing:
        unavailable(missing)


@pytest.fixture
def our_ae() -> OurApplicationEntity:
    """Our application entity as the PACS knows it, on a port that is free: start our listener there."""
    return OurApplicationEntity(aet="DERMCDS", port=free_port())


@pytest.fixture
def start_orthanc(tmp_path: Path) -> Iterator[Callable[..., Orthanc]]:
    """A function that starts an Orthanc with the arguments of `tests.peers.orthanc.orthanc`."""
    with ExitStack() as stack:

        def start(**options: Any) -> Orthanc:
            folder = tmp_path / f"orthanc-{free_port()}"
            folder.mkdir()
            return entered(stack, orthanc(folder, **options))

        yield start


@pytest.fixture
def pacs(start_orthanc: Callable[..., Orthanc], our_ae: OurApplicationEntity) -> Orthanc:
    """An Orthanc that knows us and routes nothing by itself."""
    return start_orthanc(us=our_ae)


@pytest.fixture
def routing_pacs(start_orthanc: Callable[..., Orthanc], our_ae: OurApplicationEntity) -> Orthanc:
    """An Orthanc that sends every instance it receives by DICOM on to us, except those that we sent."""
    return start_orthanc(us=our_ae, auto_route=True)


@pytest.fixture
def dcmtk_receiver(tmp_path: Path) -> Iterator[StoreScp]:
    """dcmtk's storescp: a PACS of another maker."""
    with ExitStack() as stack:
        yield entered(stack, storescp(tmp_path / "storescp"))


@pytest.fixture(scope="session")
def ehr_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FhirServer]:
    """The one FHIR server process that `ehr` gives to test after test."""
    with ExitStack() as stack:
        yield entered(stack, fhir_server(tmp_path_factory.mktemp("fhir-server")))


@pytest.fixture
def ehr(ehr_of_the_run: FhirServer) -> FhirServer:
    """An empty FHIR R4 server, which a test may kill and start as it likes."""
    ehr_of_the_run.forget_everything()
    return ehr_of_the_run


@pytest.fixture
def ehr_proxy(ehr: FhirServer) -> Iterator[HttpFaultProxy]:
    """A proxy in front of `ehr` that misbehaves as scripted."""
    with http_fault_proxy(ehr.url) as proxy:
        yield proxy


@pytest.fixture
def pacs_proxy(pacs: Orthanc) -> Iterator[TcpFaultProxy]:
    """A proxy in front of the DICOM port of `pacs` that misbehaves as scripted."""
    with tcp_fault_proxy(pacs.dicom_port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def validate_r4() -> Iterator[Callable[[dict[str, Any]], list[str]]]:
    """A function that lists what is wrong with a resource, by three validators; an empty list is a valid one."""
    with ExitStack() as stack:
        yield entered(stack, r4_validators()).validate_r4


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Postgres]:
    """One PostgreSQL cluster for the whole run."""
    with ExitStack() as stack:
        yield entered(stack, postgres())


@pytest.fixture
def postgres_url(postgres_cluster: Postgres) -> Iterator[str]:
    """SQLAlchemy URL of a fresh PostgreSQL database."""
    with postgres_cluster.database() as url:
        yield url
