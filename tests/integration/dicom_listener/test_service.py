"""The whole service with two listener processes on one port, TLS, admission and rules, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context

from dermoscopy.phantoms import phantom
from dicom_listener.commitment import COMMITMENT_CLASS, COMMITMENT_INSTANCE
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN
from tests.integration.dicom_listener.test_commitment import Requester
from tests.peers.dcmtk import storescp
from tests.peers.processes import wait_until
from tests.service import RunningService, running_service
from tests.unit.dicom_listener.certificates import Authority
from tests.unit.dicom_listener.samples import dataset

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]
HOST = "127.0.0.1"


def send(service: RunningService, context: ssl.SSLContext, numbers: range, **values) -> list[int]:
    """One association with one image per number; the statuses."""
    sender = AE("CAMERA")
    sender.acse_timeout = sender.dimse_timeout = sender.network_timeout = 60
    contexts = [build_context(DERMOSCOPIC_PHOTOGRAPHY, [EXPLICIT_LITTLE_ENDIAN])]
    association = sender.associate(
        HOST, service.dicom_port, contexts=contexts, ae_title="DERMCDS", tls_args=(context, HOST)
    )
    assert association.is_established
    pixels = phantom(7, kind="nevus", rows=192, columns=192).pixels
    answers = [association.send_c_store(dataset(pixels, SOPInstanceUID=f"2.25.{n}", **values)) for n in numbers]
    association.release()
    return [answer.Status for answer in answers]


@contextmanager
def reporting() -> Iterator[Requester]:
    """A camera that takes storage commitment reports."""
    made = Requester()
    made.start()
    try:
        yield made
    finally:
        made.stop()


def ask_for_commitment(service: RunningService, context: ssl.SSLContext, uids: list[str]) -> None:
    """Ask to be told later that these objects are safe."""
    asked = Dataset()
    asked.TransactionUID = "2.25.4711"
    asked.ReferencedSOPSequence = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = DERMOSCOPIC_PHOTOGRAPHY, uid
        asked.ReferencedSOPSequence.append(item)
    sender = AE("CAMERA")
    contexts = [build_context(COMMITMENT_CLASS)]
    association = sender.associate(
        HOST, service.dicom_port, contexts=contexts, ae_title="DERMCDS", tls_args=(context, HOST)
    )
    answer, _ = association.send_n_action(asked, 1, COMMITMENT_CLASS, COMMITMENT_INSTANCE)
    association.release()
    assert answer.Status == 0


def listeners(folder: Path) -> list[int]:
    """Ports of the listener processes that say in the log that they have started."""
    lines = [line for line in (folder / "service.log").read_text().splitlines() if '"listener.started"' in line]
    return [json.loads(line)["port"] for line in lines]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_listeners_share_a_port_behind_tls(request, tmp_path: Path, database):
    settings: dict[str, object] = {}
    if database == "postgresql":
        settings["database_url"] = request.getfixturevalue("postgres_url")
    authority = Authority(tmp_path)
    ours, theirs = authority.issue("listener"), authority.issue("camera")
    context = ssl.create_default_context(cafile=str(authority.path))
    context.load_cert_chain(theirs.certificate, theirs.key)
    with (
        reporting() as camera,
        storescp(tmp_path / "clinic") as clinic,
        storescp(tmp_path / "archive") as archive,
        running_service(
            tmp_path,
            dicom_processes=2,
            dicom_peers=[{"ae_title": "CAMERA", "addresses": [HOST], "report_port": camera.port}],
            dicom_tls_certificate=ours.certificate,
            dicom_tls_key=ours.key,
            dicom_tls_ca=authority.path,
            pacs=[
                {"name": "clinic", "host": HOST, "port": clinic.port, "ae_title": clinic.aet},
                {"name": "archive", "host": HOST, "port": archive.port, "ae_title": archive.aet},
            ],
            rules=[
                {"name": "overviews", "description": "/overview/", "action": "store"},
                {"name": "images", "modality": "DMS", "outputs": ["sr"], "destinations": ["clinic"]},
                {"name": "rest", "action": "refuse"},
            ],
            **settings,
        ) as service,
    ):
        wait_until(lambda: listeners(tmp_path) == [service.dicom_port] * 2, "two listeners", seconds=60)
        outcome: dict[int, list[int]] = {}

        def run(first: int) -> None:
            outcome[first] = send(service, context, range(first, first + 2))

        threads = [threading.Thread(target=run, args=(first,)) for first in (10, 20, 30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcome == {10: [0, 0], 20: [0, 0], 30: [0, 0]}
        assert send(service, context, range(50, 51), StudyDescription="Total body overview") == [0]
        assert send(service, context, range(60, 61), Modality="XC") == [0xC130]
        assert send(service, context, range(70, 71), Manufacturer="Dermoscopy CDS") == [0]
        wait_until(lambda: [a["state"] for a in service.analyses()] == ["complete"] * 6, "six results", seconds=120)
        assert len(clinic.files()) == 6
        assert archive.files() == []
        ask_for_commitment(service, context, ["2.25.10", "2.25.50", "2.25.60"])
        kind, report = camera.reports.get(timeout=60)
        assert kind == 2
        assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == ["2.25.10", "2.25.50"]
        assert [item.ReferencedSOPInstanceUID for item in report.FailedSOPSequence] == ["2.25.60"]  # was refused
