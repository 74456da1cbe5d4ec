"""Each way in which a picture's colours may be written ends in the same picture."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from highdicom.pixels import apply_voi_window
from PIL import Image, ImageCms
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless

from dermoscopy.phantoms import phantom
from dicom_listener.colour import has_component_transform, jpeg_colour_model, palette_to_rgb
from dicom_listener.decode import decode
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN
from tests.unit.dicom_listener.samples import as_file, dataset, picture_source, source

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
SKIN = phantom(3, kind="nevus", rows=48, columns=64).pixels


def seen(made: Dataset, syntax: str = EXPLICIT_LITTLE_ENDIAN):
    return decode(source(made, syntax))


def codes(image) -> set[str]:
    return {remark.code for remark in image.remarks}


def error(image, pixels=SKIN) -> float:
    return float(np.abs(image.pixels.astype(int) - pixels).mean())


# ---------------------------------------------------------------------------------------------- JPEG


def without(stream: bytes, *markers: int) -> bytes:
    """``stream`` without the segments of these markers."""
    done, position = stream[:2], 2
    while stream[position + 1] != 0xDA:
        end = position + 2 + struct.unpack_from(">H", stream, position + 2)[0]
        if stream[position + 1] not in markers:
            done += stream[position:end]
        position = end
    return done + stream[position:]


def adobe(stream: bytes, transform: int) -> bytes:
    marker = b"\xff\xee" + struct.pack(">H5sHHHB", 14, b"Adobe", 100, 0, 0, transform)
    return stream[:2] + marker + stream[2:]


def named(stream: bytes, names: bytes) -> bytes:
    """``stream`` with its components called ``names``."""
    changed = bytearray(stream)
    frame, scan = changed.index(b"\xff\xc0"), changed.index(b"\xff\xda")
    for number, name in enumerate(names):
        changed[frame + 10 + 3 * number] = changed[scan + 5 + 2 * number] = name
    return bytes(changed)


JFIF = as_file(SKIN, "JPEG", quality=95, subsampling=0)
HALVED = as_file(SKIN, "JPEG", quality=95, subsampling=1)
_AS_IF_YBR = Image.frombytes("YCbCr", (SKIN.shape[1], SKIN.shape[0]), SKIN.tobytes())
_BUFFER = io.BytesIO()
_AS_IF_YBR.save(_BUFFER, "JPEG", quality=95, subsampling=0)
BARE_RGB = without(_BUFFER.getvalue(), 0xE0)
BARE_YBR = without(JFIF, 0xE0)
STREAMS = {
    "JFIF": (JFIF, "YBR_FULL_422"),
    "JFIF, halved colour": (HALVED, "YBR_FULL_422"),
    "no marker, halved colour": (without(HALVED, 0xE0), "YBR_FULL_422"),
    "Adobe, YCbCr": (adobe(BARE_YBR, 1), "YBR_FULL_422"),
    "Adobe, RGB": (adobe(BARE_RGB, 0), "RGB"),
    "components called RGB": (named(BARE_RGB, b"RGB"), "RGB"),
    "JFIF before Adobe": (adobe(JFIF, 0), "YBR_FULL_422"),
}


def in_jpeg(stream: bytes, photometric: str) -> Dataset:
    made = dataset(SKIN, PhotometricInterpretation=photometric)
    made.PixelData = encapsulate([stream])
    made["PixelData"].is_undefined_length = True
    return made


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT"])
@pytest.mark.parametrize("name", STREAMS)
def test_a_jpeg_that_says_its_colour_model_is_believed(name, photometric):
    stream, model = STREAMS[name]
    assert jpeg_colour_model(stream) == model
    image = seen(in_jpeg(stream, photometric), JPEG_BASELINE)
    assert error(image) < 3
    assert ("colour_model" in codes(image)) == ((photometric == "RGB") != (model == "RGB"))


@pytest.mark.parametrize(("stream", "photometric"), [(BARE_YBR, "YBR_FULL_422"), (BARE_RGB, "RGB")])
def test_where_a_jpeg_says_nothing_the_header_is_believed(stream, photometric):
    assert jpeg_colour_model(stream) == ""
    assert error(seen(in_jpeg(stream, photometric), JPEG_BASELINE)) < 3


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_a_cut_jpeg_says_nothing(cut):
    assert jpeg_colour_model(JFIF[:cut]) == ""


# ---------------------------------------------------------------------------------------------- JPEG 2000, native


@pytest.mark.parametrize(("photometric", "odd"), [("YBR_RCT", False), ("YBR_FULL", True), ("RGB", False)])
def test_jpeg_2000_that_transforms_its_colours_itself(photometric, odd):
    """What comes out of the decoder is RGB, whatever the header calls it."""
    stream = as_file(SKIN, "JPEG2000", mct=1, irreversible=False, no_jp2=True)
    assert has_component_transform(stream)
    image = seen(in_jpeg(stream, photometric), JPEG2000Lossless)
    assert error(image) == 0
    assert ("colour_model" in codes(image)) == odd


def test_jpeg_2000_of_ybr_samples():
    ybr = np.asarray(Image.fromarray(SKIN).convert("YCbCr"))
    made = dataset(ybr, PhotometricInterpretation="YBR_FULL")
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    assert made.PhotometricInterpretation == "YBR_FULL"
    assert error(seen(made, JPEG2000Lossless)) < 1.5


def halved(ybr: np.ndarray) -> bytes:
    """YCbCr as Y Y Cb Cr (PS3.3 C.7.6.3.1.2, YBR_FULL_422)."""
    pairs = ybr.reshape(ybr.shape[0], -1, 2, 3).astype(int)
    chroma = pairs[..., 1:].mean(axis=2)
    return np.concatenate([pairs[..., 0], chroma], axis=2).round().astype(np.uint8).tobytes()


def test_native_ybr_full_422():
    made = dataset(SKIN, PhotometricInterpretation="YBR_FULL_422")
    made.PixelData = halved(np.asarray(Image.fromarray(SKIN).convert("YCbCr")))
    assert error(seen(made)) < 4


def test_native_ybr_partial_422():
    full = np.asarray(Image.fromarray(SKIN).convert("YCbCr")).astype(float)
    partial = np.rint(full * [219, 224, 224] / 255 + [16, 16, 16]).astype(np.uint8)
    made = dataset(SKIN, PhotometricInterpretation="YBR_PARTIAL_422")
    made.PixelData = halved(partial)
    assert error(seen(made)) < 4


def test_ybr_full_by_plane_in_rle():
    ybr = np.asarray(Image.fromarray(SKIN).convert("YCbCr"))
    made = dataset(ybr, PhotometricInterpretation="YBR_FULL")
    made.compress(RLELossless, generate_instance_uid=False)
    assert error(seen(made, RLELossless)) < 1.5


# ---------------------------------------------------------------------------------------------- depth


@pytest.mark.parametrize("stored", [10, 12, 16])
def test_deep_colours_lose_their_low_bits(stored):
    low = np.random.default_rng(1).integers(0, 1 << (stored - 8), SKIN.shape)
    image = seen(
        dataset(
            ((SKIN.astype(np.uint16) << (stored - 8)) | low).astype(np.uint16), BitsStored=stored, HighBit=stored - 1
        )
    )
    assert error(image) == 0
    assert "depth" in codes(image)


def test_values_in_the_upper_bits():
    image = seen(dataset(SKIN.astype(np.uint16) << 8, BitsStored=12, HighBit=15))
    assert error(image) == 0


@pytest.mark.parametrize("high", [6, 8, 12, 40])
def test_an_impossible_high_bit_changes_nothing(high):
    assert error(seen(dataset(SKIN, HighBit=high))) == 0


def test_bits_that_hold_no_value_are_ignored():
    image = seen(dataset((SKIN.astype(np.uint16) << 4) | 0xA000, BitsStored=12, HighBit=11))
    assert error(image) == 0


# ---------------------------------------------------------------------------------------------- palettes


def palette(indices, tables, entries, depth, first=0, **other):
    made = dataset(indices, PhotometricInterpretation="PALETTE COLOR", **other)
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [entries % 65536, first, depth])
        setattr(made, f"{colour}PaletteColorLookupTableData", table)
    return made


COLOURS = np.array([[10, 20, 30], [60, 70, 80], [110, 120, 130], [240, 200, 160], [7, 9, 11]], np.uint8)
INDICES = (np.arange(48 * 64) % 5).astype(np.uint8).reshape(48, 64)


@pytest.mark.parametrize("wide", [False, True], ids=["bytes, odd and padded", "words"])
def test_eight_bit_palettes(wide):
    columns = [COLOURS[:, c].astype("<u2" if wide else "u1").tobytes() for c in range(3)]
    made = palette(INDICES, [column + b"\0" * (len(column) % 2) for column in columns], 5, 8)
    assert np.array_equal(seen(made).pixels, COLOURS[INDICES])


def test_a_palette_of_more_entries_than_a_byte_counts():
    table = np.stack([(np.arange(600) * step) % 256 for step in (1, 3, 7)], axis=1).astype(np.uint8)
    indices = (np.arange(48 * 64) % 600).astype(np.uint16).reshape(48, 64)
    made = palette(indices, [table[:, c].tobytes() for c in range(3)], 600, 8)
    assert np.array_equal(seen(made).pixels, table[indices])


def test_a_deep_palette_that_is_none():
    made = palette(INDICES, [COLOURS[:, c].astype("<u2").tobytes() for c in range(3)], 5, 16)
    image = seen(made)
    assert np.array_equal(image.pixels, COLOURS[INDICES])
    assert "palette_depth" in codes(image)


def test_indices_outside_a_palette_take_its_ends():
    made = palette(INDICES + np.uint8(100), [COLOURS[:, c].tobytes() + b"\0" for c in range(3)], 5, 8, first=102)
    assert np.array_equal(seen(made).pixels, COLOURS[np.clip(INDICES.astype(int) - 2, 0, 4)])


def test_segmented_palettes():
    """Two discrete entries, a linear run of three, and both again by an indirect segment."""
    words = [0, 2, 0x1000, 0x2000, 1, 3, 0x5000, 2, 2, 0, 0]
    table = np.array([0x10, 0x20, 0x30, 0x40, 0x50] * 2)
    made = dataset(
        (np.arange(48 * 64) % 10).astype(np.uint8).reshape(48, 64), PhotometricInterpretation="PALETTE COLOR"
    )
    for colour in ("Red", "Green", "Blue"):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [10, 0, 16])
        setattr(made, f"Segmented{colour}PaletteColorLookupTableData", np.array(words, "<u2").tobytes())
    assert np.array_equal(seen(made).pixels[..., 1].ravel()[:10], table)


def test_a_segmented_palette_cannot_ask_for_gigabytes():
    words = [0, 1, 5] + [1, 65535, 9] * 20_000
    made = Dataset()
    for colour in ("Red", "Green", "Blue"):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(made, f"Segmented{colour}PaletteColorLookupTableData", np.array(words, "<u2").tobytes())
    rgb, _ = palette_to_rgb(INDICES, made)
    assert rgb.shape == (48, 64, 3)


# ---------------------------------------------------------------------------------------------- grey

GREY = SKIN[..., 1]


def test_grey_is_flagged():
    image = seen(dataset(GREY))
    assert np.array_equal(image.pixels[..., 0], GREY)
    assert "grey" in codes(image)


def test_a_window_is_applied():
    deep = (GREY.astype(np.uint16) << 2) + 1000
    made = dataset(deep, BitsStored=12, HighBit=11, WindowCenter="1510.5", WindowWidth="1021", VOILUTFunction="LINEAR")
    image = seen(made)
    assert np.abs(image.pixels[..., 0].astype(int) - GREY).max() <= 1
    assert "window" in codes(image)
    assert np.array_equal(seen(dataset(GREY, WindowCenter="128", WindowWidth="256")).pixels[..., 0], GREY)


def test_a_window_is_in_rescaled_values():
    made = dataset(GREY, RescaleSlope="2", RescaleIntercept="-100", WindowCenter="156", WindowWidth="512")
    assert np.abs(seen(made).pixels[..., 0].astype(int) - GREY).max() <= 1


def test_a_stretch_that_was_made_for_compression_is_undone():
    stretched = dataset(GREY, RescaleSlope="0.5", RescaleIntercept="40")
    assert np.abs(seen(stretched).pixels[..., 0] - (40 + GREY.astype(float) / 2)).max() <= 0.5
    physical = dataset(GREY, RescaleSlope="1", RescaleIntercept="-1024")
    assert np.array_equal(seen(physical).pixels[..., 0], GREY)


def test_a_voi_table_is_applied():
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [256, 0, 8], (255 - np.arange(256)).astype("<u2").tobytes()
    made = dataset(GREY)
    made.VOILUTSequence = [table]
    assert np.array_equal(seen(made).pixels[..., 0], 255 - GREY)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("width", [1.0, 40.0, 300.5])
def test_windows_are_those_of_highdicom(function, width):
    made = dataset(GREY, WindowCenter="120", WindowWidth=str(width), VOILUTFunction=function)
    if width == 1.0 and function == "LINEAR":
        function = "LINEAR_EXACT"  # the same step; highdicom divides by zero
    expected = apply_voi_window(GREY.astype(float), 120.0, width, voi_lut_function=function, output_range=(0.0, 255.0))
    assert np.abs(seen(made).pixels[..., 0] - np.rint(expected)).max() <= 1


@pytest.mark.parametrize("width", ["0", "0.5"])
def test_an_impossible_window_is_not_used(width):
    assert np.array_equal(seen(dataset(GREY, WindowCenter="10", WindowWidth=width)).pixels[..., 0], GREY)


# ---------------------------------------------------------------------------------------------- colour profiles


def swapped_profile() -> bytes:
    """A profile of a device whose red and green are exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for position in range(128, 400):
        tag = bytes(profile[position : position + 4])
        if tag in (b"rXYZ", b"gXYZ"):
            profile[position : position + 4] = b"gXYZ" if tag == b"rXYZ" else b"rXYZ"
    return bytes(profile).replace(b"s\0R\0G\0B", b"w\0i\0d\0e").replace(b"sRGB", b"wide")


