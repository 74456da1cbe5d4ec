"""Datasets with more structure than a picture can have are refused before they cost memory or the stack."""

from __future__ import annotations

import struct

import pytest

from dermoscopy.errors import UnreadableObject
from dicom_listener import bounds
from dicom_listener.header import read_header
from dicom_listener.part10 import open_dataset
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from tests.fuzz.elements import Element, elements_of, joined, nested
from tests.unit.dicom_listener.samples import dataset, encoded

SYNTAXES = [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN]


def with_element(made: Element, syntax: str = EXPLICIT_LITTLE_ENDIAN) -> bytes:
    """A sound object with one more element."""
    elements = elements_of(encoded(dataset()))
    at = next(n for n, other in enumerate(elements) if other.tag > made.tag)
    return joined([*elements[:at], made, *elements[at:]], syntax == IMPLICIT_LITTLE_ENDIAN)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [True, False], ids=["undefined lengths", "lengths"])
@pytest.mark.parametrize("depth", [100, 1000])
def test_sequences_a_thousand_deep_are_refused(syntax, undefined, depth):
    data = with_element(nested(depth, syntax == IMPLICIT_LITTLE_ENDIAN, undefined=undefined, closed=True), syntax)
    for read in (lambda: read_header(data, syntax), lambda: open_dataset(data, syntax)):
        with pytest.raises(UnreadableObject, match="nested more than 64 deep"):
            read()


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [True, False], ids=["undefined lengths", "lengths"])
def test_sequences_of_a_sensible_depth_are_nothing_special(syntax, undefined):
    data = with_element(nested(20, syntax == IMPLICIT_LITTLE_ENDIAN, undefined=undefined, closed=True), syntax)
    assert read_header(data, syntax).patient.patient_id == "4711"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_many_elements_are_refused(syntax):
    implicit = syntax == IMPLICIT_LITTLE_ENDIAN
    elements = elements_of(encoded(dataset()))
    many = [Element(0x00090000 | n, "LO", b"") for n in range(bounds.MAX_ELEMENTS)]
    with pytest.raises(UnreadableObject, match="data elements"):
        read_header(joined([*elements[:4], *many, *elements[4:]], implicit), syntax)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_many_elements_inside_a_sequence_are_refused(syntax):
    implicit = syntax == IMPLICIT_LITTLE_ENDIAN
    inside = joined([Element(0x00080100, "SH", b"")] * bounds.MAX_ELEMENTS, implicit)
    made = Element(0x00082218, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(inside)) + inside)
    with pytest.raises(UnreadableObject, match="data elements"):
        read_header(with_element(made, syntax), syntax)


def test_a_value_that_would_become_a_million_is_refused():
    made = Element(0x00181164, "DS", b"\\" * (bounds.MAX_VALUE_BYTES + 2))
    with pytest.raises(UnreadableObject, match=r"\(0018,1164\) is longer"):
        read_header(with_element(made, IMPLICIT_LITTLE_ENDIAN), IMPLICIT_LITTLE_ENDIAN)


@pytest.mark.parametrize("tag", [0x00282000, 0x00091001], ids=["colour profile", "private"])
def test_long_binary_values_are_nothing_special(tag):
    made = Element(tag, "OB", bytes(bounds.MAX_VALUE_BYTES + 2))
    assert read_header(with_element(made), EXPLICIT_LITTLE_ENDIAN).rows == 48


def test_an_icon_with_compressed_pixels_is_stepped_over():
    fragments = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, 4) + b"\xfe\xff\x0d\xe0" for _ in range(3))
    icon = Element(0x7FE00010, "OB", fragments + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), 0xFFFFFFFF).encoded(False)
    made = Element(0x00880200, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(icon)) + icon)
    assert read_header(with_element(made), EXPLICIT_LITTLE_ENDIAN).rows == 48
