"""Part 10 files (PS3.10 7.1) to and from the bare dataset that travels over the network.

Intake keeps the dataset without preamble and file meta information, so that one image has one digest whether it came
by C-STORE or as a file; `to_part10` puts a file around it again.
"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Final

import structlog
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from dermoscopy.domain import ImageHeader
from dermoscopy.errors import UnreadableObject
from dicom_listener.bounds import bounded
from dicom_listener.syntaxes import DEFLATED_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN

log = structlog.get_logger(__name__)

IMPLEMENTATION_CLASS_UID: Final = "2.25.148190362018469241105826531719305523063"
"""Our Implementation Class UID (PS3.7 D.3.3.2), under the UUID arc."""
IMPLEMENTATION_VERSION_NAME: Final = "DERMOSCOPY_CDS"
MANUFACTURER: Final = "Dermoscopy CDS"
"""Manufacturer (0008,0070) of everything that we make, by which it is recognised when it comes back."""
MAX_INFLATED_BYTES: Final = 512 * 1024 * 1024
"""Largest dataset that a deflated one may become: a deflate bomb stops here."""

PARSE_ERRORS: Final[tuple[type[BaseException], ...]] = (
    BytesLengthException,
    InvalidDicomError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom and Pillow raise on bytes that are not what they say they are."""


def is_part10(data: bytes) -> bool:
    """Whether ``data`` starts with the 128-byte preamble and the ``DICM`` prefix (PS3.10 7.1)."""
    return data[128:132] == b"DICM"


def split_part10(data: bytes) -> tuple[bytes, str]:
    """(dataset bytes without preamble and file meta information, Transfer Syntax UID) of a Part 10 file.

    Raises `UnreadableObject` if ``data`` is not such a file.
    """
    if not is_part10(data):
        raise UnreadableObject("This is not a DICOM file (no DICM prefix at byte 128); send a DICOM Part 10 file.")
    try:
        buffer = BytesIO(data)
        buffer.seek(132)
        meta = read_dataset(buffer, False, True, stop_when=lambda tag, _vr, _length: tag.group != 2)
        syntax = str(meta.get("TransferSyntaxUID") or "")
        body = data[buffer.tell() :]
    except PARSE_ERRORS as error:
        raise UnreadableObject("The file meta information of this DICOM file cannot be read.") from error
    if not syntax:
        raise UnreadableObject("The DICOM file does not state its transfer syntax (0002,0010).")
    if not body:
        raise UnreadableObject("The DICOM file ends after its file meta information: there is no dataset.")
    return body, syntax


def to_part10(data: bytes, header: ImageHeader) -> bytes:
    """A Part 10 file around the dataset bytes ``data``, with our implementation class UID (PS3.10 7.1)."""
    return (
        file_meta(header.sop_class_uid, header.sop_instance_uid, header.transfer_syntax_uid or IMPLICIT_LITTLE_ENDIAN)
        + data
    )


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble, prefix and file meta information for one object, as bytes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    buffer.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(buffer, meta)
    return buffer.getvalue()


def inflate(data: bytes) -> bytes:
    """The raw-deflated dataset ``data`` inflated (PS3.5 A.5). Raises `UnreadableObject` on damage or a bomb."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = engine.decompress(data, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise UnreadableObject("The deflated dataset is damaged; send it again.") from error
    if engine.unconsumed_tail:
        raise UnreadableObject("The deflated dataset grows beyond the allowed size.")
    if not engine.eof:
        raise UnreadableObject("The deflated dataset is truncated; send it again.")
    return plain


def open_dataset(data: bytes, transfer_syntax_uid: str, *, pixels: bool = True) -> Dataset:
    """The dataset in ``data`` (no file meta information) as pydicom sees it, ready for decoding.

    Elements whose value cannot be read are left out. ``pixels=False`` stops before Pixel Data. Raises one of
    `PARSE_ERRORS` or `UnreadableObject`.
    """
    if transfer_syntax_uid == DEFLATED_LITTLE_ENDIAN:
        data = inflate(data)
    buffer = BytesIO(data)
    implicit = transfer_syntax_uid == IMPLICIT_LITTLE_ENDIAN
    stop_when = bounded(data, buffer, implicit, None if pixels else 0x7FE00008)
    dataset = read_dataset(buffer, implicit, True, stop_when=stop_when)
    _leave_out_unreadable(dataset)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    return dataset


_TEXT: Final = frozenset(
    ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"],
)
"""VRs whose values are characters (PS3.5 6.2)."""


def _contradicts(tag: int, vr: str) -> bool:
    """Whether bytes or numbers stand where the dictionary has text or a sequence: a date as a floating point number."""
    try:
        expected = dictionary_VR(tag)
    except KeyError:
        return False
    return (expected in _TEXT and vr not in _TEXT) or (expected == "SQ" and vr != "SQ")


def _leave_out_unreadable(dataset: Dataset) -> None:
    """Take out what pydicom cannot make a value of: a device's odd element must not cost the picture its analysis.

    pydicom converts a value when it is first asked for, and would raise in the middle of a result.
    """
    for tag in list(dataset.keys()):
        try:
            if tag.group != 0x7FE0 and _contradicts(int(tag), dataset[tag].VR):
                raise ValueError(dataset[tag].VR)
        except PARSE_ERRORS as error:
            log.warning("dataset.element_left_out", tag=str(tag), error=type(error).__name__)
            del dataset[tag]
