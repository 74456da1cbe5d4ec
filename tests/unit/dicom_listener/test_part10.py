"""A dataset is opened without what cannot be read in it."""

from __future__ import annotations

import pytest

from dermoscopy.domain import ArtifactKind, SourceObject
from dicom_listener.decode import decode
from dicom_listener.header import read_header
from dicom_listener.part10 import open_dataset
from dicom_listener.render import RENDERERS
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN
from tests.fuzz.elements import elements_of, joined
from tests.unit.dicom_listener.samples import RECEIVED, dataset, encoded, render_input

MODEL_NAME, BIRTH_DATE, NAME, STUDY_DATE = 0x00081090, 0x00100030, 0x00100010, 0x00080020


def with_representation(tag: int, vr: str, value: bytes | None = None) -> SourceObject:
    """A sound object in which one element says that it is something else."""
    elements = elements_of(encoded(dataset()))
    for element in elements:
        if element.tag == tag:
            element.vr, element.value = vr, element.value if value is None else value
    data = joined(elements, implicit=False)
    return SourceObject("instance-1", data, read_header(data, EXPLICIT_LITTLE_ENDIAN), RECEIVED)


@pytest.mark.parametrize("tag", [MODEL_NAME, BIRTH_DATE, NAME, STUDY_DATE])
@pytest.mark.parametrize(
    ("vr", "value"), [("ZZ", None), ("FD", b"abc"), ("AT", b"abc"), ("FD", b"8 bytes."), ("SQ", b""), ("OB", None)]
)
@pytest.mark.filterwarnings("ignore")
def test_an_element_that_cannot_be_read_costs_no_result(tag, vr, value):
    stored = with_representation(tag, vr, value)
    assert decode(stored).pixels.shape == (48, 64, 3)
    assert tag not in open_dataset(stored.data, EXPLICIT_LITTLE_ENDIAN)
    what = render_input(stored)
    for kind in (ArtifactKind.SEG, ArtifactKind.SR, ArtifactKind.SECONDARY_CAPTURE):
        assert RENDERERS[kind](what) is not None


def test_what_can_be_read_stays():
    stored = with_representation(MODEL_NAME, "LO")
    assert open_dataset(stored.data, EXPLICIT_LITTLE_ENDIAN).ManufacturerModelName == "One"
