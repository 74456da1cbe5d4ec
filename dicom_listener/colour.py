"""Decoded samples → 8-bit RGB in sRGB: which colour model the samples are in, and the way from there (PS3.3 C.7.6.3.1).

What a dataset says of its colours and what a compressed frame says of them may differ; then the frame is believed,
since its decoder goes by it, and a remark says so.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import structlog
from PIL import Image, ImageCms
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi

from dermoscopy.domain import Remark
from dermoscopy.errors import UnsupportedImage

log = structlog.get_logger(__name__)

Bytes = npt.NDArray[np.uint8]
_Array = npt.NDArray[Any]

PROFILE_APPLIED: Final = Remark("profile_applied", "colours were converted to sRGB by the profile in the image")
PROFILE_BROKEN: Final = Remark(
    "profile_broken", "the colour profile in the image cannot be used; its colours are taken as sRGB"
)
PROFILE_ABSENT: Final = Remark("profile_absent", "the image names no colour profile; its colours are taken as sRGB")
OTHER_MODEL: Final = Remark(
    "colour_model", "the compressed picture is in another colour model than its header says; the picture was believed"
)
GREY: Final = Remark("grey", "the picture is grey: the algorithm was made for colour")
_WINDOWED: Final = Remark("window", "grey values were shown as rescaling, window or table in the header say")
_SHORT_PALETTE: Final = Remark(
    "palette_depth", "the palette states 16 bits and uses only 8; its values were taken as 8-bit colours"
)

_COLOUR_IDS: Final = (b"RGB", b"rgb")
_DCT_FRAMES: Final = (0xC0, 0xC1, 0xC2)


# ------------------------------------------------------------------------------- what a compressed frame says of itself


def jpeg_colour_model(frame: bytes) -> str:
    """``RGB`` or ``YBR_FULL_422`` where the three-component JPEG ``frame`` says what it holds, else empty.

    The order is that of the IJG decoder, which made most of what is seen: component names, then a JFIF marker (always
    YCbCr), then Adobe's marker (T.872 6.5.3). Without any, subsampled components can only be YCbCr.
    """
    position, jfif, adobe = 2, False, -1
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        (length,) = struct.unpack_from(">H", frame, position + 2)
        body = frame[position + 4 : position + 2 + length]
        if marker == 0xE0 and body.startswith(b"JFIF"):
            jfif = True
        elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        elif marker in _DCT_FRAMES:
            if len(body) < 15 or body[5] != 3:
                return ""
            if body[6:15:3] in _COLOUR_IDS:
                return "RGB"
            if jfif or adobe == 1:
                return "YBR_FULL_422"
            if adobe == 0:
                return "RGB"
            return "YBR_FULL_422" if len(set(body[7:15:3])) > 1 else ""
        elif marker == 0xDA:
            return ""
        position += 2 + length
    return ""


def has_component_transform(frame: bytes) -> bool:
    """Whether the JPEG 2000 codestream ``frame`` transforms colours itself (SGcod of COD, ITU-T T.800 A.6.1)."""
    position = 2
    while position + 4 <= len(frame) and frame[position] == 0xFF and frame[position + 1] != 0x93:
        (length,) = struct.unpack_from(">H", frame, position + 2)
        if frame[position + 1] == 0x52:
            return frame[position + 8 : position + 9] == b"\1"
        position += 2 + length
    return False


# --------------------------------------------------------------------------------------------------------- to 8-bit RGB


def to_8_bit(array: _Array, bits: int) -> Bytes:
    """Samples of ``bits`` bits as 8-bit ones; deeper ones lose their low bits, shallower ones are spread."""
    if array.dtype.kind == "i":
        array = array.astype(np.int32) + (1 << (bits - 1))
    if bits > 8:
        array = array >> (bits - 8)
    elif bits < 8:
        array = np.round(array.astype(np.float32) * (255.0 / ((1 << bits) - 1)))
    return np.clip(array, 0, 255).astype(np.uint8) if array.dtype != np.uint8 else array


def ybr_to_rgb(array: Bytes, *, partial: bool = False) -> Bytes:
    """YCbCr [rows, columns, 3] as RGB, full range or, where ``partial``, that of ITU-R BT.601 (PS3.3 C.7.6.3.1.2)."""
    if not partial:
        return np.asarray(Image.fromarray(np.ascontiguousarray(array), mode="YCbCr").convert("RGB"))
    matrix = np.array([[1.1644, 0.0, 1.5960], [1.1644, -0.3918, -0.8130], [1.1644, 2.0172, 0.0]], np.float32)
    centred = array.astype(np.float32) - np.array([16.0, 128.0, 128.0], np.float32)
    return np.clip(np.rint(centred @ matrix.T), 0, 255).astype(np.uint8)


def grey_to_8_bit(array: _Array, bits: int, dataset: Dataset) -> tuple[Bytes, tuple[Remark, ...]]:
    """Grey samples through the Modality and VOI transformations of ``dataset`` (PS3.3 C.11.1, C.11.2).

    Without a window or table the stored range is shown. Rescaling alone says nothing of what is to be seen, except
    where it stays within that range: compressors stretch grey values before a lossy encoding and undo it so.
    """
    if dataset.get("VOILUTSequence"):
        depth = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        return to_8_bit(apply_voi(apply_modality_lut(array, dataset), dataset), depth), (GREY, _WINDOWED)
    centre, width = (_first(dataset.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None or width < 1:
        if not _rescaled_within(dataset, bits):
            return to_8_bit(array, bits), (GREY,)
        rescaled = np.rint(apply_modality_lut(array, dataset)).astype(np.int64).astype(np.uint16)
        return to_8_bit(rescaled, bits), (GREY, _WINDOWED)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip()
    return _windowed(apply_modality_lut(array, dataset), centre, width, function), (GREY, _WINDOWED)


def _windowed(values: _Array, centre: float, width: float, function: str) -> Bytes:
    """``values`` through a window as 0…255 (PS3.3 C.11.2.1.2.1, C.11.2.1.3)."""
    offset = values.astype(np.float64) - centre
    if function == "SIGMOID":
        shown = 1.0 / (1.0 + np.exp(np.clip(-4.0 * offset / width, -50.0, 50.0)))
    elif function == "LINEAR_EXACT" or width == 1.0:  # a width of 1 is a step in both, without a division by zero
        shown = offset / width + 0.5
    else:
        shown = (offset + 0.5) / (width - 1.0) + 0.5
    return np.clip(np.rint(shown * 255.0), 0, 255).astype(np.uint8)


def _rescaled_within(dataset: Dataset, bits: int) -> bool:
    """Whether a rescaling of unsigned samples is stated that ends within the range of ``bits`` bits."""
    slope, intercept = (_first(dataset.get(keyword)) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if slope is None or intercept is None or (slope, intercept) == (1.0, 0.0) or dataset.PixelRepresentation:
        return False
    largest = float((1 << bits) - 1)
    return slope > 0 and intercept >= 0 and slope * largest + intercept < largest + 0.5


def _first(value: Any) -> float | None:
    """The first of one or several decimal values; a second window is a choice for people."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if value else None
    return None if value is None or value == "" else float(value)


