"""Orthanc and dcmtk as PACS, dciodvfy as judge; our application entity is played by dcmtk's storescp here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from queue import Queue

import httpx
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import StorageCommitmentPushModel

from tests.peers.dcmtk import StoreScp, dcmdump, echoscu, img2dcm, storescp, storescu, transcode
from tests.peers.dicom3tools import dciodvfy, dciodvfy_warnings
from tests.peers.example_dicom import DERMOSCOPIC_PHOTOGRAPHY, dermoscopic_photograph, lesion_image, segmentation_of
from tests.peers.orthanc import Orthanc, OurApplicationEntity

pytestmark = pytest.mark.peers

_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "photograph.dcm"
    dermoscopic_photograph(lesion_image()[0]).save_as(path, enforce_file_format=True)
    return path


def test_c_store_into_orthanc_and_back_out(pacs: Orthanc, photograph: Path) -> None:
    assert echoscu(pacs.dicom_port, called=pacs.aet).ok
    sent = storescu(pacs.dicom_port, [photograph], called=pacs.aet, calling="SCANNER")
    assert sent.ok, sent.output
    (stored,) = pacs.wait_for(1, DERMOSCOPIC_PHOTOGRAPHY)
    assert stored.calling_aet == "SCANNER"
    assert pacs.instances("1.2.3") == []
    original = pydicom.dcmread(photograph)
    path = photograph.with_name("back.dcm")
    path.write_bytes(pacs.file(stored.id))
    assert pydicom.dcmread(path).PixelData == original.PixelData
    assert pacs.rendered(stored.id).startswith(b"\x89PNG")
    found = httpx.get(f"{pacs.dicomweb_url}/instances", params={"SOPInstanceUID": stored.sop_instance_uid})
    assert len(found.json()) == 1


@pytest.mark.parametrize(
    ("syntax", "option"),
    [("jpeg-baseline", "-xy"), ("jpeg-lossless", "-xs"), ("jpeg-2000", "-xv"), ("jpeg-ls", "-xt"), ("rle", "-xr")],
)
def test_compressed_photographs_arrive_compressed(
    dcmtk_receiver: StoreScp, photograph: Path, syntax: str, option: str
) -> None:
    compressed = photograph.with_name(f"{syntax}.dcm")
    if syntax == "jpeg-2000":  # dcmtk carries it and cannot make it
        image = pydicom.dcmread(photograph)
        image.compress(JPEG2000Lossless)
        image.save_as(compressed)
    else:
        assert transcode(photograph, compressed, syntax).ok
    sent = storescu(dcmtk_receiver.port, [compressed], called=dcmtk_receiver.aet, options=[option])
    assert sent.ok, sent.output
    (received,) = dcmtk_receiver.files()
    expected = pydicom.dcmread(compressed).file_meta.TransferSyntaxUID
    assert pydicom.dcmread(received).file_meta.TransferSyntaxUID == expected


def test_auto_route_sends_on_what_others_sent_and_never_our_own(
    start_orthanc: Callable[..., Orthanc], our_ae: OurApplicationEntity, photograph: Path
) -> None:
    pacs = start_orthanc(us=our_ae, auto_route=True)
    with _listening_as(our_ae, photograph.parent / "us") as us:
        own = photograph.with_name("own.dcm")
        dermoscopic_photograph(lesion_image(seed=2)[0]).save_as(own, enforce_file_format=True)
        assert storescu(pacs.dicom_port, [own], called=pacs.aet, calling=our_ae.aet).ok
        assert storescu(pacs.dicom_port, [photograph], called=pacs.aet, calling="SCANNER").ok
        deadline = time.monotonic() + 20
        while not us.files() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
        (received,) = us.files()
        assert pydicom.dcmread(received).SOPInstanceUID == pydicom.dcmread(photograph).SOPInstanceUID
    assert len(pacs.instances()) == 2


def test_orthanc_sends_to_us_and_keeps_its_objects_over_a_pause(
    pacs: Orthanc, our_ae: OurApplicationEntity, photograph: Path
) -> None:
    identifier = pacs.upload(photograph)
    pacs.stop()
    pacs.start()
    with _listening_as(our_ae, photograph.parent / "us") as us:
        assert pacs.echo()
        pacs.send([identifier])
        assert len(us.files()) == 1


def test_storage_commitment_both_ways(pacs: Orthanc, our_ae: OurApplicationEntity, photograph: Path) -> None:
    pacs.upload(photograph)
    (stored,) = pacs.instances()
    pair = (stored.sop_class_uid, stored.sop_instance_uid)
    reports: Queue[Dataset] = Queue()

    def report_later(asked: Dataset) -> None:
        """The result goes on an association of its own, opened by the one that was asked."""
        result = Dataset()
        result.TransactionUID = asked.TransactionUID
        result.ReferencedSOPSequence = asked.ReferencedSOPSequence
        entity = AE(ae_title=our_ae.aet)
        entity.add_requested_context(StorageCommitmentPushModel)
        scp_role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = entity.associate("127.0.0.1", pacs.dicom_port, ae_title=pacs.aet, ext_neg=[scp_role])
        association.send_n_event_report(result, 1, StorageCommitmentPushModel, _COMMITMENT_INSTANCE)
        association.release()

    def on_action(event: Event) -> tuple[int, None]:
        threading.Timer(0.2, report_later, [event.action_information]).start()
        return 0x0000, None

    def on_report(event: Event) -> int:
        reports.put(event.event_information)
        return 0x0000

    us = AE(ae_title=our_ae.aet)
    us.add_supported_context(StorageCommitmentPushModel, scp_role=True, scu_role=True)
    us.add_requested_context(StorageCommitmentPushModel)
    handlers = [(evt.EVT_N_ACTION, on_action), (evt.EVT_N_EVENT_REPORT, on_report)]
    server = us.start_server(("127.0.0.1", our_ae.port), block=False, evt_handlers=handlers)
    try:
        answer = pacs.request_storage_commitment([pair])
        assert (answer["Status"], len(answer["Success"])) == ("Success", 1)

        ask = Dataset()
        ask.TransactionUID = generate_uid()
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = pair
        ask.ReferencedSOPSequence = [item]
        association = us.associate("127.0.0.1", pacs.dicom_port, ae_title=pacs.aet)
        status, _ = association.send_n_action(ask, 1, StorageCommitmentPushModel, _COMMITMENT_INSTANCE)
        association.release()
        assert status.Status == 0x0000
        report = reports.get(timeout=20)
        assert report.TransactionUID == ask.TransactionUID
        assert report.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == stored.sop_instance_uid
        assert "FailedSOPSequence" not in report
    finally:
        server.shutdown()


def test_img2dcm_wraps_a_photo(tmp_path: Path) -> None:
    picture = tmp_path / "photo.jpg"
    Image.fromarray(lesion_image()[0]).save(picture, quality=95)
    target = tmp_path / "photo.dcm"
    wrapped = img2dcm(picture, target, attributes=["PatientID=X1"])
    assert wrapped.ok, wrapped.output
    assert pydicom.dcmread(target).PatientID == "X1"
    assert "VLPhotographicImageStorage" in dcmdump(target)


def test_dciodvfy_passes_a_good_object_and_names_a_fault(photograph: Path, tmp_path: Path) -> None:
    assert any("DMS" in warning for warning in dciodvfy_warnings(photograph))
    source = pydicom.dcmread(photograph)
    segmentation = segmentation_of(source, np.asarray(lesion_image()[1]))
    path = tmp_path / "segmentation.dcm"
    segmentation.save_as(path)
    assert dciodvfy(path) == []
    del segmentation.SegmentationType
    segmentation.save_as(path)
    assert any("SegmentationType" in error for error in dciodvfy(path))
    path.write_bytes(b"no DICOM at all")
    assert dciodvfy(path)


def _listening_as(us: OurApplicationEntity, folder: Path) -> AbstractContextManager[StoreScp]:
    return storescp(folder, aet=us.aet, port=us.port)
