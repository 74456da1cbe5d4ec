"""The size that a JPEG or JPEG-LS stream states for itself, checked before a decoder sees it.

A stream whose number of lines is damaged to 0 ("told later", ISO/IEC 10918-1 B.2.5) sent libjpeg into an endless loop.
"""

from __future__ import annotations

import struct
from typing import Final

from dermoscopy.errors import UnreadableObject

JPEG_SYNTAXES: Final[frozenset[str]] = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81))
"""JPEG and JPEG-LS: the syntaxes whose streams begin with JPEG's markers."""

_FRAME_HEADERS: Final = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""SOF0 to SOF15 without DHT, JPG and DAC (ISO/IEC 10918-1 Table B.1), and SOF55 of JPEG-LS (ISO/IEC 14495-1 C.1.1)."""


def check_stream_size(frame: bytes, rows: int, columns: int) -> None:
    """Raises `UnreadableObject` unless the frame header of the stream ``frame`` states ``rows`` and ``columns``."""
    position = 2
    while position + 9 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _FRAME_HEADERS:
            if struct.unpack_from(">HH", frame, position + 5) == (rows, columns):
                return
            break
        (length,) = struct.unpack_from(">H", frame, position + 2)
        position += 2 + length
    raise UnreadableObject("The compressed picture does not state the size that Rows and Columns say; send it again.")
