"""The whole service pulls: by the command, and as durable work when a new image comes."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import select

from dermoscopy.database import create_database_engine, unit_of_work
from dermoscopy.phantoms import phantom
from dermoscopy.tables import InstanceRow
from dermoscopy.workqueue import PULL, DurableWorkQueue
from tests.integration.cds_service.test_pull import of_study
from tests.peers.orthanc import Orthanc, OurApplicationEntity
from tests.peers.processes import wait_until
from tests.service import ISSUER, running_service
from tests.unit.dicom_listener.samples import dataset, part10

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]


def test_priors_of_a_new_image_come_from_the_pacs_and_are_analysed(
    tmp_path: Path, pacs: Orthanc, our_ae: OurApplicationEntity
) -> None:
    pixels = phantom(7, kind="nevus", rows=192, columns=192).pixels
    earlier = [dataset(pixels, SOPInstanceUID=f"2.25.{n}", **of_study(n, "20230102")) for n in (1, 2)]
    new = pacs.upload(part10(dataset(pixels, SOPInstanceUID="2.25.3", **of_study(3, "20260102"))))
    there = {"name": "pacs", "host": "127.0.0.1", "port": pacs.dicom_port, "ae_title": pacs.aet, "query": True}
    with running_service(
        tmp_path / "service",
        dicom_port=our_ae.port,
        pacs=[there],
        pull_priors="pacs",
        rules=[{"name": "send nothing", "outputs": []}],
    ) as service:
        pacs.send([new])
        wait_until(lambda: len(service.analyses()) == 1, "the new image", seconds=60)
        for one in earlier:
            pacs.upload(part10(one))

        wanted = tmp_path / "wanted"
        wanted.write_text("4711\n")
        looked = service.command("pull", "--patients", str(wanted), "--issuer", ISSUER, "--dry-run")
        assert looked.returncode == 0, looked.stderr
        assert "4711" not in looked.stdout + looked.stderr
        (row,) = [line for line in looked.stdout.splitlines() if "1 of 1" in line]
        assert [cell.strip() for cell in row.strip("│").split("│")][1:] == ["3", "1", "0", "0", "0", "0", "0", "0"]

        engine = create_database_engine(f"sqlite:///{service.folder / 'data' / 'cds.sqlite3'}")
        with unit_of_work(engine)() as session:
            instance_id = session.execute(select(InstanceRow.id)).scalar_one()
            waiting = sa.text("SELECT count(*) FROM workflow_status WHERE name = :name")
            assert session.execute(waiting, {"name": PULL}).scalar_one() == 1  # for the rest of the study to come
            DurableWorkQueue(engine).start(session, PULL, "now", instance_id, "now", "1")
        engine.dispose()
        wait_until(lambda: len(service.analyses()) == 3, "the earlier images", seconds=60)
        wait_until(lambda: all(one["state"] == "complete" for one in service.analyses()), "results", seconds=120)
        log = (service.folder / "service.log").read_text()
        assert '"pull.completed"' in log and "4711" not in log
