from __future__ import annotations

import io
import tarfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from dermoscopy.domain import ImageHeader, PatientIdentity, SourceObject
from dermoscopy.errors import Rejected, UnreadableObject
from dicom_listener.decode import decode, pixel_digest
from dicom_listener.part10 import split_part10
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from tests.unit.dicom_listener.samples import (
    RECEIVED,
    as_file,
    compressed,
    dataset,
    encoded,
    picture,
    picture_source,
    source,
)

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
NOBODY = PatientIdentity("", "")


def pixels_of(made, syntax=EXPLICIT_LITTLE_ENDIAN):
    return decode(source(made, syntax)).pixels


def as_source(data: bytes, syntax: str) -> SourceObject:
    """A source whose header was not checked: files of other people's devices."""
    header = ImageHeader("application/dicom", NOBODY, 0, 0, transfer_syntax_uid=syntax)
    return SourceObject("x", data, header, RECEIVED)


def close(left, right, tolerance):
    return np.abs(left.astype(int) - right.astype(int)).mean() <= tolerance


def jpeg_dataset(pixels, photometric="YBR_FULL_422", **options):
    made = dataset(pixels, PhotometricInterpretation=photometric)
    made.PixelData = encapsulate([as_file(pixels, "JPEG", quality=95, **options)])
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = JPEG_BASELINE
    return made


def test_rgb_comes_back_exactly():
    assert np.array_equal(pixels_of(dataset()), picture())


def test_colour_by_plane():
    planes = np.ascontiguousarray(picture().transpose(2, 0, 1))
    made = dataset(PlanarConfiguration=1)
    made.PixelData = planes.tobytes()
    assert np.array_equal(pixels_of(made), picture())


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, RLELossless])
def test_lossless_compression_changes_nothing(syntax):
    assert np.array_equal(pixels_of(compressed(syntax), syntax), picture())


def test_native_ybr_full():
    made = dataset(PhotometricInterpretation="YBR_FULL")
    made.PixelData = Image.fromarray(picture()).convert("YCbCr").tobytes()
    assert close(pixels_of(made), picture(), 1.5)


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL", "RGB"])
def test_jpeg_is_converted_by_what_the_decoder_returned(photometric):
    """A JFIF stream holds YCbCr whatever the dataset says of it."""
    assert close(pixels_of(jpeg_dataset(picture(), photometric, subsampling=0), JPEG_BASELINE), picture(), 3)


def test_jpeg_with_subsampled_colour():
    assert close(pixels_of(jpeg_dataset(picture(), subsampling=2), JPEG_BASELINE), picture(), 4)


def test_grey_jpeg():
    grey = picture()[..., 0]
    made = jpeg_dataset(grey, "MONOCHROME2")
    assert close(pixels_of(made, JPEG_BASELINE)[..., 1], grey, 2)


def test_monochrome_both_ways():
    grey = picture()[..., 0]
    assert np.array_equal(pixels_of(dataset(grey))[..., 2], grey)
    assert np.array_equal(pixels_of(dataset(grey, PhotometricInterpretation="MONOCHROME1"))[..., 2], 255 - grey)


@pytest.mark.parametrize("stored", [10, 12, 16])
def test_deep_pixels_become_eight_bits(stored):
    deep = picture().astype(np.uint16) << (stored - 8)
    assert np.array_equal(pixels_of(dataset(deep, BitsStored=stored, HighBit=stored - 1)), picture())


def test_palette_colour():
    indices = (picture()[..., 0] // 64).astype(np.uint8)
    made = dataset(indices, PhotometricInterpretation="PALETTE COLOR")
    lut = np.array([[10, 20, 30], [60, 70, 80], [110, 120, 130], [240, 200, 160]], np.uint16)
    for channel, colour in enumerate(("Red", "Green", "Blue")):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, 16])
        setattr(made, f"{colour}PaletteColorLookupTableData", (lut[:, channel] << 8).tobytes())
    assert np.array_equal(pixels_of(made), lut[indices].astype(np.uint8))


