from __future__ import annotations

import pytest

from dicom_listener.decode import decode
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN
from tests.unit.dicom_listener.samples import dataset, picture, source


def seen(**changes):
    return decode(source(dataset(picture(100, 100), **changes), EXPLICIT_LITTLE_ENDIAN))


def codes(**changes) -> set[str]:
    return {remark.code for remark in seen(ColorSpace="SRGB", **changes).remarks}


@pytest.mark.parametrize(
    ("changes", "aspect"),
    [
        ({}, 1.0),
        ({"PixelAspectRatio": ["1", "1"]}, 1.0),
        ({"PixelAspectRatio": ["6", "5"]}, 1.2),
        ({"PixelSpacing": ["0.03", "0.02"]}, 1.5),
        ({"PixelSpacing": ["0.0200", "0.0201"]}, 1.0),
        ({"PixelSpacing": ["0.02", "0.02"], "PixelAspectRatio": ["6", "5"]}, 1.0),
        ({"PixelAspectRatio": ["100", "1"]}, 1.0),
        ({"PixelAspectRatio": ["0", "1"]}, 1.0),
    ],
)
def test_the_shape_of_a_pixel(changes, aspect):
    assert seen(**changes).aspect == pytest.approx(aspect)
    assert seen(**changes).pixels.shape == (100, 100, 3)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"PixelAspectRatio": ["6", "5"]}, "aspect"),
        ({"PixelAspectRatio": ["100", "1"]}, "aspect_unusable"),
        ({"LossyImageCompression": "01"}, "lossy"),
        ({"BurnedInAnnotation": "YES"}, "burned_in"),
        ({"PatientOrientation": ["L", "F"]}, "orientation"),
        ({"PartialView": "YES"}, "partial_view"),
    ],
)
def test_what_a_reader_should_know_is_remarked(changes, code):
    assert codes(**changes) == {code}


def test_an_ordinary_picture_needs_no_remark():
    assert codes(LossyImageCompression="00", BurnedInAnnotation="NO", PatientOrientation="") == set()


def test_the_history_of_compression_is_multiplied():
    remarks = seen(LossyImageCompression="01", LossyImageCompressionRatio=["10", "2.5"]).remarks
    assert any("25 : 1" in remark.words for remark in remarks)
