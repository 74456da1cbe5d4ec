"""Header checks at the door: what an object is and whether it can be analysed, without decoding a pixel.

Everything that would fail later for a reason visible here is refused here, with a sentence that says what to do.
"""

from __future__ import annotations

import struct
import warnings
from io import BytesIO
from typing import Final

from PIL import Image
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence

from dermoscopy.domain import ImageHeader, PatientIdentity
from dermoscopy.errors import (
    UnreadableObject,
    UnsupportedImage,
    UnsupportedSopClass,
    UnsupportedTransferSyntax,
)
from dicom_listener.bounds import bounded
from dicom_listener.identifiers import check_uids, plain, trusted, trusted_or_empty
from dicom_listener.part10 import MANUFACTURER, PARSE_ERRORS, inflate, split_part10
from dicom_listener.rules import Facts
from dicom_listener.syntaxes import (
    DEFLATED_LITTLE_ENDIAN,
    IMAGE_CLASSES,
    IMPLICIT_LITTLE_ENDIAN,
    NATIVE_SYNTAXES,
    TRANSFER_SYNTAXES,
)

MIN_SIDE: Final = 16
"""Fewest rows or columns that can show a lesion."""
MAX_SIDE: Final = 20_000
MAX_PIXELS: Final = 100_000_000
"""Decompression bombs stop here: 100 megapixels become 300 MB of RGB."""

PICTURE_ERRORS: Final[tuple[type[BaseException], ...]] = (*PARSE_ERRORS, SyntaxError)
"""What Pillow raises on damage; a broken PNG chunk is a `SyntaxError`."""

PIXEL_DATA: Final = 0x7FE00010
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_PHOTOMETRIC_SAMPLES: Final[dict[str, int]] = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_RCT": 3,
    "YBR_ICT": 3,
    "YBR_PARTIAL_422": 3,
}
PARTIAL_MODELS: Final[frozenset[str]] = frozenset({"YBR_PARTIAL_422"})
"""Retired; laid out as YBR_FULL_422, with the range of video (PS3.3 C.7.6.3.1.2)."""
_HALVED_COLOUR: Final = PARTIAL_MODELS | {"YBR_FULL_422"}
MAX_FRAMES: Final = 10_000
_PICTURE_TYPES: Final[dict[str, str]] = {"PNG": "image/png", "JPEG": "image/jpeg", "MPO": "image/jpeg"}


def read_header(data: bytes, transfer_syntax_uid: str | None) -> ImageHeader:
    """As `read_header_and_facts`, without the facts."""
    return read_header_and_facts(data, transfer_syntax_uid)[0]


def read_header_and_facts(data: bytes, transfer_syntax_uid: str | None) -> tuple[ImageHeader, Facts]:
    """Header of the dataset ``data`` (without file meta information), encoded in ``transfer_syntax_uid``.

    The facts are what routing rules look at, without the calling AE title, which no dataset knows.

    With ``None`` ``data`` must be a Part 10 file, which states its own encoding; intake is then given the dataset of
    `split_part10`. Raises `UnreadableObject`, `UnsupportedTransferSyntax`, `UnsupportedSopClass`, `UnsupportedImage`.
    """
    if transfer_syntax_uid is None:
        data, transfer_syntax_uid = split_part10(data)
    if not data:
        raise UnreadableObject("The object is empty (zero bytes).")
    if transfer_syntax_uid not in TRANSFER_SYNTAXES:
        raise UnsupportedTransferSyntax(
            f"Transfer syntax {transfer_syntax_uid} cannot be decoded here; send Explicit VR Little Endian, "
            "JPEG or JPEG 2000."
        )
    body = inflate(data) if transfer_syntax_uid == DEFLATED_LITTLE_ENDIAN else data
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are the sender's; what matters is checked below
            return _read(body, transfer_syntax_uid)
    except PARSE_ERRORS as error:
        raise UnreadableObject("The bytes are not a readable DICOM dataset (damaged or truncated).") from error