def palette_to_rgb(indices: _Array, dataset: Dataset) -> tuple[Bytes, tuple[Remark, ...]]:
    """Indices [rows, columns] through the palette of ``dataset`` (PS3.3 C.7.6.3.1.5, C.7.6.3.1.6; segmented: C.7.9.2).

    Indices below the first mapped value take the first entry, those beyond the last the last one.
    """
    count, first, depth = (int(value) for value in dataset.RedPaletteColorLookupTableDescriptor)
    count = count or 1 << 16
    if first >= 1 << 15 and indices.dtype.kind == "i":
        first -= 1 << 16  # stored as unsigned, meant as signed like the indices
    tables = [_table(dataset, colour, count, depth) for colour in ("Red", "Green", "Blue")]
    remarks: tuple[Remark, ...] = ()
    if depth > 8 and max(int(table.max()) for table in tables) >= 1 << 8:
        tables = [table >> (depth - 8) for table in tables]
    elif depth > 8:
        remarks = (_SHORT_PALETTE,)
    lookup = np.stack(tables, axis=1).astype(np.uint8)
    return lookup[np.clip(indices.astype(np.int64) - first, 0, len(lookup) - 1)], remarks


def _table(dataset: Dataset, colour: str, count: int, depth: int) -> npt.NDArray[np.int32]:
    if depth not in (8, 16):
        raise UnsupportedImage(f"The palette has entries of {depth} bits; 8 and 16 are known.")
    data = dataset.get(f"{colour}PaletteColorLookupTableData")
    if data:
        # 8-bit entries may stand in 16 bits each (the standard's note); an odd number of them is padded with one byte
        wide = len(data) >= 2 * count
        values = np.frombuffer(bytes(data[: count * (2 if wide else 1)]), "<u2" if wide else "u1")
    else:
        data = bytes(dataset[f"Segmented{colour}PaletteColorLookupTableData"].value)
        words = np.frombuffer(data[: len(data) // (depth // 8) * (depth // 8)], "u1" if depth == 8 else "<u2").tolist()
        values = np.asarray(_expanded(words, count, depth), np.uint16)
    if len(values) < count:
        raise ValueError("the palette is shorter than its descriptor says")
    return values[:count].astype(np.int32)


def _expanded(words: list[int], count: int, depth: int) -> list[int]:
    """At most about ``count`` entries of a segmented palette: discrete, linear and indirect segments (PS3.3 C.7.9.2).

    Our own, because pydicom's expands whatever it is told to: a few kilobytes of segments could ask for gigabytes.
    """
    entries: list[int] = []
    offset_words = 4 if depth == 8 else 2
    position = 0
    while position + 1 < len(words) and len(entries) < count:
        if words[position] != 2:
            position = _segment(words, position, entries)
            continue
        repeated = words[position + 1]
        where = words[position + 2 : position + 2 + offset_words]
        source = sum(word << (depth * place) for place, word in enumerate(where)) // (depth // 8)
        while repeated > 0 and len(entries) < count:
            source = _segment(words, source, entries)
            repeated -= 1
        position += 2 + offset_words
    return entries


def _segment(words: list[int], position: int, entries: list[int]) -> int:
    """Add the discrete or linear segment at ``position`` to ``entries``; where the next one starts."""
    kind, length = words[position], words[position + 1]
    if kind == 0:
        entries.extend(words[position + 2 : position + 2 + length])
        return position + 2 + length
    if kind != 1 or not entries:
        raise ValueError("the palette has a segment that cannot stand there")
    before, after = entries[-1], words[position + 2]
    entries.extend(round(before + (after - before) * step / length) for step in range(1, length + 1))
    return position + 3


# ------------------------------------------------------------------------------------------------------- colour profile


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[Any, Remark | None]:
    """Pillow's transform from ``profile`` to sRGB (none where it is sRGB itself or unusable), and what to remark."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None, None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB"), PROFILE_APPLIED
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        log.warning("decode.icc_profile_unusable", profile_sha256=hashlib.sha256(profile).hexdigest())
        return None, PROFILE_BROKEN


def to_srgb(array: Bytes, profile: bytes | None) -> tuple[Bytes, tuple[Remark, ...]]:
    """RGB ``array`` in ``profile`` as sRGB (PS3.3 C.11.15); without one that can be used it is taken as sRGB."""
    if not profile:
        return array, (PROFILE_ABSENT,)
    transform, remark = _transform(profile)
    if transform is not None:
        array = np.asarray(ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(array)), transform))
    return array, (remark,) if remark else ()
