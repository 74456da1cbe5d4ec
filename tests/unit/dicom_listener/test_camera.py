"""Pictures become instances whose identity is the whole picture's."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO

import pytest
from PIL import Image
from pydicom import dcmread

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import UnreadableObject
from dicom_listener.camera import wrap_picture
from tests.unit.dicom_listener.samples import picture

PATIENT = PatientIdentity("clinic", "4711")
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def png(last: int = 0) -> bytes:
    """A stored (uncompressed) picture; ``last`` changes its last pixel and so only the end of the file."""
    pixels = picture(64, 64).copy()
    pixels[-1, -1] = last
    target = BytesIO()
    Image.fromarray(pixels).save(target, "PNG", compress_level=0)
    return target.getvalue()


def uid(data: bytes, patient: PatientIdentity = PATIENT) -> str:
    return str(dcmread(BytesIO(wrap_picture(data, patient, WHEN))).SOPInstanceUID)


def test_pictures_that_differ_in_the_last_pixel_are_two_instances():
    one, other = png(0), png(255)
    assert one[:4096] == other[:4096]
    assert len(one) == len(other)
    assert uid(one) != uid(other)


def test_the_same_picture_is_one_instance_for_one_patient():
    assert wrap_picture(png(), PATIENT, WHEN) == wrap_picture(png(), PATIENT, WHEN)
    assert uid(png()) != uid(png(), PatientIdentity("clinic", "4712"))


def test_the_time_of_reception_may_be_left_out():
    assert dcmread(BytesIO(wrap_picture(png(), PATIENT))).SOPInstanceUID == uid(png())


def test_what_is_no_picture_is_refused():
    with pytest.raises(UnreadableObject):
        wrap_picture(b"no picture", PATIENT)
