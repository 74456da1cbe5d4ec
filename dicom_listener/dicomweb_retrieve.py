"""WADO-RS (PS3.18 10.4): a stored object as a file, its frames, its bulk data, or as a picture a browser shows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Final

from PIL import Image
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import UID

from dermoscopy.domain import ImageHeader, SourceObject
from dermoscopy.errors import Rejected, UnreadableObject
from dicom_listener.decode import decode
from dicom_listener.dicomweb_json import StoredObject, is_moved, open_stored, plain_dataset
from dicom_listener.dicomweb_media import ANY_SYNTAX, DICOM, IMAGE_TYPES, OCTETS, Wanted
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, PARSE_ERRORS, file_meta
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN, NATIVE_SYNTAXES

RENDERED: Final = ("image/jpeg", "image/png")
"""Media types of pictures; JPEG is the default of the standard (PS3.18 8.7.4)."""
_MAX_VIEWPORT: Final = 20_000


class NoSuchPart(Rejected):
    """The object has no such frame, no such bulk data, or no pixels to draw."""


@dataclass(frozen=True, slots=True)
class Form:
    """One form that was agreed on: media type of each part, and its transfer syntax."""

    media_type: str
    syntax: str
    single: bool


def form_of_file(wanted: Sequence[Wanted], syntax: str) -> Form | None:
    """The first wanted form that a file stored in ``syntax`` can be given in."""
    for one in wanted:
        if one.syntax in (ANY_SYNTAX, syntax):
            return Form(DICOM, syntax, one.single)
        if one.syntax == EXPLICIT_LITTLE_ENDIAN:
            return Form(DICOM, EXPLICIT_LITTLE_ENDIAN, one.single)
    return None


def form_of_pixels(wanted: Sequence[Wanted], syntax: str) -> Form | None:
    """The first wanted form of the pixels of an object stored in ``syntax``: as they are, or uncompressed.

    Compressed bytes go out as ``application/octet-stream`` only where any transfer syntax was asked for by ``*``.
    """
    stored = syntax if syntax not in NATIVE_SYNTAXES else EXPLICIT_LITTLE_ENDIAN  # one frame is the same in all three
    for one in wanted:
        if one.media_type == OCTETS:
            if one.syntax in (ANY_SYNTAX, stored):
                return Form(OCTETS, stored, one.single)
            if one.syntax in NATIVE_SYNTAXES:
                return Form(OCTETS, EXPLICIT_LITTLE_ENDIAN, one.single)
        elif IMAGE_TYPES.get(stored) == one.media_type and one.syntax in (ANY_SYNTAX, stored):
            return Form(one.media_type, stored, one.single)
    return None


def as_file(stored: StoredObject, data: bytes, syntax: str) -> bytes:
    """A Part 10 file in ``syntax``: the bytes as they came where that is possible, else uncompressed.

    Raises `UnreadableObject` when the pixels cannot be decoded.
    """
    body, own = plain_dataset(data, stored.syntax)
    if syntax == own and not is_moved(stored, data):
        return file_meta(stored.sop_class_uid, stored.sop_instance_uid, own) + body
    dataset = _in_syntax(open_stored(stored, data, pixels=True), syntax, own)
    dataset.file_meta.MediaStorageSOPClassUID = UID(stored.sop_class_uid)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(stored.sop_instance_uid)
    dataset.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    dataset.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    buffer = BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dcmwrite(buffer, dataset, enforce_file_format=True)
    except PARSE_ERRORS as error:
        raise UnreadableObject("The stored object cannot be written in this transfer syntax.") from error
    return buffer.getvalue()


def frames(stored: StoredObject, data: bytes, numbers: Sequence[int], form: Form) -> list[bytes]:
    """These frames (1 is the first) in ``form``. Raises `NoSuchPart`, `UnreadableObject`."""
    _, own = plain_dataset(data, stored.syntax)
    dataset = open_stored(stored, data, pixels=True)
    count = int(dataset.get("NumberOfFrames") or 1)
    if "PixelData" not in dataset or any(not 1 <= number <= count for number in numbers):
        raise NoSuchPart(f"this object has {count if 'PixelData' in dataset else 0} frames")
    try:
        if form.syntax not in NATIVE_SYNTAXES:
            return [get_frame(dataset.PixelData, n - 1, number_of_frames=count) for n in numbers]
        native = _in_syntax(dataset, EXPLICIT_LITTLE_ENDIAN, own)
        return [_native_frame(native, number - 1, count) for number in numbers]
    except PARSE_ERRORS as error:
        raise UnreadableObject("The stored pixels cannot be decoded.") from error


def bulk(stored: StoredObject, data: bytes, tag: int, form: Form) -> bytes:
    """The value of one binary attribute of the dataset, pixels in ``form``. Raises `NoSuchPart`, `UnreadableObject`."""
    if tag == 0x7FE00010:
        return b"".join(frames(stored, data, [1], form))
    dataset = open_stored(stored, data, pixels=False)
    value = dataset[tag].value if tag in dataset else None
    if not isinstance(value, bytes):
        raise NoSuchPart("this object has no such bulk data")
    return value


def rendered(stored: StoredObject, data: bytes, media_type: str, viewport: str = "", quality: int = 90) -> bytes:
    """The picture in the object as ``media_type``, in sRGB; a segmentation is white on black.

    ``viewport`` is ``width,height``: the largest picture that fits, as PS3.18 8.3.5.1.3 says. Raises `NoSuchPart`,
    `UnreadableObject` and as `dicom_listener.decode.decode`.
    """
    body, syntax = plain_dataset(data, stored.syntax)
    size = open_stored(stored, data, pixels=False)
    if "Rows" not in size:
        raise NoSuchPart("this object has no pixels to draw")
    header = ImageHeader("application/dicom", stored.patient, size.Rows, size.Columns, transfer_syntax_uid=syntax)
    image = decode(SourceObject(stored.sop_instance_uid, body, header, datetime.min.replace(tzinfo=UTC)))
    picture = Image.fromarray(image.pixels)
    if viewport:
        width, height = read_viewport(viewport)
        scale = min(width / picture.width, height / picture.height)
        fitting = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(fitting, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BILINEAR)
    buffer = BytesIO()
    if media_type == "image/png":
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=min(max(quality, 1), 100))
    return buffer.getvalue()


def read_viewport(text: str) -> tuple[int, int]:
    """(width, height) of a viewport. Raises `Rejected`."""
    parts = text.split(",")
    if len(parts) != 2 or not all(p.strip().isascii() and p.strip().isdecimal() for p in parts):
        raise Rejected("viewport must be two whole numbers: width,height")
    width, height = (int(part) for part in parts)
    if not (1 <= width <= _MAX_VIEWPORT and 1 <= height <= _MAX_VIEWPORT):
        raise Rejected(f"viewport sides must be from 1 to {_MAX_VIEWPORT}")
    return width, height


def _in_syntax(dataset: Dataset, syntax: str, own: str) -> Dataset:
    if syntax != own:
        if own not in NATIVE_SYNTAXES:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    dataset.decompress(generate_instance_uid=False)
            except PARSE_ERRORS as error:
                raise UnreadableObject("The stored pixels cannot be decoded.") from error
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
    return dataset


def _native_frame(dataset: Dataset, index: int, count: int) -> bytes:
    samples = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else int(dataset.SamplesPerPixel)
    bits = int(dataset.Rows) * int(dataset.Columns) * samples * int(dataset.BitsAllocated)
    if count > 1 and bits % 8:
        raise NoSuchPart("frames that do not begin at a byte cannot be given alone: retrieve the instance")
    length = (bits + 7) // 8
    value: bytes = dataset.PixelData[index * length : (index + 1) * length]
    if len(value) < length:
        raise UnreadableObject("The stored pixels end before this frame does.")
    return value
