from __future__ import annotations

import contextlib
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import (
    Rejected,
    UnreadableObject,
    UnsupportedImage,
    UnsupportedSopClass,
    UnsupportedTransferSyntax,
)
from dicom_listener import header as header_module
from dicom_listener.header import read_header, read_picture_header
from dicom_listener.part10 import split_part10, to_part10
from dicom_listener.syntaxes import DEFLATED_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from tests.unit.dicom_listener.samples import as_file, compressed, dataset, encoded, part10, picture

NOBODY = PatientIdentity("", "")


def read(made: Dataset, syntax: str = EXPLICIT_LITTLE_ENDIAN):
    return read_header(encoded(made, syntax), syntax)


def test_says_who_what_and_where():
    header = read(dataset())
    assert header.patient == PatientIdentity("HOSPITAL-A", "4711")
    assert (header.rows, header.columns) == (48, 64)
    assert header.accession_number == "ACC-1"
    assert header.body_site_code == "66643007"
    assert header.laterality == "L"
    assert header.transfer_syntax_uid == EXPLICIT_LITTLE_ENDIAN
    assert header.media_type == "application/dicom"


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN])
def test_both_native_encodings_give_the_same_header(syntax):
    assert read(dataset(), syntax).sop_instance_uid == dataset().SOPInstanceUID


def test_a_file_and_its_dataset_have_one_header():
    data, syntax = split_part10(part10(dataset()))
    assert read_header(part10(dataset()), None) == read_header(data, syntax)


def test_a_file_is_rebuilt_around_the_dataset():
    data, syntax = split_part10(part10(dataset()))
    again = to_part10(data, read_header(data, syntax))
    assert split_part10(again) == (data, syntax)


def test_no_patient_id_is_legal():
    assert not read(dataset(PatientID=None)).patient.known


def test_issuer_from_its_qualifiers():
    qualifiers = Dataset()
    qualifiers.UniversalEntityID, qualifiers.UniversalEntityIDType = "1.2.3", "ISO"
    made = dataset(IssuerOfPatientID=None, IssuerOfPatientIDQualifiersSequence=[qualifiers])
    assert read(made).patient.issuer == "1.2.3"


def test_old_snomed_codes_are_translated():
    made = dataset()
    made.AnatomicRegionSequence[0].CodeValue = "T-D4000"
    made.AnatomicRegionSequence[0].CodingSchemeDesignator = "SRT"
    assert read(made).body_site_code == "113345001"


def test_an_unknown_scheme_is_no_site():
    made = dataset()
    made.AnatomicRegionSequence[0].CodingSchemeDesignator = "99SITE"
    assert read(made).body_site_code == ""


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (dataset(PixelData=None), UnreadableObject, "no pixel data"),
        (dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), UnsupportedSopClass, "is not taken"),
        (dataset(picture(1, 1)), UnsupportedImage, "1 × 1"),
        (dataset(picture(15, 64)), UnsupportedImage, "at least 16"),
        (dataset(Rows=20_001, Columns=64), UnsupportedImage, "at most 20000"),
        (dataset(Rows=20_000, Columns=20_000), UnsupportedImage, "megapixels"),
        (dataset(NumberOfFrames=2), UnreadableObject, "truncated: 9216 of 18432"),
        (dataset(NumberOfFrames=10_001), UnsupportedImage, "frames"),
        (dataset(NumberOfFrames=-1), UnsupportedImage, "frames"),
        (dataset(Rows=None), UnreadableObject, "size"),
        (dataset(SOPInstanceUID=None), UnreadableObject, "UID is missing"),
        (dataset(StudyInstanceUID=None), UnreadableObject, "Study"),
        (dataset(PhotometricInterpretation="CMYK"), UnsupportedImage, "CMYK"),
        (dataset(SamplesPerPixel=1), UnsupportedImage, "samples"),
        (dataset(BitsAllocated=32, BitsStored=32), UnsupportedImage, "32"),
        (dataset(PhotometricInterpretation="PALETTE COLOR", SamplesPerPixel=1), UnsupportedImage, "lookup"),
        (dataset(PixelData=b"\0" * 100), UnreadableObject, "truncated: 100 of 9216"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_with_a_sentence_that_says_why(made, error, words):
    with pytest.raises(error, match=words):
        read(made)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello, this is no DICOM object at all " * 10, "not a"),
        (b"\0" * 4096, "not a DICOM image"),
        (encoded(dataset())[:300], "readable DICOM|missing|no pixel data"),
        (encoded(dataset())[:-1000], "truncated"),
    ],
    ids=["empty", "text", "zeros", "cut in the header", "cut in the pixels"],
)
def test_damage_is_unreadable(data, words):
    with pytest.raises(UnreadableObject, match=words):
        read_header(data, EXPLICIT_LITTLE_ENDIAN)


