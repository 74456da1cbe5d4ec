"""kill -9 at every step boundary and at random moments: what was acknowledged has exactly one result, always.

The whole service (supervisor, API, listener, worker) dies at once, as in a power cut, while a camera goes on sending.
`make crash` does 50 kills; CDS_CRASH_KILLS sets another number.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import DermoscopyError
from dermoscopy.overlay import encode_png
from dermoscopy.phantoms import phantom
from dicom_listener.camera import sending, wrap_picture
from tests.peers.fhir_server import FhirServer
from tests.peers.orthanc import Orthanc
from tests.peers.processes import wait_until
from tests.service import ISSUER, REPOSITORY, SYSTEM, RunningService

KILLS = int(os.environ.get("CDS_CRASH_KILLS", "14"))
PACKAGES = ("audit", "cds_service", "deploy", "dermoscopy", "dicom_listener", "fhir_adapters", "models", "monitoring")
PATIENT = "MRN-CRASH"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"

pytestmark = [pytest.mark.crash, pytest.mark.peers, pytest.mark.slow, pytest.mark.timeout(300 + 50 * KILLS)]

BOUNDARIES = {
    "accepted": "SELECT count(*) FROM instance",
    "analysed": "SELECT count(*) FROM analysis WHERE document != ''",
    "rendered": "SELECT count(*) FROM analysis WHERE state IN ('rendered', 'complete')",
    "delivery begun": "SELECT count(*) FROM delivery WHERE attempts > 0",
    "delivered": "SELECT count(*) FROM delivery WHERE state = 'delivered'",
    "complete": "SELECT count(*) FROM analysis WHERE state = 'complete'",
    "placed in the audit log": "SELECT count(*) FROM audit_tree",
}
"""What a step leaves behind when it is done: the kill comes as soon as one more of it is seen."""


class Camera(threading.Thread):
    """Sends picture after picture, each until it is acknowledged; the service may be dead at any time."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._stopping = threading.Event()
        self.acknowledged: list[str] = []
        self.attempted: list[str] = []

    def run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            picture = encode_png(phantom(number, kind="nevus", rows=240, columns=320).pixels)
            self._send_until_acknowledged(wrap_picture(picture, PatientIdentity(ISSUER, PATIENT)))

    def _send_until_acknowledged(self, data: bytes) -> None:
        self.attempted.append("")
        while not self._stopping.is_set():
            try:
                with sending("127.0.0.1", self._port, called_ae="DERMCDS", calling_ae="CAMERA") as send:
                    self.acknowledged.append(send(data))
                time.sleep(2.5)  # the FHIR peer takes the longer the more reports it holds
                return
            except (DermoscopyError, RuntimeError, OSError):
                time.sleep(0.1)

    def stop(self) -> None:
        self._stopping.set()
        self.join(60)


def changed_code(folder: Path) -> Path:
    """A copy of the project in which the workflows' source is another: an upgrade while work is in flight."""
    copy = folder / "upgraded"
    for name in PACKAGES:
        shutil.copytree(
            REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.pt", "training")
        )
    path = copy / "cds_service" / "pipeline.py"
    source = path.read_text(encoding="utf-8")
    changed = source.replace(
        "        def analyse(analysis_id: str) -> None:\n",
        "        def analyse(analysis_id: str) -> None:\n            len(analysis_id)\n",
    )
    assert changed != source
    path.write_text(changed, encoding="utf-8")
    return copy


def wait_for_one_more(database: Path, query: str, seconds: float) -> None:
    """Return as soon as ``query`` counts more than at the call, or after ``seconds``."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)
    try:
        begin = connection.execute(query).fetchone()[0]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if connection.execute(query).fetchone()[0] > begin:
                return
            time.sleep(0.002)
    finally:
        connection.close()


def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path, pacs: Orthanc, ehr: FhirServer) -> None:
    identifier = [{"system": SYSTEM, "value": PATIENT}]
    assert ehr.post({"resourceType": "Patient", "identifier": identifier}).status_code == 201
    service = RunningService(
        tmp_path / "service",
        {
            "pacs": [{"name": "pacs", "host": "127.0.0.1", "port": pacs.dicom_port, "ae_title": pacs.aet}],
            "fhir": [{"name": "ehr", "base_url": ehr.url}],
            "worker_concurrency": 2,
        },
    )
    upgraded = changed_code(tmp_path)
    database = service.folder / "data" / "cds.sqlite3"
    chance = random.Random(20260101)
    service.service.start()
    camera = Camera(service.dicom_port)
    camera.start()
    try:
        for kill in range(KILLS):
            if kill % 2 == 0:
                wait_for_one_more(database, list(BOUNDARIES.values())[kill // 2 % len(BOUNDARIES)], 15)
            else:
                time.sleep(chance.uniform(0.0, 1.5))
            service.service.kill()
            if kill == KILLS // 2:
                service.use_code(upgraded)
            service.service.start()
        camera.stop()
        wait_until(lambda: unfinished(database) == 0, "every accepted image to be complete", seconds=180 + 6 * KILLS)
        everything_stands_once(service, camera, pacs, ehr)
    finally:
        camera.stop()
        service.service.stop(seconds=60)


def unfinished(database: Path) -> int:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)
    try:
        return int(connection.execute("SELECT count(*) FROM analysis WHERE state != 'complete'").fetchone()[0])
    finally:
        connection.close()


def everything_stands_once(service: RunningService, camera: Camera, pacs: Orthanc, ehr: FhirServer) -> None:
    acknowledged = set(camera.acknowledged)
    assert len(acknowledged) >= KILLS // 4, "the camera hardly got through: the test shows nothing"
    connection = sqlite3.connect(service.folder / "data" / "cds.sqlite3")

    def column(query: str) -> list[Any]:
        return [row[0] for row in connection.execute(query)]

    stored = column("SELECT sop_instance_uid FROM instance")
    assert len(stored) == len(set(stored))
    assert acknowledged <= set(stored), "an acknowledged image is gone"
    assert len(stored) <= len(camera.attempted)
    # Each stored image, acknowledged or not, is whole: one analysis, seven outputs, four deliveries, leaves for each.
    images = len(stored)
    assert column("SELECT count(*) FROM analysis GROUP BY instance_id") == [1] * images
    per_image = "SELECT count(*) FROM artifact WHERE kind = '{}'"
    for kind in ("seg", "sr", "secondary_capture", "fhir_bundle", "overlay", "mask", "heatmap"):
        assert column(per_image.format(kind)) == [images], kind
    assert column("SELECT count(*) FROM delivery WHERE state = 'delivered'") == [4 * images]
    assert column("SELECT count(*) FROM audit_leaf WHERE action = 'instance.accepted'") == [images]
    assert column("SELECT count(*) FROM audit_leaf WHERE action = 'analysis.completed'") == [images]
    assert column("SELECT count(*) FROM hold") == [0]
    connection.close()
    assert len(pacs.instances(SEG)) == images
    assert len(pacs.instances()) == 3 * images
    assert len(ehr.search("DiagnosticReport", _count="1000")) == images
    verified = service.command("audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