def test_an_embedded_profile_is_honoured():
    """A profile with swapped primaries turns the picture; one that is sRGB leaves it."""
    plain = pixels_of(dataset())
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(pixels_of(dataset(ICCProfile=srgb)), plain)
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    assert np.array_equal(pixels_of(dataset(ICCProfile=lab)), plain)  # not for RGB: ignored, not fatal
    swapped = bytearray(srgb)
    for position in range(128, 400):
        tag = bytes(swapped[position : position + 4])
        if tag in (b"rXYZ", b"gXYZ"):
            swapped[position : position + 4] = b"gXYZ" if tag == b"rXYZ" else b"rXYZ"
    renamed = bytes(swapped).replace(b"s\0R\0G\0B", b"w\0i\0d\0e").replace(b"sRGB", b"wide")
    assert not close(pixels_of(dataset(ICCProfile=renamed)), plain, 5)


@pytest.mark.parametrize(
    ("elements", "spacing"),
    [
        ({"PixelSpacing": ["0.02", "0.03"]}, (0.02, 0.03)),
        ({"ImagerPixelSpacing": ["0.05", "0.05"]}, (0.05, 0.05)),
        ({"NominalScannedPixelSpacing": ["0.04", "0.04"]}, (0.04, 0.04)),
        ({"PixelSpacing": ["0.02", "0.02"], "ImagerPixelSpacing": ["0.05", "0.05"]}, (0.02, 0.02)),
        ({"PixelSpacing": ["0", "0"]}, None),
        ({"ImagerPixelSpacing": ["0.0000045", "0.0000045"]}, None),
        ({}, None),
    ],
)
def test_scale_is_taken_only_where_it_is_stated_and_plausible(elements, spacing):
    made = dataset(picture(100, 100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, value in elements.items():
            setattr(made, keyword, value)
    assert decode(source(made)).spacing_mm == spacing


def test_how_the_picture_was_taken():
    made = dataset(
        LightSourcePolarization="NON_POLARIZED",
        ContactMethod="CONTACT",
        ImmersionMedia=["ALCOHOL"],
        OpticalMagnificationFactor="10",
    )
    acquisition = decode(source(made)).acquisition
    assert (acquisition.polarised, acquisition.contact) == (False, True)
    assert (acquisition.immersion, acquisition.magnification) == ("alcohol", 10.0)
    assert acquisition.station == "Lens One"


def test_unknown_acquisition_is_unknown():
    acquisition = decode(source(dataset(Manufacturer=None, ManufacturerModelName=None))).acquisition
    assert (acquisition.polarised, acquisition.contact, acquisition.immersion, acquisition.station) == (None,) * 4


@pytest.mark.parametrize("name", ["eb+cr", "eb+cy+n1", "eb+cy+n2", "eb+cy+np", "eb+cy+s2", "eb+cy+s4"])
def test_one_picture_in_every_jpeg_colour_model_looks_the_same(name):
    """dcmtk wrote one picture with and without colour transform, with and without subsampling."""
    data, syntax = split_part10(Path(get_testdata_file(f"SC_rgb_dcmtk_+{name}.dcm")).read_bytes())
    seen = decode(as_source(data, syntax)).pixels
    plain = dcmread(get_testdata_file("SC_rgb_dcmtk_+eb+cr.dcm")).pixel_array
    assert close(seen, plain, 3)
    assert tuple(seen[5, 50].tolist()) == pytest.approx((255, 0, 0), abs=4)
    assert tuple(seen[25, 50].tolist()) == pytest.approx((0, 255, 0), abs=6)


@pytest.mark.parametrize(
    "name", ["SC_rgb_jpeg_gdcm.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_rle.dcm", "SC_rgb_gdcm_KY.dcm"]
)
def test_other_makers_files(name):
    data, syntax = split_part10(Path(get_testdata_file(name)).read_bytes())
    assert tuple(decode(as_source(data, syntax)).pixels[5, 50].tolist()) == pytest.approx((255, 0, 0), abs=4)


def test_damaged_pixel_data_is_unreadable():
    made = compressed(JPEG2000Lossless)
    made.PixelData = encapsulate([b"\0" * 500])
    made["PixelData"].is_undefined_length = True
    with pytest.raises(UnreadableObject, match="cannot be decoded"):
        decode(as_source(encoded(made, JPEG2000Lossless), JPEG2000Lossless))


def test_a_codestream_of_another_size_than_stated():
    made = compressed(JPEG2000Lossless)
    made.Rows = 32
    with pytest.raises(Rejected):
        decode(as_source(encoded(made, JPEG2000Lossless), JPEG2000Lossless))


def test_implicit_little_endian():
    assert np.array_equal(pixels_of(dataset(), IMPLICIT_LITTLE_ENDIAN), picture())


# ------------------------------------------------------------------------------------------------------------ pictures


def test_png_is_exact_and_has_no_scale():
    image = decode(picture_source("PNG"))
    assert np.array_equal(image.pixels, picture(49, 65))
    assert image.spacing_mm is None


def test_density_in_a_picture_is_no_scale():
    stored = picture_source("PNG")
    stored = replace(stored, data=as_file(picture(49, 65), "PNG", dpi=(300, 300)))
    assert decode(stored).spacing_mm is None


def test_jpeg_is_turned_as_exif_says():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    stored = replace(picture_source("JPEG"), data=as_file(picture(), "JPEG", exif=exif, quality=95))
    assert close(decode(stored).pixels, np.rot90(picture(), 3), 4)


def test_transparent_and_deep_and_grey_pngs():
    clear = np.dstack([picture(), np.zeros((48, 64), np.uint8)])
    assert (decode(replace(picture_source(), data=as_file(clear))).pixels == 255).all()
    deep = picture()[..., 0].astype(np.uint16) * 257
    buffer = io.BytesIO()
    Image.fromarray(deep).save(buffer, "PNG")
    assert np.array_equal(decode(replace(picture_source(), data=buffer.getvalue())).pixels[..., 0], picture()[..., 0])
    grey = as_file(picture()[..., 0])
    assert np.array_equal(decode(replace(picture_source(), data=grey)).pixels[..., 1], picture()[..., 0])


def test_a_cut_picture_is_unreadable():
    stored = picture_source("PNG", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    with pytest.raises(UnreadableObject):
        decode(replace(stored, data=stored.data[: len(stored.data) // 2]))


# -------------------------------------------------------------------------------------------------------------- digest


def test_the_digest_is_of_shape_and_pixels():
    pixels = picture()
    assert decode(source()).pixel_digest == pixel_digest(pixels)
    assert pixel_digest(pixels) != pixel_digest(pixels.reshape(64, 48, 3))
    assert pixel_digest(pixels[:, ::-1]) == pixel_digest(np.ascontiguousarray(pixels[:, ::-1]))


def test_the_same_picture_has_one_digest_in_every_lossless_encoding():
    digests = {
        decode(source(compressed(s), s)).pixel_digest for s in (JPEG2000Lossless, JPEGLSLossless, RLELossless)
    } | {decode(source()).pixel_digest, decode(picture_source("PNG", picture())).pixel_digest}
    assert len(digests) == 1


def test_real_photographs_come_back_as_pillow_decodes_them(shared_data):
    """A JPEG put into DICOM as it is decodes to the picture that the JPEG file holds."""
    archives = sorted(shared_data.glob("ham10000-native-*.tar"))
    if not archives:
        pytest.skip("no native dermoscopy images in the shared data")
    with tarfile.open(archives[0]) as archive:
        members = [member for member in archive if member.isfile() and member.name.lower().endswith(".jpg")][:3]
        photographs = [archive.extractfile(member).read() for member in members]
    assert photographs
    for photograph in photographs:
        plain = np.asarray(Image.open(io.BytesIO(photograph)).convert("RGB"))
        made = dataset(plain, PhotometricInterpretation="YBR_FULL_422")
        made.PixelData = encapsulate([photograph])
        made["PixelData"].is_undefined_length = True
        assert close(decode(source(made, JPEG_BASELINE)).pixels, plain, 1.5)
        stored = replace(picture_source("JPEG"), data=photograph)
        assert np.array_equal(decode(stored).pixels, plain)
