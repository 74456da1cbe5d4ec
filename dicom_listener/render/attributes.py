"""A dataset being written: attributes by tag, encoded straight to Explicit VR Little Endian (PS3.5 7.1.2, A.2).

Reports hold hundreds of small sequence items; a general-purpose dataset class costs ten times as much to fill and
write. Only what this service writes is supported, and the tests read everything back with pydicom.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, Final

from pydicom.datadict import dictionary_VR, tag_for_keyword

_LONG: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
"""Value representations with a 32-bit length (PS3.5 Table 7.1-1)."""
_NUMBERS: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}
_SHORT_LIMIT: Final = 0xFFFE


class Attributes(dict[int, tuple[str, Any]]):
    """Tag → (value representation, value). Values: str, int, float, bytes, lists of them, `Attributes` lists, None."""


@lru_cache(maxsize=1024)
def tag_and_vr(keyword: str) -> tuple[int, str]:
    """Tag and value representation of ``keyword``. Raises `KeyError` for a keyword that DICOM does not know."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return int(tag), dictionary_VR(tag).partition(" or ")[0]


def put(target: Attributes, **values: Any) -> Attributes:
    """Set attributes by keyword, as they are: what a source said is passed on unchanged."""
    for keyword, value in values.items():
        tag, vr = tag_and_vr(keyword)
        target[tag] = (vr, value)
    return target


def encode(attributes: Attributes) -> bytes:
    """``attributes`` in tag order, text in UTF-8. Raises `ValueError` for a value too long for its length field."""
    parts: list[bytes] = []
    for tag in sorted(attributes):
        vr, value = attributes[tag]
        body = _value(vr, value)
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
        if vr in _LONG:
            parts.append(head + struct.pack("<HI", 0, len(body)))
        elif len(body) <= _SHORT_LIMIT:
            parts.append(head + struct.pack("<H", len(body)))
        else:
            raise ValueError(f"value of ({tag >> 16:04X},{tag & 0xFFFF:04X}) is too long")
        parts.append(body)
    return b"".join(parts)


def _value(vr: str, value: Any) -> bytes:
    if value is None:
        return b""
    if vr == "SQ":
        return b"".join(_item(encode(one)) for one in value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value) + b"\0" * (len(value) % 2)
    several = value if isinstance(value, (list, tuple)) else (value,)
    if vr in _NUMBERS:
        return struct.pack(f"<{len(several)}{_NUMBERS[vr]}", *several)
    if vr == "AT":
        return b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in several)
    text = "\\".join(str(one) for one in several).encode("utf-8", "replace")
    return text + (b"\0" if vr == "UI" else b" ") * (len(text) % 2)


def _item(body: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(body)) + body
