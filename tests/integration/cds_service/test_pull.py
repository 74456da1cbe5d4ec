"""A patient's earlier images pulled from real archives: Orthanc (C-MOVE, C-GET, DICOMweb) and dcmtk's dcmqrscp."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from audit.tables import AuditLeaf
from cds_service.listening import open_listener
from cds_service.node import Node
from cds_service.pull import Asked, Pulled, pull
from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import DestinationUnavailable, Rejected
from dermoscopy.tables import AnalysisRow, InstanceRow
from dicom_listener.syntaxes import VL_PHOTOGRAPHIC
from tests.findings import make_node
from tests.peers.dcmqrscp import QueryRetrieveScp, dcmqrscp
from tests.peers.dcmtk import storescu
from tests.peers.fixtures import entered
from tests.peers.orthanc import Orthanc, OurApplicationEntity, orthanc
from tests.peers.processes import free_port
from tests.unit.dicom_listener.samples import dataset, part10

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

ISSUER = "HOSPITAL-A"
PATIENT = PatientIdentity(ISSUER, "4711")
US = OurApplicationEntity(aet="DERMCDS", port=free_port())
JPEG_LS = "1.2.840.10008.1.2.4.80"


def image(number: int, **changes: Any) -> Any:
    return dataset(SOPInstanceUID=f"2.25.{number}", **changes)


def of_study(number: int, date: str) -> dict[str, str]:
    return {"StudyInstanceUID": f"2.25.10{number}", "SeriesInstanceUID": f"2.25.20{number}", "StudyDate": date}


def in_jpeg_ls(made: Any) -> Any:
    made.compress(JPEG_LS, generate_instance_uid=False)
    return made


EARLIER = [
    part10(image(1, **of_study(1, "20230102"))),
    part10(in_jpeg_ls(image(2, **of_study(1, "20230102")))),
    part10(image(3, **of_study(2, "20250607"))),
]
OTHERS = [
    part10(image(4, PatientID="4712", **of_study(3, "20230102"))),
    part10(image(5, IssuerOfPatientID="HOSPITAL-B", **of_study(4, "20230102"))),
    part10(image(6, Modality="CT", **of_study(5, "20230102"))),
]
"""Another patient, the same id of another issuer, a series of another modality."""


@pytest.fixture(scope="module")
def archive() -> Iterator[Orthanc]:
    """An Orthanc that holds three images of the patient and some that must not come."""
    with ExitStack() as stack:
        made = entered(stack, orthanc(us=US))
        for data in (*EARLIER, *OTHERS):
            made.upload(data)
        yield made


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueryRetrieveScp]:
    """A dcmqrscp with two photographs of the patient and one of another."""
    folder = tmp_path_factory.mktemp("photographs")
    kind = {"SOPClassUID": VL_PHOTOGRAPHIC, "Modality": "XC"}
    files = []
    for number, patient in ((11, "4711"), (12, "4711"), (13, "4712")):
        study = of_study(10 + (patient != "4711"), "20240102")
        files.append(folder / f"{number}.dcm")
        files[-1].write_bytes(part10(image(number, PatientID=patient, **kind, **study)))
    with ExitStack() as stack:
        made = entered(stack, dcmqrscp(US))
        sent = storescu(made.port, files, called=made.aet)
        assert sent.ok, sent.output
        yield made


@pytest.fixture
def open_pulling(engine: sa.Engine, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """A function that makes a node with these settings, whose listener runs."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Node:
            node = make_node(engine, tmp_path / "data", dicom_port=US.port, **settings)
            (tmp_path / "data").mkdir(exist_ok=True)
            listener = open_listener(node)
            listener.start()
            stack.callback(listener.shutdown, 0)
            return node

        yield make


def pacs_of(archive: Orthanc, **changes: Any) -> dict[str, Any]:
    there = {"name": "pacs", "host": "127.0.0.1", "port": archive.dicom_port, "ae_title": archive.aet, "query": True}
    return {**there, **changes}


def sources(archive: Orthanc, way: str) -> dict[str, Any]:
    if way == "dicomweb":
        return {"archives": [{"name": "pacs", "base_url": archive.dicomweb_url}]}
    return {"pacs": [pacs_of(archive, retrieve=way)]}


def stored(node: Node) -> dict[str, tuple[str, str, str]]:
    """SOP Instance UID → issuer, patient id, state."""
    with node.begin() as session:
        rows = session.execute(select(InstanceRow)).scalars().all()
        return {row.sop_instance_uid: (row.issuer, row.patient_id, row.state) for row in rows}


