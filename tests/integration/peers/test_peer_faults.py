"""The fault proxies do what their script says, and count it."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from tests.peers.dcmtk import StoreScp, echoscu, storescu
from tests.peers.example_dicom import dermoscopic_photograph, lesion_image
from tests.peers.fault_proxy import Delay, Fault, HttpFaultProxy, status, tcp_fault_proxy
from tests.peers.fhir_server import FhirServer

pytestmark = pytest.mark.peers

PATIENT = {"resourceType": "Patient", "identifier": [{"system": "urn:x", "value": "1"}]}


def create(proxy: HttpFaultProxy) -> httpx.Response:
    return httpx.post(f"{proxy.url}/Patient", json=PATIENT, trust_env=False)


@pytest.mark.parametrize(
    ("fault", "stored"), [(Fault.DROP_BEFORE, 0), (Fault.DROP_AFTER, 1), (Fault.TRUNCATE, 1)], ids=lambda it: str(it)
)
def test_dropped_answer(ehr: FhirServer, ehr_proxy: HttpFaultProxy, fault: Fault, stored: int) -> None:
    ehr_proxy.script(fault)
    with pytest.raises(httpx.TransportError):
        create(ehr_proxy)
    assert len(ehr.search("Patient")) == stored
    assert (ehr_proxy.received, ehr_proxy.forwarded) == (1, stored)


def test_repeated_refused_and_garbled(ehr: FhirServer, ehr_proxy: HttpFaultProxy) -> None:
    ehr_proxy.script(Fault.REPEAT, status(503, retry_after=2), status(429), Fault.GARBAGE, Delay(0.3))
    assert create(ehr_proxy).status_code == 201
    assert len(ehr.search("Patient")) == 2
    refused = create(ehr_proxy)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert refused.json()["resourceType"] == "OperationOutcome"
    assert create(ehr_proxy).status_code == 429
    assert create(ehr_proxy).headers["content-type"] == "text/html"
    started = time.monotonic()
    assert create(ehr_proxy).status_code == 201
    assert time.monotonic() - started >= 0.3
    assert create(ehr_proxy).status_code == 201  # the script is over
    assert (ehr_proxy.received, ehr_proxy.forwarded, len(ehr.search("Patient"))) == (6, 4, 4)


def test_server_that_is_down_is_a_bad_gateway(ehr: FhirServer, ehr_proxy: HttpFaultProxy) -> None:
    ehr.kill()
    assert create(ehr_proxy).status_code == 502


def test_dicom_association_through_a_bad_line(dcmtk_receiver: StoreScp, tmp_path: Path) -> None:
    pixels, _ = lesion_image()
    image = tmp_path / "image.dcm"
    dermoscopic_photograph(pixels).save_as(image, enforce_file_format=True)
    with tcp_fault_proxy(dcmtk_receiver.port, cut_after=50_000) as proxy:
        proxy.script(Fault.DROP_BEFORE, Fault.DROP_AFTER, Fault.TRUNCATE)
        called = dcmtk_receiver.aet
        assert not echoscu(proxy.port, called=called).ok
        assert not echoscu(proxy.port, called=called).ok
        assert not storescu(proxy.port, [image], called=called).ok
        assert storescu(proxy.port, [image], called=called).ok
        assert (proxy.received, proxy.forwarded) == (4, 3)
    assert len(dcmtk_receiver.files()) == 1