def test_what_is_known_of_the_colours_is_said():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert "profile_absent" in codes(seen(dataset(SKIN)))
    assert not codes(seen(dataset(SKIN, ICCProfile=srgb)))
    assert not codes(seen(dataset(SKIN, ColorSpace="SRGB")))
    broken = seen(dataset(SKIN, ICCProfile=b"no profile at all"))
    assert "profile_broken" in codes(broken) and error(broken) == 0
    applied = seen(dataset(SKIN, ICCProfile=swapped_profile()))
    assert "profile_applied" in codes(applied) and error(applied) > 5


def test_the_profile_inside_a_wrapped_photograph_is_honoured():
    plain = seen(dataset(SKIN, ICCProfile=swapped_profile()))
    stream = as_file(SKIN, "JPEG", quality=95, subsampling=0, icc_profile=swapped_profile())
    wrapped = seen(in_jpeg(stream, "YBR_FULL_422"), JPEG_BASELINE)
    assert "profile_applied" in codes(wrapped)
    assert error(wrapped, plain.pixels) < 4


def test_pictures_say_it_too():
    assert codes(decode(picture_source("PNG"))) == {"profile_absent"}
    assert codes(decode(picture_source("JPEG"))) == {"profile_absent", "lossy"}
    assert codes(decode(picture_source("PNG", GREY))) == {"grey"}