def _read(body: bytes, syntax: str) -> tuple[ImageHeader, Facts]:
    buffer = BytesIO(body)
    implicit = syntax == IMPLICIT_LITTLE_ENDIAN
    dataset = read_dataset(buffer, implicit, True, stop_when=bounded(body, buffer, implicit, PIXEL_DATA))
    sop_class, sop_instance = _text(dataset, "SOPClassUID"), _text(dataset, "SOPInstanceUID")
    if not sop_class or not sop_instance:
        raise UnreadableObject("The bytes are not a DICOM image: SOP Class or SOP Instance UID is missing.")
    if sop_class not in IMAGE_CLASSES:
        raise UnsupportedSopClass(
            f"SOP class {sop_class} is not taken; send {', '.join(IMAGE_CLASSES.values())} objects."
        )
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    _check_pixel_data_starts(body, buffer.tell())
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise UnreadableObject("The image does not state its size (Rows and Columns).")
    check_size(rows, columns)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if not 1 <= frames <= MAX_FRAMES:
        raise UnsupportedImage(f"The object says that it holds {frames} frames; 1 to {MAX_FRAMES} are taken.")
    _check_pixels(dataset, body, buffer.tell(), syntax, frames)
    study, series = _text(dataset, "StudyInstanceUID"), _text(dataset, "SeriesInstanceUID")
    if not study or not series:
        raise UnreadableObject("Study or Series Instance UID is missing (type 1): results could not refer to it.")
    check_uids(SOPInstanceUID=sop_instance, StudyInstanceUID=study, SeriesInstanceUID=series)
    header = ImageHeader(
        media_type="application/dicom",
        patient=_patient(dataset),
        rows=rows,
        columns=columns,
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        study_instance_uid=study,
        series_instance_uid=series,
        accession_number=trusted_or_empty(_text(dataset, "AccessionNumber")),
        transfer_syntax_uid=syntax,
        body_site_code=_body_site(dataset),
        laterality=_laterality(dataset),
        frames=frames,
    )
    return header, _facts(dataset, header)


def check_size(rows: int, columns: int) -> None:
    """Raises `UnsupportedImage` when a picture is too small to show a lesion or too large to decode safely."""
    if rows < MIN_SIDE or columns < MIN_SIDE:
        raise UnsupportedImage(f"The image is {columns} × {rows} pixels; at least {MIN_SIDE} per side are needed.")
    if rows > MAX_SIDE or columns > MAX_SIDE or rows * columns > MAX_PIXELS:
        raise UnsupportedImage(
            f"The image is {columns} × {rows} pixels; at most {MAX_SIDE} per side and "
            f"{MAX_PIXELS // 1_000_000} megapixels are taken. Send the dermoscopic picture itself."
        )


def _check_pixel_data_starts(body: bytes, position: int) -> None:
    if body[position : position + 4] != struct.pack("<HH", PIXEL_DATA >> 16, PIXEL_DATA & 0xFFFF):
        raise UnreadableObject("The object has no pixel data (7FE0,0010), or ends before it: not an image.")


def _check_pixels(dataset: Dataset, body: bytes, position: int, syntax: str, frames: int) -> None:
    photometric = _text(dataset, "PhotometricInterpretation")
    expected_samples = _PHOTOMETRIC_SAMPLES.get(photometric)
    if expected_samples is None:
        raise UnsupportedImage(f"Photometric interpretation {photometric[:16]!r} is not supported; send RGB.")
    samples, allocated = dataset.get("SamplesPerPixel"), dataset.get("BitsAllocated")
    stored = dataset.get("BitsStored") or allocated
    if samples != expected_samples or allocated not in (8, 16) or not 1 <= int(stored) <= allocated:
        raise UnsupportedImage(
            f"{samples} samples of {stored} in {allocated} bits do not make a {photometric} image; send 8-bit RGB."
        )
    if photometric == "PALETTE COLOR" and not any(
        f"{form}RedPaletteColorLookupTableData" in dataset for form in ("", "Segmented")
    ):
        raise UnsupportedImage("The palette image comes without its lookup tables; send RGB.")
    start, length = _pixel_value(body, position, syntax)
    if syntax in NATIVE_SYNTAXES:
        if length == _UNDEFINED:
            raise UnreadableObject("Pixel data is encapsulated although the transfer syntax says it is not.")
        pixels = int(dataset.Rows) * int(dataset.Columns) * frames
        bits = pixels * (2 if photometric in _HALVED_COLOUR else samples) * allocated
        expected = (bits + 7) // 8
        if length < expected or start + length > len(body):
            raise UnreadableObject(
                f"Pixel data is truncated: {min(length, len(body) - start)} of {expected} bytes; send it again."
            )
    else:
        if length != _UNDEFINED:
            raise UnreadableObject("Pixel data is not encapsulated although the transfer syntax says it is.")
        _check_fragments(body, start, frames)


def _pixel_value(body: bytes, position: int, syntax: str) -> tuple[int, int]:
    """(offset of the value, length) of the Pixel Data element at ``position`` (PS3.5 7.1)."""
    if syntax == IMPLICIT_LITTLE_ENDIAN:
        (length,) = struct.unpack_from("<I", body, position + 4)
        return position + 8, length
    if body[position + 4 : position + 6] not in (b"OB", b"OW"):
        raise UnreadableObject("Pixel data has a value representation other than OB or OW.")
    (length,) = struct.unpack_from("<I", body, position + 8)
    return position + 12, length


