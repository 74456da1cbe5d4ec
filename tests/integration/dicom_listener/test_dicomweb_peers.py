"""DICOMweb with real counterparts: dicomweb-client and Orthanc push to us, we store our results at Orthanc."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread

from dermoscopy.phantoms import phantom
from dicom_listener.syntaxes import COMPREHENSIVE_SR, SECONDARY_CAPTURE, SEGMENTATION
from tests.peers.orthanc import Orthanc
from tests.peers.processes import wait_until
from tests.service import RunningService, running_service
from tests.unit.dicom_listener.samples import dataset, part10

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300)]
TOKEN = "dicomweb-token-0123456789"
AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}
TOKENS = [{"name": "pacs", "token": TOKEN, "role": "submit"}]


def image(number: int, **changes):
    pixels = phantom(7, kind="melanoma-like", rows=192, columns=192).pixels
    return dataset(pixels, SOPInstanceUID=f"2.25.{number}", **changes)


def complete(service: RunningService) -> bool:
    found = service.analyses()
    return bool(found) and all(one["state"] == "complete" for one in found)


def test_orthanc_pushes_to_us_and_gets_our_results_back_by_stow(tmp_path: Path, pacs: Orthanc) -> None:
    there = [{"name": "web", "base_url": pacs.dicomweb_url}]
    with running_service(tmp_path / "service", stow=there, api_tokens=TOKENS) as service:
        service.client.headers.update(AUTHORIZATION)
        identifier = pacs.upload(part10(image(1)))
        us = {"Url": f"{service.url}/dicom-web/", "HttpHeaders": AUTHORIZATION}
        pacs.client.put("/dicom-web/servers/us", json=us).raise_for_status()
        sent = pacs.client.post("/dicom-web/servers/us/stow", json={"Resources": [identifier], "Synchronous": True})
        assert sent.is_success, sent.text
        wait_until(lambda: complete(service), "results delivered", seconds=120)
        (report,) = service.analyses()
        deliveries = service.analysis(report["report_id"])["deliveries"]
        assert {(one["destination"], one["state"]) for one in deliveries} == {("web", "delivered")}
        held = {one.sop_class_uid: one for one in pacs.wait_for(4)}
        assert {SEGMENTATION, COMPREHENSIVE_SR, SECONDARY_CAPTURE} <= set(held)
        for name, sop_class in (("seg", SEGMENTATION), ("secondary-capture", SECONDARY_CAPTURE)):
            assert pacs.rendered(held[sop_class].id), name

        looked = pacs.client.post(
            "/dicom-web/servers/us/qido", json={"Uri": "/studies", "Arguments": {"PatientID": "4711"}}
        )
        assert looked.is_success and len(looked.json()) == 1, looked.text
        study = str(image(1).StudyInstanceUID)
        pacs.delete(held[SEGMENTATION].id)
        fetched = pacs.client.post("/dicom-web/servers/us/retrieve", json={"Resources": [{"Study": study}]})
        assert fetched.is_success, fetched.text
        pacs.wait_for(1, SEGMENTATION)


def test_dicomweb_client_stores_searches_and_retrieves(tmp_path: Path) -> None:
    with running_service(tmp_path / "service", api_tokens=TOKENS) as service:
        service.client.headers.update(AUTHORIZATION)
        client = DICOMwebClient(f"{service.url}/dicom-web", headers=AUTHORIZATION)
        stored = client.store_instances([dcmread(BytesIO(part10(image(n)))) for n in (1, 2)])
        assert len(stored.ReferencedSOPSequence) == 2 and "FailedSOPSequence" not in stored
        wait_until(lambda: len(service.analyses()) == 2 and complete(service), "analysed", seconds=120)

        (study,) = client.search_for_studies(search_filters={"PatientName": "Müller*"}, fields=["StudyDescription"])
        assert study["00201208"]["Value"] == [8] and client.search_for_studies(search_filters={"PatientID": "x"}) == []
        uid = study["0020000D"]["Value"][0]
        series = {row["00080060"]["Value"][0]: row for row in client.search_for_series(uid)}
        assert {"DMS", "SEG", "SR"} <= set(series)
        assert len(client.retrieve_study(uid)) == 8
        (one,) = client.search_for_instances(uid, search_filters={"SOPInstanceUID": "2.25.1"})
        where = (uid, one["0020000E"]["Value"][0], "2.25.1")
        original = client.retrieve_instance(*where, media_types=[["application/dicom", "*"]])
        assert np.array_equal(original.pixel_array, image(1).pixel_array)
        assert len(client.retrieve_series_metadata(*where[:2])) == 2
        assert client.retrieve_instance_metadata(*where)["00100020"]["Value"] == ["4711"]
        (frame,) = client.retrieve_instance_frames(*where, frame_numbers=[1])
        assert frame == image(1).PixelData
        address = client.retrieve_instance_metadata(*where)["7FE00010"]["BulkDataURI"]
        assert client.retrieve_bulkdata(address) == [image(1).PixelData]
        assert client.retrieve_instance_rendered(*where, media_types=["image/png"]).startswith(b"\x89PNG")
        log = service.service.log.read_text()
        assert "Müller" not in log
        assert not re.search(r"(?<![0-9a-f-])4711(?![0-9a-f-])", log), "the patient ID (in a UUID it is not one)"
