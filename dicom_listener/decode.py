"""Stored bytes → `DermoscopicImage`: 8-bit RGB in sRGB, the scale if one is stated, how the picture was taken."""

from __future__ import annotations

import hashlib
import math
import warnings
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import structlog
from opentelemetry import trace
from PIL import Image, ImageCms, ImageOps
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut

from dermoscopy.domain import Acquisition, DermoscopicImage, RGBPixels, SourceObject
from dermoscopy.errors import UnreadableObject, UnsupportedImage, UnsupportedTransferSyntax
from dicom_listener.header import PICTURE_ERRORS, check_size, open_picture
from dicom_listener.part10 import PARSE_ERRORS, open_dataset
from dicom_listener.syntaxes import TRANSFER_SYNTAXES

log = structlog.get_logger(__name__)
_tracer = trace.get_tracer(__name__)

FIELD_OF_VIEW_MM: Final = (1.0, 1000.0)
"""A scale that makes the longer side of the picture shorter or longer than this is a mistake and is not used.

Imager Pixel Spacing (0018,1164) is measured at the receptor (PS3.3 10.7.1.3): some devices write the pitch of the
sensor there, which would make a lesion a hundred times too small.
"""
_SPACING_KEYWORDS: Final = ("PixelSpacing", "NominalScannedPixelSpacing", "ImagerPixelSpacing")
_Array = npt.NDArray[Any]


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
        pixels = _decode_picture(source.data)
        return DermoscopicImage(pixels=pixels, pixel_digest=pixel_digest(pixels))


def _decode_dicom(data: bytes, syntax: str) -> DermoscopicImage:
    if syntax not in TRANSFER_SYNTAXES:
        raise UnsupportedTransferSyntax(f"Transfer syntax {syntax} cannot be decoded here.")
    try:
        dataset = open_dataset(data, syntax)
        check_size(int(dataset.Rows), int(dataset.Columns))
        pixels = _rgb(dataset, syntax)
    except PARSE_ERRORS as error:
        raise UnreadableObject("The pixel data cannot be decoded (damaged or truncated).") from error
    if pixels.shape != (dataset.Rows, dataset.Columns, 3):
        raise UnreadableObject("The pixel data decodes to another size than Rows and Columns say.")
    return DermoscopicImage(
        pixels=pixels,
        pixel_digest=pixel_digest(pixels),
        spacing_mm=_spacing(dataset),
        acquisition=_acquisition(dataset),
    )


def _rgb(dataset: Dataset, syntax: str) -> RGBPixels:
    """RGB pixels of ``dataset``, converted by the photometric interpretation that the decoder says it returned."""
    array, returned = get_decoder(syntax).as_array(dataset, raw=True)
    photometric = str(returned["photometric_interpretation"])
    bits = int(returned["bits_stored"])
    if photometric == "PALETTE COLOR":
        array = apply_color_lut(array, dataset)
        bits = 16 if array.dtype.itemsize == 2 else 8
        photometric = "RGB"
    array = _to_8_bit(array, bits)
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        if photometric == "MONOCHROME1":
            array = 255 - array
        return np.repeat(array[..., np.newaxis], 3, axis=2)
    if photometric in ("YBR_FULL", "YBR_FULL_422"):
        array = np.asarray(Image.fromarray(np.ascontiguousarray(array), mode="YCbCr").convert("RGB"))
    elif photometric not in ("RGB", "YBR_RCT", "YBR_ICT"):  # the J2K transforms are undone by the decoder
        raise UnsupportedImage(f"Photometric interpretation {photometric} is not supported.")
    profile = dataset.get("ICCProfile")
    if profile and str(dataset.get("ColorSpace") or "") != "SRGB":
        array = _to_srgb(np.ascontiguousarray(array), bytes(profile))
    return np.ascontiguousarray(array, dtype=np.uint8)


