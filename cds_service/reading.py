"""Telling DICOM, PNG and JPEG apart, for the edges that take files of any kind."""

from __future__ import annotations

from dataclasses import replace

from dermoscopy.domain import DermoscopicImage, ImageHeader, PatientIdentity, SourceObject
from dermoscopy.errors import UnreadableObject

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"


def decode_object(source: SourceObject) -> DermoscopicImage:
    """The picture as the algorithm sees it. Raises `Rejected` with what is wrong."""
    from dicom_listener.decode import decode

    return decode(source)


def read_object(data: bytes, patient: PatientIdentity) -> tuple[bytes, ImageHeader]:
    """Bytes to store and their header. ``patient`` is used where the object names none itself.

    A DICOM file loses its file meta information (it names the software that wrote the file, not the image). Raises
    `Rejected` with what is wrong.
    """
    from dicom_listener.header import read_header, read_picture_header
    from dicom_listener.part10 import is_part10, split_part10

    if not data:
        raise UnreadableObject("the file is empty: send a DICOM, PNG or JPEG image")
    if data.startswith((PNG, JPEG)):
        return data, read_picture_header(data, patient)
    if is_part10(data):
        body, transfer_syntax = split_part10(data)
        header = read_header(body, transfer_syntax)
        return body, header if header.patient.known else replace(header, patient=patient)
    raise UnreadableObject("not a DICOM file, a PNG or a JPEG image: send one of these")
