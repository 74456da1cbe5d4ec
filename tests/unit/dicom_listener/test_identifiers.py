"""UIDs that are paths, identifiers whose characters were lost: refused, or held for a person, never believed."""

from __future__ import annotations

import pytest

from dermoscopy.errors import UnreadableObject
from dicom_listener.header import read_header
from dicom_listener.identifiers import trusted
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN
from tests.fuzz.elements import elements_of, joined
from tests.fuzz.objects import PATHS
from tests.unit.dicom_listener.samples import dataset, encoded

HARMLESS = ("1..2", ".", "..", "1.2.", "01.2", "1.2.840.10008.1.1\n")
"""Not allowed by PS3.5 9.1 either, but digits and dots, which lead nowhere; the line's end counts as padding."""


def changed(tag: int, value: bytes, vr: str = "", charset: bytes = b"ISO_IR 192") -> bytes:
    """A sound object with another value in one element."""
    elements = elements_of(encoded(dataset()))
    for element in elements:
        if element.tag == 0x00080005:
            element.value = charset
        if element.tag == tag:
            element.value, element.vr = value + b"\0" * (len(value) % 2), vr or element.vr
    return joined(elements, implicit=False)


@pytest.mark.parametrize("tag", [0x00080018, 0x0020000D, 0x0020000E], ids=["instance", "study", "series"])
@pytest.mark.parametrize("uid", [path for path in PATHS if path not in HARMLESS], ids=lambda path: path[:20])
def test_a_uid_that_is_none_is_refused_and_not_repeated(tag, uid):
    with pytest.raises(UnreadableObject) as refused:
        read_header(changed(tag, uid.encode()), EXPLICIT_LITTLE_ENDIAN)
    assert "etc" not in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("tag", [0x00080018, 0x0020000D], ids=["instance", "study"])
@pytest.mark.parametrize("vr", ["OB", "UN", "SQ", "AT", "US"])
def test_a_uid_under_another_representation_is_no_python_text(tag, vr):
    try:
        header = read_header(changed(tag, b"1.2.34", vr), EXPLICIT_LITTLE_ENDIAN)
    except UnreadableObject:
        return
    assert "1.2.34" in (header.sop_instance_uid, header.study_instance_uid)  # UN: the dictionary knows better


@pytest.mark.parametrize("tag", [0x00100020, 0x00100021], ids=["patient id", "issuer"])
@pytest.mark.parametrize(
    "value",
    [b"A\0B", b"A\nB", b"A\x7fB", b"\x1b$B;3ED\x1b(B", b"M\xfcller", b"\xff\xfe", "‮1174".encode(), b"x" * 3000],
    ids=["null", "line", "delete", "undeclared Japanese", "Latin-1", "neither", "right to left", "endless"],
)
def test_who_cannot_be_told_is_nobody_so_that_a_person_decides(tag, value):
    assert not read_header(changed(tag, value), EXPLICIT_LITTLE_ENDIAN).patient.known


def test_two_patients_whose_characters_were_lost_are_not_one():
    """Both would read as two replacement characters."""
    for value in ("山田".encode("euc_jp"), "鈴木".encode("euc_jp")):
        assert read_header(changed(0x00100020, value), EXPLICIT_LITTLE_ENDIAN).patient.patient_id == ""


@pytest.mark.parametrize("vr", ["OB", "SQ"])
def test_a_patient_id_that_is_no_text_is_absent(vr):
    assert not read_header(changed(0x00100020, b"", vr), EXPLICIT_LITTLE_ENDIAN).patient.known
    assert not read_header(changed(0x00100020, b"\xfe\xff\x00\xe0\0\0\0\0", vr), EXPLICIT_LITTLE_ENDIAN).patient.known


@pytest.mark.parametrize(
    ("charset", "value", "text"),
    [
        (b"ISO_IR 192", "山田-1".encode(), "山田-1"),
        (b"ISO_IR 100", b"M\xfcller", "Müller"),
        (b"GB18030 ", "王1".encode("gb18030"), "王1"),
        (b"\\ISO 2022 IR 87 ", b"\x1b$B;3ED\x1b(B", "山田"),
        (b"\\ISO 2022 IR 149", b"\x1b$)C\xb1\xe8", "김"),
        (b"\\ISO 2022 IR 58 ", b"\x1b$)A\xd5\xc5", "张"),
        (b"ISO_IR 192", b"A B-1/2", "A B-1/2"),
    ],
)
def test_identifiers_in_their_declared_character_set_are_believed(charset, value, text):
    header = read_header(changed(0x00100020, value, charset=charset), EXPLICIT_LITTLE_ENDIAN)
    assert header.patient.patient_id == text


def test_what_can_be_trusted():
    assert trusted("")
    assert trusted("x" * 256)
    assert not trusted("x" * 257)
    assert not trusted("é" * 257)


def test_an_accession_number_that_cannot_be_trusted_is_left_out():
    header = read_header(changed(0x00080050, b"A\0B"), EXPLICIT_LITTLE_ENDIAN)
    assert (header.accession_number, header.patient.patient_id) == ("", "4711")
