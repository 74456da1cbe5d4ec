"""What is negotiated: the SOP classes and transfer syntaxes this service takes, and why.

The order of the transfer syntaxes is the acceptor's preference (PS3.8 9.3.3.2 leaves the choice to the acceptor).
What costs no decoding comes first, then lossless, then lossy: a sender that offers several for one presentation
context and holds the image uncompressed then sends it without loss; one that holds a compressed image offers that
encoding in a presentation context of its own. Every entry is really decoded in the test of this module.
"""

from __future__ import annotations

from typing import Final

IMPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1.99"
RLE: Final = "1.2.840.10008.1.2.5"
JPEG_EXTENDED: Final = "1.2.840.10008.1.2.4.51"

VERIFICATION: Final = "1.2.840.10008.1.1"
DERMOSCOPIC_PHOTOGRAPHY: Final = "1.2.840.10008.5.1.4.1.1.77.1.7"
VL_PHOTOGRAPHIC: Final = "1.2.840.10008.5.1.4.1.1.77.1.4"
VL_ENDOSCOPIC: Final = "1.2.840.10008.5.1.4.1.1.77.1.1"
SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
GRAYSCALE_BYTE_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7.2"
GRAYSCALE_WORD_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7.3"
TRUE_COLOR_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7.4"
SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_SR: Final = "1.2.840.10008.5.1.4.1.1.88.33"
KEY_OBJECT_SELECTION: Final = "1.2.840.10008.5.1.4.1.1.88.59"

IMAGE_CLASSES: Final[dict[str, str]] = {
    DERMOSCOPIC_PHOTOGRAPHY: "Dermoscopic Photography",
    VL_PHOTOGRAPHIC: "VL Photographic",
    VL_ENDOSCOPIC: "VL Endoscopic",
    SECONDARY_CAPTURE: "Secondary Capture",
    TRUE_COLOR_CAPTURE: "Multi-frame True Color Secondary Capture",
    GRAYSCALE_BYTE_CAPTURE: "Multi-frame Grayscale Byte Secondary Capture",
    GRAYSCALE_WORD_CAPTURE: "Multi-frame Grayscale Word Secondary Capture",
}
"""SOP Class UID → name of the storage classes accepted (PS3.4 B.5); VL Endoscopic where a site sends skin with it.

A multi-frame object of one frame is an image; one of several frames is kept, and a person is asked."""

NATIVE_SYNTAXES: Final[frozenset[str]] = frozenset(
    {IMPLICIT_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN, DEFLATED_LITTLE_ENDIAN}
)
"""Transfer syntaxes whose pixel data is not encapsulated (PS3.5 A.1, A.2, A.5)."""

TRANSFER_SYNTAXES: Final[dict[str, str]] = {
    EXPLICIT_LITTLE_ENDIAN: "Explicit VR Little Endian",
    IMPLICIT_LITTLE_ENDIAN: "Implicit VR Little Endian",
    DEFLATED_LITTLE_ENDIAN: "Deflated Explicit VR Little Endian",
    RLE: "RLE Lossless",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.201": "HTJ2K Lossless",
    "1.2.840.10008.1.2.4.202": "HTJ2K Lossless RPCL",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless SV1",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline (8 bit)",
    JPEG_EXTENDED: "JPEG Extended (8 or 12 bit)",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near-Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.203": "HTJ2K",
}
"""Transfer syntaxes that decode here, in order of preference. Big endian (retired) and video are refused."""

NEGOTIATED_SYNTAXES: Final[tuple[str, ...]] = tuple(TRANSFER_SYNTAXES)
"""Offered to senders."""

DCT_SYNTAXES: Final[frozenset[str]] = frozenset({"1.2.840.10008.1.2.4.50", JPEG_EXTENDED})
"""JPEG with loss: what its colours are is said by the compressed picture itself (PS3.5 8.2.1)."""

JPEG_2000_SYNTAXES: Final[frozenset[str]] = frozenset(
    f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203)
)
LOSSY_SYNTAXES: Final[frozenset[str]] = DCT_SYNTAXES | {f"1.2.840.10008.1.2.4.{number}" for number in (81, 91, 203)}
"""Under these a picture has lost something, or may have."""
