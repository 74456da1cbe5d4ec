"""DIMSE statuses of this service, one table: error type → C-STORE status (PS3.4 B.2.3, PS3.7 C).

===========  ===================================  ==========================================================
status       PS3.4 Table B.2-1                    here
===========  ===================================  ==========================================================
``0x0000``   Success                              bytes durable, work started
``0xA700``   Refused: Out of Resources            no room, or a part of this service is away: send again later
``0xA900``   Data Set does not match SOP Class    SOP class or UIDs differ from the command, or not taken
``0xC000``   Cannot Understand                    not readable, no pixel data, truncated
``0xC100``   Cannot Understand                    transfer syntax without a decoder
``0xC110``   Cannot Understand                    readable, but cannot be analysed (size, pixel format)
``0xC130``   Cannot Understand                    refused by a routing rule
``0xC140``   Cannot Understand                    we asked for it, but it is of another patient than we asked for
``0xC1FF``   Cannot Understand                    refused for another permanent reason
``0xC211``   Cannot Understand                    unexpected failure here, logged
===========  ===================================  ==========================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dermoscopy.errors import (
    DermoscopyError,
    IntegrityViolation,
    NotDermoscopic,
    Rejected,
    Unavailable,
    UnreadableObject,
    UnsupportedImage,
    UnsupportedSopClass,
    UnsupportedTransferSyntax,
)
from dicom_listener.asked import OtherPatient
from dicom_listener.rules import RefusedByRule

SUCCESS: Final = 0x0000
OUT_OF_RESOURCES: Final = 0xA700
DOES_NOT_MATCH_SOP_CLASS: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
PROCESSING_FAILURE: Final = 0xC211


class TooManyObjects(Unavailable):
    """The sender is faster than it may be: nothing was kept, it may go on in a moment."""


COMMENT_LENGTH: Final = 64
"""Error Comment (0000,0902) is a Long String: at most 64 characters (PS3.5 6.2)."""


@dataclass(frozen=True, slots=True)
class DimseStatus:
    """What goes into a response: Status (0000,0900) and Error Comment (0000,0902), which never holds patient data."""

    code: int
    comment: str = ""


STATUS_BY_ERROR: Final[tuple[tuple[type[DermoscopyError], int, str], ...]] = (
    (UnsupportedSopClass, DOES_NOT_MATCH_SOP_CLASS, "SOP class not taken, or not the one announced"),
    (UnsupportedTransferSyntax, 0xC100, "Transfer syntax cannot be decoded"),
    (UnsupportedImage, 0xC110, "Image cannot be analysed: size or pixel format"),
    (UnreadableObject, CANNOT_UNDERSTAND, "Not a readable image: damaged, truncated or no pixel data"),
    (NotDermoscopic, 0xC120, "Not a dermoscopic image"),
    (RefusedByRule, 0xC130, "Refused by a rule of this site"),
    (OtherPatient, 0xC140, "Not of the patient that was asked for"),
    (Rejected, 0xC1FF, "Refused for good"),
    (TooManyObjects, OUT_OF_RESOURCES, "Too many objects in a minute; send again later"),
    (Unavailable, OUT_OF_RESOURCES, "Cannot take it now, nothing was kept; send again later"),
    (IntegrityViolation, OUT_OF_RESOURCES, "Stopped for an integrity check, nothing was kept"),
    (DermoscopyError, PROCESSING_FAILURE, "Processing failure, nothing was kept"),
)
"""First match wins, so subclasses stand before their parents. Comments are fixed texts: no value of a dataset."""


def status_of(error: BaseException) -> DimseStatus:
    """The status for ``error``; anything that is not ours is a processing failure (0xC211)."""
    for kind, code, comment in STATUS_BY_ERROR:
        if isinstance(error, kind):
            return DimseStatus(code, comment[:COMMENT_LENGTH])
    return DimseStatus(PROCESSING_FAILURE, "Unexpected failure, nothing was kept")
