"""Content negotiation: what a header means, and which form answers it."""

from __future__ import annotations

import pytest

from dicom_listener.dicomweb_media import Wanted, choose, content_type, parse_accept, wanted_frames, wanted_instances
from dicom_listener.dicomweb_retrieve import form_of_file, form_of_pixels
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN

JPEG = "1.2.840.10008.1.2.4.50"


def test_ranges_come_by_weight_and_quoted_commas_do_not_split():
    ranges = parse_accept('a/b;q=0.2, multipart/related; type="x/y,z;w"; q=0.9, c/d')
    assert [one.kind for one in ranges] == ["c/d", "multipart/related", "a/b"]
    assert ranges[1].parameters == {"type": "x/y,z;w"}


@pytest.mark.parametrize("header", ["nonsense", "a/b;q=0", "a/b;q=2", "a/b;q=x", ",,;", '"'])
def test_what_accepts_nothing(header):
    assert choose(header, ["a/b"]) is None


@pytest.mark.parametrize("header", ["", "*/*", "a/*", "A/B; charset=utf-8", "c/d, a/b;q=0.1"])
def test_what_accepts_it(header):
    assert choose(header, ["a/b"]) == "a/b"


def test_content_type_with_its_boundary():
    said = content_type('Multipart/Related; Type="application/dicom"; boundary="a b;c"')
    assert (said.kind, said.parameters) == ("multipart/related", {"type": "application/dicom", "boundary": "a b;c"})
    assert content_type("").kind == ""


def test_a_single_file_only_where_one_instance_is_asked_for():
    assert wanted_instances("application/dicom", one=False) == ()
    assert wanted_instances("application/dicom", one=True) == (
        Wanted("application/dicom", EXPLICIT_LITTLE_ENDIAN, single=True),
    )


@pytest.mark.parametrize(
    ("accept", "stored", "given"),
    [
        ("", JPEG, EXPLICIT_LITTLE_ENDIAN),
        ('multipart/related; type="application/dicom"; transfer-syntax=*', JPEG, JPEG),
        (f'multipart/related; type="application/dicom"; transfer-syntax={JPEG}', JPEG, JPEG),
        (f'multipart/related; type="application/dicom"; transfer-syntax={JPEG}', EXPLICIT_LITTLE_ENDIAN, None),
        ('multipart/related; type="application/dicom+xml"', JPEG, None),
    ],
)
def test_transfer_syntax_of_a_file(accept, stored, given):
    form = form_of_file(wanted_instances(accept, one=True), stored)
    assert (form and form.syntax) == given


@pytest.mark.parametrize(
    ("accept", "stored", "given"),
    [
        ("*/*", JPEG, ("application/octet-stream", EXPLICIT_LITTLE_ENDIAN)),
        ('multipart/related; type="image/jpeg"', JPEG, ("image/jpeg", JPEG)),
        ('multipart/related; type="image/jpeg"', IMPLICIT_LITTLE_ENDIAN, None),
        (
            'multipart/related; type="application/octet-stream"; transfer-syntax=*',
            JPEG,
            ("application/octet-stream", JPEG),
        ),
        ("application/octet-stream", IMPLICIT_LITTLE_ENDIAN, ("application/octet-stream", EXPLICIT_LITTLE_ENDIAN)),
    ],
)
def test_form_of_pixels(accept, stored, given):
    form = form_of_pixels(wanted_frames(accept), stored)
    assert (form and (form.media_type, form.syntax)) == given