def _to_8_bit(array: _Array, bits: int) -> npt.NDArray[np.uint8]:
    if array.dtype.kind == "i":
        array = array.astype(np.int32) + (1 << (bits - 1))
    if bits > 8:
        array = array >> (bits - 8)
    elif bits < 8:
        array = np.round(array.astype(np.float32) * (255.0 / ((1 << bits) - 1)))
    return np.clip(array, 0, 255).astype(np.uint8) if array.dtype != np.uint8 else array


@lru_cache(maxsize=16)
def _colour_transform(profile: bytes) -> Any:
    """Pillow transform from ``profile`` to sRGB, or ``None`` when the profile is sRGB itself or unusable."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        log.warning("decode.icc_profile_unusable", profile_sha256=hashlib.sha256(profile).hexdigest())
        return None


def _to_srgb(array: npt.NDArray[np.uint8], profile: bytes) -> npt.NDArray[np.uint8]:
    transform = _colour_transform(profile)
    if transform is None:
        return array
    return np.asarray(ImageCms.applyTransform(Image.fromarray(array), transform))


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """(row, column) spacing in mm from the first attribute that states a plausible one (PS3.3 10.7)."""
    for keyword in _SPACING_KEYWORDS:
        try:
            values = [float(v) for v in dataset.get(keyword) or ()]
        except (TypeError, ValueError):
            continue
        if len(values) != 2 or not all(math.isfinite(v) and v > 0 for v in values):
            continue
        longest = max(values[0] * int(dataset.Rows), values[1] * int(dataset.Columns))
        if FIELD_OF_VIEW_MM[0] <= longest <= FIELD_OF_VIEW_MM[1]:
            return values[0], values[1]
        log.warning("decode.scale_implausible", attribute=keyword)
    ratio = [str(v) for v in dataset.get("PixelAspectRatio") or ()]
    if len(ratio) == 2 and ratio[0] != ratio[1]:
        log.warning("decode.pixels_not_square_without_scale")
    return None


def _acquisition(dataset: Dataset) -> Acquisition:
    """Dermoscopic Image attributes (PS3.3 C.8.12.13); what is absent or odd is ``None``."""

    def word(keyword: str) -> str:
        value = dataset.get(keyword)
        return "" if value is None else str(value).strip().upper()

    contact = word("ContactMethod")
    polarised = word("LightSourcePolarization")
    immersion = dataset.get("ImmersionMedia")
    try:
        magnification: float | None = float(dataset.get("OpticalMagnificationFactor"))
        if not (magnification and math.isfinite(magnification) and magnification > 0):
            magnification = None
    except (TypeError, ValueError):
        magnification = None
    media = [immersion] if isinstance(immersion, str) else list(immersion or ())
    station = " ".join(
        part for part in (str(dataset.get(k) or "").strip() for k in ("Manufacturer", "ManufacturerModelName")) if part
    )
    return Acquisition(
        contact={"CONTACT": True, "NON_CONTACT": False}.get(contact),
        polarised={"POLARIZED": True, "NON_POLARIZED": False}.get(polarised),
        immersion="+".join(str(m).strip().lower() for m in media) or None,
        magnification=magnification,
        station=station or None,
    )


def _decode_picture(data: bytes) -> RGBPixels:
    """RGB pixels of a PNG or JPEG; density chunks are no scale, since cameras and editors write any number there."""
    picture = open_picture(data)
    profile = picture.info.get("icc_profile")
    try:
        picture.load()
        turned = ImageOps.exif_transpose(picture)
        if turned.mode.startswith("I"):  # 16-bit grey
            grey = np.clip(np.asarray(turned).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
            return np.repeat(grey[..., np.newaxis], 3, axis=2)
        if turned.has_transparency_data:
            opaque = Image.new("RGBA", turned.size, "white")
            turned = Image.alpha_composite(opaque, turned.convert("RGBA"))
        pixels = np.asarray(turned.convert("RGB"))
        if profile and turned.mode in ("RGB", "RGBA", "P"):
            pixels = _to_srgb(np.ascontiguousarray(pixels), bytes(profile))
    except PICTURE_ERRORS as error:
        raise UnreadableObject("The picture is damaged or truncated; send it again.") from error
    return np.ascontiguousarray(pixels, dtype=np.uint8)