@pytest.mark.parametrize("cut", [1, 9, 200])
def test_cut_compressed_pixels_are_truncated(cut):
    made = compressed("1.2.840.10008.1.2.5")
    with pytest.raises(UnreadableObject, match=r"truncated|damaged"):
        read_header(encoded(made)[:-cut], "1.2.840.10008.1.2.5")


def test_an_encoding_without_a_decoder():
    with pytest.raises(UnsupportedTransferSyntax, match="cannot be decoded"):
        read_header(encoded(dataset()), "1.2.840.10008.1.2.4.100")


def test_an_object_of_several_frames_is_read_and_says_so():
    made = dataset(NumberOfFrames=3)
    made.PixelData = 3 * picture().tobytes()
    assert read(made).frames == 3
    assert read(dataset(NumberOfFrames=1)).frames == 1
    assert read(dataset()).frames == 1


def test_fewer_compressed_frames_than_stated_are_truncated():
    made = compressed("1.2.840.10008.1.2.5")
    made.NumberOfFrames = 2
    with pytest.raises(UnreadableObject, match="2 frames and has 1"):
        read_header(encoded(made), "1.2.840.10008.1.2.5")


def test_a_file_that_is_none():
    with pytest.raises(UnreadableObject, match="DICM"):
        read_header(b"not a file", None)


def deflated(data: bytes) -> bytes:
    engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return engine.compress(data) + engine.flush()


def test_deflated_datasets_are_read():
    assert read_header(deflated(encoded(dataset())), DEFLATED_LITTLE_ENDIAN).rows == 48


def test_a_cut_deflated_dataset():
    with pytest.raises(UnreadableObject, match="truncated"):
        read_header(deflated(encoded(dataset()))[:-5], DEFLATED_LITTLE_ENDIAN)


def test_a_deflate_bomb_stops(monkeypatch):
    monkeypatch.setattr("dicom_listener.part10.MAX_INFLATED_BYTES", 4096)
    with pytest.raises(UnreadableObject, match="beyond the allowed size"):
        read_header(deflated(encoded(dataset())), DEFLATED_LITTLE_ENDIAN)


def test_deeply_nested_sequences_do_not_break_the_reader():
    nest = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(UnreadableObject):
        read_header(nest * 5000, EXPLICIT_LITTLE_ENDIAN)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damage_is_a_clear_refusal_or_a_header(data):
    good = bytearray(encoded(dataset(picture(16, 16))))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    with contextlib.suppress(Rejected):  # any other exception fails the test
        read_header(bytes(good[:cut]), EXPLICIT_LITTLE_ENDIAN)


def test_an_object_that_ends_within_a_number_is_refused():
    whole = encoded(dataset(picture(16, 16)))
    columns = whole.index(b"\x28\x00\x11\x00US\x02\x00")
    with pytest.raises(UnreadableObject):
        read_header(whole[: columns + 9], EXPLICIT_LITTLE_ENDIAN)


@pytest.mark.parametrize(("form", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg")])
def test_picture_headers(form, media_type):
    header = read_picture_header(as_file(picture(), form), PatientIdentity("A", "1"))
    assert (header.media_type, header.rows, header.columns) == (media_type, 48, 64)
    assert header.patient == PatientIdentity("A", "1")


def test_a_turned_photograph_states_its_turned_size():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    header = read_picture_header(as_file(picture(), "JPEG", exif=exif), NOBODY)
    assert (header.rows, header.columns) == (64, 48)


@pytest.mark.parametrize("data", [b"", b"a text file called .png", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\0"])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(UnreadableObject):
        read_picture_header(data, NOBODY)


def test_a_gif_is_no_png():
    with pytest.raises(UnreadableObject, match="PNG or JPEG"):
        read_picture_header(as_file(picture(), "GIF"), NOBODY)


def test_a_tiny_picture():
    with pytest.raises(UnsupportedImage, match="1 × 1"):
        read_picture_header(as_file(picture(1, 1)), NOBODY)


def test_a_bomb_is_refused_before_it_is_decoded():
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    body = zlib.compress(bytes(1000))
    idat = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    with pytest.raises(UnsupportedImage):
        read_picture_header(b"\x89PNG\r\n\x1a\n" + chunk + idat, NOBODY)


def test_limits_are_what_the_documentation_says():
    assert (header_module.MIN_SIDE, header_module.MAX_SIDE, header_module.MAX_PIXELS) == (16, 20_000, 100_000_000)


def test_odd_sized_images_are_padded_not_refused():
    assert read(dataset(np.zeros((17, 19, 3), np.uint8))).columns == 19