def _check_fragments(body: bytes, position: int, frames: int) -> None:
    """Walk the items of encapsulated pixel data (PS3.5 A.4): the walk must end at the sequence delimiter.

    After the offset table each frame has at least one item.
    """
    items, size = 0, 0
    while True:
        tag = body[position : position + 4]
        if tag not in (_ITEM, _SEQUENCE_END) or position + 8 > len(body):
            raise UnreadableObject("Compressed pixel data is truncated or damaged; send it again.")
        (length,) = struct.unpack_from("<I", body, position + 4)
        if tag == _SEQUENCE_END:
            break
        position += 8 + length
        items += 1
        size += length if items > 1 else 0  # the first item is the offset table
    if size == 0:
        raise UnreadableObject("Compressed pixel data is empty.")
    if items - 1 < frames:
        raise UnreadableObject(f"The object says that it holds {frames} frames and has {items - 1}; send it again.")


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if value is None or isinstance(value, (bytes, Sequence)):  # under a VR that holds no text: as good as absent
        return ""
    if isinstance(value, str):
        return plain(value).strip(" \0")
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        return "\\".join(str(one) for one in value).strip(" \0")
    return str(value).strip(" \0")


def _patient(dataset: Dataset) -> PatientIdentity:
    """Patient ID and issuer; nobody, so that a person decides, where one of them cannot be trusted (`identifiers`)."""
    issuer, patient_id = issuer_of(dataset), _text(dataset, "PatientID")
    return PatientIdentity(issuer, patient_id) if trusted(issuer) and trusted(patient_id) else PatientIdentity("", "")


def issuer_of(dataset: Dataset) -> str:
    """Issuer of Patient ID, else the universal entity of its qualifiers (PS3.3 10.15)."""
    issuer = _text(dataset, "IssuerOfPatientID")
    if not issuer:
        for item in dataset.get("IssuerOfPatientIDQualifiersSequence") or []:
            issuer = _text(item, "UniversalEntityID")
    return issuer


def _body_site(dataset: Dataset) -> str:
    """SNOMED CT code of the Anatomic Region Sequence (PS3.3 10.5), or empty; old SNOMED-RT codes are translated."""
    for item in dataset.get("AnatomicRegionSequence") or []:
        scheme, code = _text(item, "CodingSchemeDesignator"), _text(item, "CodeValue")
        if scheme == "SCT":
            return trusted_or_empty(code)
        if scheme in ("SRT", "SNM3", "99SDM"):
            from pydicom.sr._snomed_dict import mapping as snomed_mapping  # large: loaded for old senders only

            return str(snomed_mapping["SRT"].get(code, ""))
    return ""


def _facts(dataset: Dataset, header: ImageHeader) -> Facts:
    regions = dataset.get("AnatomicRegionSequence") or []
    return Facts(
        station=_texts(dataset, "StationName"),
        sop_class=(header.sop_class_uid, IMAGE_CLASSES[header.sop_class_uid]),
        modality=_texts(dataset, "Modality"),
        body_part=(
            *_texts(dataset, "BodyPartExamined"),
            *([header.body_site_code] if header.body_site_code else []),
            *(text for item in regions for text in _texts(item, "CodeMeaning")),
        ),
        description=(*_texts(dataset, "StudyDescription"), *_texts(dataset, "SeriesDescription")),
        own=_text(dataset, "Manufacturer") == MANUFACTURER,
    )


def _texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    text = _text(dataset, keyword)
    return (text,) if text else ()


def _laterality(dataset: Dataset) -> str:
    """R, L, B or U of Image Laterality (0020,0062), else Laterality (0020,0060)."""
    value = _text(dataset, "ImageLaterality") or _text(dataset, "Laterality")
    return value if value in ("R", "L", "B", "U") else ""


def read_picture_header(data: bytes, patient: PatientIdentity) -> ImageHeader:
    """Header of a PNG or JPEG file for ``patient``; rows and columns are those after EXIF orientation.

    Raises `UnreadableObject` (not such a picture, whatever it is called) and `UnsupportedImage` (size, animation).
    """
    if not data:
        raise UnreadableObject("The picture is empty (zero bytes).")
    picture = open_picture(data)
    columns, rows = picture.size
    if picture.getexif().get(0x0112, 1) in (5, 6, 7, 8):  # EXIF orientation: turned by a quarter
        rows, columns = columns, rows
    return ImageHeader(
        media_type=_PICTURE_TYPES[str(picture.format)],
        patient=patient,
        rows=rows,
        columns=columns,
    )


def open_picture(data: bytes) -> Image.Image:
    """The PNG or JPEG opened by Pillow and size-checked, pixels not yet decoded. Raises as `read_picture_header`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(BytesIO(data), formats=("PNG", "JPEG"))
            check_size(picture.height, picture.width)
            picture.getexif()
    except Image.DecompressionBombError as error:
        raise UnsupportedImage("The picture claims an enormous size and was not opened.") from error
    except PICTURE_ERRORS as error:
        raise UnreadableObject("The file is not a PNG or JPEG picture, whatever its name says.") from error
    if picture.format == "PNG" and getattr(picture, "n_frames", 1) > 1:
        raise UnsupportedImage("The picture is an animation; send a still picture.")
    return picture
