"""What must not come in: each is refused with the status of its standard and a leaf, and stops nobody else's work."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from dermoscopy.domain import PatientIdentity
from dermoscopy.overlay import encode_png
from dermoscopy.phantoms import phantom
from dicom_listener.camera import wrap_picture
from tests.peers.processes import wait_until
from tests.service import ISSUER, SYSTEM, RunningService, running_service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PICTURE = encode_png(phantom(11, rows=120, columns=160).pixels)
DERMOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.7"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running_service(tmp_path_factory.mktemp("service"), max_upload_bytes=2_000_000) as service:
        yield service


def a_dataset(**changes: object) -> Dataset:
    dataset = dcmread(io.BytesIO(wrap_picture(PICTURE, PatientIdentity(ISSUER, "BAD-1"))))
    for keyword, value in changes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def store(service: RunningService, dataset: Dataset) -> tuple[int, str]:
    """C-STORE status and error comment."""
    ae = AE(ae_title="BAD")
    ae.add_requested_context(DERMOSCOPIC, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", service.dicom_port, ae_title="DERMCDS")
    assert association.is_established
    answer = association.send_c_store(dataset)
    association.release()
    return int(answer.Status), str(answer.get("ErrorComment", ""))


def png_that_claims(columns: int, rows: int) -> bytes:
    """A tiny file whose header promises a huge picture."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def dicom_file(**changes: object) -> bytes:
    file = io.BytesIO()
    a_dataset(**changes).save_as(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", (400, 422)),
        (b"this is a text file called lesion.png", (415, 422)),
        (PICTURE[: len(PICTURE) // 2], (422,)),
        (encode_png(np.zeros((1, 1, 3), np.uint8)), (422,)),
        (png_that_claims(20_000, 20_000), (413, 422)),
        (png_that_claims(2**31 - 1, 2**31 - 1), (413, 422)),
        (dicom_file(PixelData=None), (422,)),
        (dicom_file()[:3000], (422,)),
        (dicom_file(NumberOfFrames="2"), (422,)),
        (dicom_file(SOPClassUID=MR_IMAGE), (415, 422)),
        (PICTURE + b"\0" * 3_000_000, (413,)),
    ],
    ids=[
        "empty", "text called .png", "truncated", "1x1", "20k x 20k", "bomb", "no pixel data", "truncated DICOM",
        "multi-frame", "wrong SOP class", "too large",
    ],
)  # fmt: skip
def test_upload_is_refused_with_problem_details(service: RunningService, data: bytes, status: tuple[int, ...]) -> None:
    body = {"image": base64.b64encode(data).decode(), "patient": {"system": SYSTEM, "id": "BAD-1"}, "wait": 60}
    answer = service.client.post("/api/v1/analyze", json=body)
    assert answer.status_code in status, answer.text
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["detail"]
    assert "BAD-1" not in answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [("{", 400), ('{"image": 7}', 422), ('{"image": "", "patietn": {}}', 422), ('{"image": "%%%"}', 422), ("[]", 422)],
)
def test_malformed_request_names_what_is_wrong(service: RunningService, body: str, status: int) -> None:
    answer = service.client.post("/api/v1/analyze", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, status), answer.text
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "family"),
    [
        ({"PixelData": None}, 0xC000),
        ({"PixelData": b"\0" * 10}, 0xC000),
        ({"NumberOfFrames": "3"}, 0xC000),
        ({"Rows": 1, "Columns": 1, "PixelData": b"\0" * 4}, 0xC000),
        ({"Rows": 20_000, "Columns": 20_000}, 0xC000),
    ],
    ids=["no pixel data", "truncated", "multi-frame", "1x1", "20k x 20k"],
)
def test_object_is_refused_with_the_status_of_its_standard(
    service: RunningService, changes: dict[str, object], family: int
) -> None:
    status, comment = store(service, a_dataset(**changes))
    assert status & 0xF000 == family, f"{status:04X}"
    assert 0 < len(comment) <= 64
    assert "BAD-1" not in comment


def test_wrong_class_is_refused_at_negotiation(service: RunningService) -> None:
    ae = AE(ae_title="BAD")
    ae.add_requested_context(MR_IMAGE)
    ae.add_requested_context(DERMOSCOPIC, "1.2.840.10008.1.2.2")  # big endian, retired: no decoder
    association = ae.associate("127.0.0.1", service.dicom_port, ae_title="DERMCDS")
    assert association.accepted_contexts == []
    association.abort()


def test_object_without_patient_is_kept_and_held(service: RunningService) -> None:
    before = len(service.client.get("/api/v1/holds").json()["holds"])
    status, _comment = store(service, a_dataset(PatientID="", SOPInstanceUID="1.2.3.4.5.6"))
    assert status == 0
    holds = service.client.get("/api/v1/holds").json()["holds"]
    assert len(holds) == before + 1
    assert holds[-1]["kind"] == "no_patient_id" or holds[0]["kind"] == "no_patient_id"


def test_everybody_else_is_served_and_every_refusal_has_its_leaf(service: RunningService, tmp_path: Path) -> None:
    """Runs last: after all of the above the next good image goes through, and the log says what happened."""
    status, _comment = store(service, a_dataset())
    assert status == 0
    wait_until(lambda: any(a["state"] == "complete" for a in service.analyses()), "a good image", seconds=60)
    listed = tmp_path / "audit.jsonl"
    assert service.command("audit", "export", str(listed)).returncode == 0
    text = listed.read_text(encoding="utf-8")
    assert text.count("instance.rejected") >= 10
    assert service.command("audit", "verify").returncode == 0
    log = (service.folder / "service.log").read_text(encoding="utf-8")
    assert "BAD-1" not in log
    assert '"level": "critical"' not in log
