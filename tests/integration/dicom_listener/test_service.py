"""The whole service with two listener processes on one port, TLS, admission and rules, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import ssl
import threading
from pathlib import Path

import pytest
from pynetdicom import AE, build_context

from dermoscopy.phantoms import phantom
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN
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
        storescp(tmp_path / "clinic") as clinic,
        storescp(tmp_path / "archive") as archive,
        running_service(
            tmp_path,
            dicom_processes=2,
            dicom_peers=[{"ae_title": "CAMERA", "addresses": [HOST]}],
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