def leaves(node: Node, prefix: str) -> list[dict[str, Any]]:
    with node.begin() as session:
        found = session.execute(select(AuditLeaf).order_by(col(AuditLeaf.at))).scalars().all()
        entries = [{**row.model_dump(), "details": json.loads(row.details)} for row in found]
    return [entry for entry in entries if entry["action"].startswith(prefix)]


@pytest.mark.parametrize("way", ["move", "get", "dicomweb"])
def test_earlier_images_come_once_and_only_those_of_the_patient(archive, open_pulling, way) -> None:
    node = open_pulling(**sources(archive, way))
    looked = pull(node, Asked(PATIENT, dry_run=True), actor="test")
    assert (looked, stored(node)) == (Pulled(found=3, other_patient=1), {})

    done = pull(node, Asked(PATIENT), actor="test")
    accepted = (ISSUER, "4711", "accepted")
    assert stored(node) == {f"2.25.{n}": accepted for n in (1, 2, 3)}
    assert done == Pulled(found=3, taken=3, other_patient=1) and not done.complete  # the same id of another issuer
    with node.begin() as session:
        assert len(session.execute(select(AnalysisRow)).scalars().all()) == 3

    again = pull(node, Asked(PATIENT), actor="test")
    assert again == Pulled(found=3, known=3, other_patient=1)
    assert len(stored(node)) == 3

    started, *_, completed = [leaf for leaf in leaves(node, "pull.") if not leaf["details"].get("dry_run")][:2]
    assert (started["action"], completed["action"]) == ("pull.started", "pull.completed")
    assert (completed["patient_id"], completed["details"]["taken"]) == ("4711", 3)
    assert "4711" not in json.dumps([leaf["details"] for leaf in leaves(node, "pull.")])


@pytest.mark.parametrize("way", ["move", "get", "dicomweb"])
def test_from_a_date_on_and_only_kept(archive, open_pulling, way) -> None:
    node = open_pulling(**sources(archive, way))
    done = pull(node, Asked(PATIENT, since="20250101", store_only=True), actor="test")
    assert done == Pulled(found=1, taken=1)
    assert stored(node) == {"2.25.3": (ISSUER, "4711", "stored")}
    with node.begin() as session:
        assert not session.execute(select(AnalysisRow)).scalars().all()


def test_what_was_pulled_by_dicomweb_is_byte_for_byte_what_the_archive_was_given(archive, open_pulling) -> None:
    node = open_pulling(**sources(archive, "dicomweb"))
    pull(node, Asked(PATIENT), actor="test")
    with node.begin() as session:
        digests = {row.digest for row in session.execute(select(InstanceRow)).scalars()}
    assert all(any(data.endswith(node.blobs.get(digest)) for data in EARLIER) for digest in digests)


@pytest.mark.parametrize("way", ["move", "get"])
def test_dcmtk_as_archive(second, open_pulling, way) -> None:
    there = {"name": "second", "host": "127.0.0.1", "port": second.port, "ae_title": second.aet, "query": True}
    node = open_pulling(pacs=[{**there, "retrieve": way}])
    assert pull(node, Asked(PATIENT), actor="test") == Pulled(found=2, taken=2)
    assert set(stored(node)) == {"2.25.11", "2.25.12"}
    assert pull(node, Asked(PATIENT), actor="test") == Pulled(found=2, known=2)


def test_a_pacs_that_does_not_know_our_listener(archive, open_pulling) -> None:
    node = open_pulling(pacs=[pacs_of(archive, move_destination="NOBODY")])
    with pytest.raises(Rejected, match="listener"):
        pull(node, Asked(PATIENT), actor="test")
    (failed,) = leaves(node, "pull.failed")
    assert failed["outcome"] == "failure" and stored(node) == {}


@pytest.mark.parametrize("way", ["move", "dicomweb"])
def test_an_archive_that_is_away(archive, open_pulling, way) -> None:
    settings = sources(archive, way)
    if way == "move":
        settings["pacs"][0]["port"] = free_port()
    else:
        settings["archives"][0]["base_url"] = f"http://127.0.0.1:{free_port()}/dicom-web"
    node = open_pulling(**settings)
    with pytest.raises(DestinationUnavailable) as caught:
        pull(node, Asked(PATIENT), actor="test")
    assert caught.value.retry_after and "4711" not in str(caught.value)
    assert [leaf["action"] for leaf in leaves(node, "pull.")] == ["pull.started", "pull.failed"]


def test_our_listener_is_away(archive, engine, tmp_path) -> None:
    """By C-MOVE nothing comes, and that is told."""
    node = make_node(engine, tmp_path, dicom_port=US.port, pacs=[pacs_of(archive)])
    with pytest.raises(Rejected, match="listener"):
        pull(node, Asked(PATIENT), actor="test")
    assert [leaf["action"] for leaf in leaves(node, "pull.")] == ["pull.started", "pull.failed"]
