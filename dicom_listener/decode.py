"""Stored bytes → `DermoscopicImage`: 8-bit RGB in sRGB, the scale if one is stated, how the picture was taken."""

from __future__ import annotations

import hashlib
import warnings
from io import BytesIO

import numpy as np
from opentelemetry import trace
from PIL import Image, ImageOps
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from dermoscopy.domain import DermoscopicImage, Remark, RGBPixels, SourceObject
from dermoscopy.errors import UnreadableObject, UnsupportedImage, UnsupportedTransferSyntax
from dicom_listener.acquisition import read_acquisition, read_aspect, read_remarks, read_spacing
from dicom_listener.codestream import JPEG_SYNTAXES, check_stream_size
from dicom_listener.colour import (
    GREY,
    OTHER_MODEL,
    Bytes,
    grey_to_8_bit,
    has_component_transform,
    jpeg_colour_model,
    palette_to_rgb,
    to_8_bit,
    to_srgb,
    ybr_to_rgb,
)
from dicom_listener.header import PARTIAL_MODELS, PICTURE_ERRORS, check_size, open_picture
from dicom_listener.part10 import PARSE_ERRORS, open_dataset
from dicom_listener.syntaxes import DCT_SYNTAXES, JPEG_2000_SYNTAXES, NATIVE_SYNTAXES, RLE, TRANSFER_SYNTAXES

_UNCODED = NATIVE_SYNTAXES | {RLE}
_tracer = trace.get_tracer(__name__)


def pixel_digest(pixels: RGBPixels) -> str:
    """SHA-256 (hex) over the shape and the RGB bytes of ``pixels``, shape (rows, columns, 3)."""
    digest = hashlib.sha256("x".join(str(n) for n in pixels.shape).encode() + b"\n")
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def decode(source: SourceObject) -> DermoscopicImage:
    """Decode ``source``, a DICOM dataset or a PNG or JPEG file.

    Raises `UnreadableObject` (damaged pixel data), `UnsupportedImage`, `UnsupportedTransferSyntax`.
    """
    attributes = {"dicom.transfer_syntax": source.header.transfer_syntax_uid, "media_type": source.header.media_type}
    with _tracer.start_as_current_span("dicom.decode", attributes=attributes), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if source.header.media_type == "application/dicom":
            return _decode_dicom(source.data, source.header.transfer_syntax_uid)
        return _decode_picture(source.data)


def _decode_dicom(data: bytes, syntax: str) -> DermoscopicImage:
    if syntax not in TRANSFER_SYNTAXES:
        raise UnsupportedTransferSyntax(f"Transfer syntax {syntax} cannot be decoded here.")
    try:
        dataset = open_dataset(data, syntax)
        check_size(int(dataset.Rows), int(dataset.Columns))
        frames = int(dataset.get("NumberOfFrames") or 1)
        if frames != 1:
            raise UnsupportedImage(f"The object holds {frames} frames; have each sent as an image of its own.")
        pixels, remarks = _rgb(dataset, syntax)
        spacing = read_spacing(dataset)
        aspect, shape = read_aspect(dataset, spacing)
        remarks += (*shape, *read_remarks(dataset, syntax))
    except PARSE_ERRORS as error:
        raise UnreadableObject("The pixel data cannot be decoded (damaged or truncated).") from error
    if pixels.shape != (dataset.Rows, dataset.Columns, 3):
        raise UnreadableObject("The pixel data decodes to another size than Rows and Columns say.")
    return DermoscopicImage(
        pixels=pixels,
        pixel_digest=pixel_digest(pixels),
        spacing_mm=spacing,
        acquisition=read_acquisition(dataset),
        aspect=aspect,
        remarks=remarks,
    )


