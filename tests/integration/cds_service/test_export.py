"""De-identified export by the command, from the service's own store: valid objects that another PACS takes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom import dcmread

from audit.tables import AuditLeaf
from cds_service.node import Node
from cds_service.schema import migrate
from dermoscopy.database import create_database_engine
from dermoscopy.domain import PatientIdentity
from dicom_listener.header import read_header, read_picture_header
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN, SECONDARY_CAPTURE, VL_PHOTOGRAPHIC
from tests.findings import drawn_lesion, finish, make_node
from tests.peers.dicom3tools import dciodvfy
from tests.peers.fixtures import entered
from tests.peers.orthanc import Orthanc, orthanc
from tests.unit.dicom_listener.samples import as_file, dataset, encoded
from tests.unit.dicom_listener.test_deidentify import stuffed

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Node]:
    """A migrated database with five images: of each class, one full of identity, one picture."""
    engine = create_database_engine(f"sqlite:///{tmp_path / 'data' / 'cds.sqlite3'}")
    migrate(engine)
    node = make_node(engine, tmp_path / "data")
    pixels = drawn_lesion().pixels
    full = stuffed()
    full.Rows, full.Columns, full.PixelData = *pixels.shape[:2], pixels.tobytes()
    capture = dataset(pixels, SOPInstanceUID="1.2.3.3", SOPClassUID=SECONDARY_CAPTURE, ConversionType="DI")
    limb = dataset(pixels, SOPInstanceUID="1.2.3.2", SOPClassUID=VL_PHOTOGRAPHIC)
    for made in (dataset(pixels, SOPInstanceUID="1.2.3.1"), limb, capture, full):
        data = encoded(made)
        header = read_header(data, EXPLICIT_LITTLE_ENDIAN)
        finish(node, node.intake.accept(data, header, source="test", caller="test").analysis_id)
    picture = as_file(pixels, "JPEG", quality=95)
    header = read_picture_header(picture, PatientIdentity("HOSPITAL-A", "4711"))
    finish(node, node.intake.accept(picture, header, source="test", caller="test").analysis_id)
    yield node
    engine.dispose()


@pytest.fixture(scope="module")
def pacs() -> Iterator[Orthanc]:
    with ExitStack() as stack:
        yield entered(stack, orthanc())


def command(node: Node, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CDS_")}
    environment |= {"CDS_DATA_DIR": str(node.settings.data_dir), "COLUMNS": "200"}
    environment |= {"CDS_DATABASE_URL": node.engine.url.render_as_string(hide_password=False)}
    return subprocess.run(
        [sys.executable, "-m", "cds_service", "export", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def test_objects_are_valid_and_a_pacs_takes_them(store: Node, pacs: Orthanc, tmp_path: Path) -> None:
    target = tmp_path / "out"
    done = command(store, "--deidentify", "--to", str(target), "--format", "dicom", "--project", "study-1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 images of 2 patients" in done.stdout
    assert "PLANTED" not in done.stdout + done.stderr
    objects = sorted((target / "dicom").iterdir())
    assert len(objects) == 5
    assert {path.name: dciodvfy(path) for path in objects} == {path.name: [] for path in objects}
    for path in objects:
        pacs.upload(path)
    there = {one.sop_instance_uid for one in pacs.instances()}
    assert there == {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in objects}
    digest = re.search(r"SHA-256 ([0-9a-f]{64})", done.stdout)
    assert digest is not None
    with store.begin() as session:
        (leaf,) = [one for one in session.query(AuditLeaf) if one.action == "export.deidentified"]
        assert leaf.subject_id == digest[1]
        assert json.loads(leaf.details)["images"] == 5


def test_the_command_wants_to_be_told_and_a_new_folder(store: Node, tmp_path: Path) -> None:
    assert command(store, "--to", str(tmp_path / "out")).returncode == 2
    again = command(store, "--deidentify", "--to", str(tmp_path))
    assert again.returncode == 3
    assert not (tmp_path / "out").exists()