def _rgb(dataset: Dataset, syntax: str) -> tuple[RGBPixels, tuple[Remark, ...]]:
    """RGB pixels of ``dataset`` in sRGB, and what was remarkable on the way (docs/dicom.md has the table)."""
    stated = str(dataset.get("PhotometricInterpretation") or "").strip()
    frame = b"" if syntax in NATIVE_SYNTAXES else get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax in JPEG_SYNTAXES:
        check_stream_size(frame, int(dataset.Rows), int(dataset.Columns))
    remarks: tuple[Remark, ...] = ()
    partial = stated in PARTIAL_MODELS and b"JFIF\0" not in frame[:32]  # JFIF has the full range
    if stated in PARTIAL_MODELS:
        dataset.PhotometricInterpretation = "YBR_FULL_422"  # the same layout, another range
    if syntax in DCT_SYNTAXES and dataset.SamplesPerPixel == 3:
        found = jpeg_colour_model(frame)
        if found and (found == "RGB") != (stated == "RGB"):
            remarks, partial = (OTHER_MODEL,), False
        dataset.PhotometricInterpretation = found or ("RGB" if stated == "RGB" else "YBR_FULL_422")
    elif syntax in JPEG_2000_SYNTAXES and stated.startswith("YBR_FULL") and has_component_transform(frame):
        remarks, dataset.PhotometricInterpretation = (OTHER_MODEL,), "RGB"  # the decoder undoes the transform
    if syntax in _UNCODED and dataset.get("HighBit") == dataset.BitsAllocated - 1:
        dataset.BitsStored = dataset.BitsAllocated  # values stand in the upper bits; other odd High Bits are mistakes
    array, returned = get_decoder(syntax).as_array(dataset, raw=True)
    photometric = str(returned["photometric_interpretation"])
    bits = min(int(returned["bits_stored"]), int(returned.get("j2k_precision") or 32), 8 * array.dtype.itemsize)
    if photometric == "PALETTE COLOR":
        rgb, more = palette_to_rgb(array, dataset)
        remarks += more
    elif photometric in ("MONOCHROME1", "MONOCHROME2"):
        grey, more = grey_to_8_bit(array, bits, dataset)
        if photometric == "MONOCHROME1":
            grey = 255 - grey
        return np.repeat(grey[..., np.newaxis], 3, axis=2), remarks + more
    elif photometric in ("YBR_FULL", "YBR_FULL_422"):
        rgb = ybr_to_rgb(to_8_bit(array, bits), partial=partial)
    elif photometric in ("RGB", "YBR_RCT", "YBR_ICT"):  # the J2K transforms are undone by the decoder
        rgb = to_8_bit(array, bits)
    else:
        raise UnsupportedImage(f"Photometric interpretation {photometric} is not supported.")
    if bits > 8 and photometric != "PALETTE COLOR":
        remarks += (Remark("depth", f"{bits}-bit samples were reduced to their upper 8 bits"),)
    rgb, more = _profiled(rgb, dataset, frame if syntax in DCT_SYNTAXES else b"")
    return np.ascontiguousarray(rgb, dtype=np.uint8), remarks + more


def _profiled(rgb: Bytes, dataset: Dataset, frame: bytes) -> tuple[Bytes, tuple[Remark, ...]]:
    """``rgb`` by the dataset's profile, else by that in its JPEG ``frame``, where wrapped photographs have it."""
    if str(dataset.get("ColorSpace") or "").strip() == "SRGB":
        return rgb, ()
    profile = bytes(dataset.get("ICCProfile") or b"")
    if not profile and b"ICC_PROFILE\0" in frame[:65536]:
        try:
            profile = bytes(Image.open(BytesIO(frame), formats=("JPEG",)).info.get("icc_profile") or b"")
        except PICTURE_ERRORS:
            profile = b""
        except Image.DecompressionBombError:
            profile = b""
    return to_srgb(rgb, profile)


def _decode_picture(data: bytes) -> DermoscopicImage:
    """A PNG or JPEG; density chunks are no scale, since cameras and editors write any number there."""
    picture = open_picture(data)
    profile = picture.info.get("icc_profile")
    remarks: tuple[Remark, ...] = ()
    try:
        picture.load()
        turned = ImageOps.exif_transpose(picture)
        if picture.getexif().get(0x0112, 1) not in (0, 1):
            remarks += (Remark("turned", "the picture was turned upright as its EXIF orientation says"),)
        if turned.mode.startswith("I"):  # 16-bit grey
            grey = np.clip(np.asarray(turned).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
            pixels = np.repeat(grey[..., np.newaxis], 3, axis=2)
            remarks += (GREY, Remark("depth", "16-bit samples were reduced to their upper 8 bits"))
        else:
            if turned.has_transparency_data:
                opaque = Image.new("RGBA", turned.size, "white")
                turned = Image.alpha_composite(opaque, turned.convert("RGBA"))
            pixels = np.asarray(turned.convert("RGB"))
            if turned.mode in ("RGB", "RGBA", "P"):
                pixels, more = to_srgb(pixels, profile)
                remarks += more
            elif turned.mode in ("L", "1"):
                remarks += (GREY,)
    except PICTURE_ERRORS as error:
        raise UnreadableObject("The picture is damaged or truncated; send it again.") from error
    if picture.format != "PNG":
        remarks += (Remark("lossy", "the picture was compressed with loss"),)
    pixels = np.ascontiguousarray(pixels, dtype=np.uint8)
    return DermoscopicImage(pixels=pixels, pixel_digest=pixel_digest(pixels), remarks=remarks)
