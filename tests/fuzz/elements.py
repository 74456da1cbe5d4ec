"""A dataset as a list of elements whose parts may lie, and the bytes that such a list makes (PS3.5 7.1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UC", "UN", "UR", "UT", "SV", "UV"})
"""Their length has four bytes in an explicit encoding (PS3.5 Table 7.1-1)."""
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010


@dataclass(slots=True)
class Element:
    """One data element. ``length`` is what is announced when that is not the length of ``value``."""

    tag: int
    vr: str
    value: bytes
    length: int | None = None

    def encoded(self, implicit: bool) -> bytes:
        """Tag, VR and length as announced, and the value as it is."""
        announced = len(self.value) if self.length is None else self.length
        head = struct.pack("<HH", self.tag >> 16 & 0xFFFF, self.tag & 0xFFFF)
        if implicit:
            return head + struct.pack("<I", announced & UNDEFINED) + self.value
        vr = self.vr.encode("latin-1")[:2].ljust(2, b" ")
        if self.vr in LONG_VRS:
            return head + vr + struct.pack("<HI", 0, announced & UNDEFINED) + self.value
        return head + vr + struct.pack("<H", announced & 0xFFFF) + self.value


def elements_of(data: bytes) -> list[Element]:
    """Top-level elements of a sound dataset in an explicit VR encoding."""
    found, position = [], 0
    while position < len(data):
        group, number = struct.unpack_from("<HH", data, position)
        vr = data[position + 4 : position + 6].decode()
        if vr in LONG_VRS:
            (length,) = struct.unpack_from("<I", data, position + 8)
            position += 12
        else:
            (length,) = struct.unpack_from("<H", data, position + 6)
            position += 8
        tag = group << 16 | number
        if length == UNDEFINED:
            found.append(Element(tag, vr, data[position:], UNDEFINED))  # only pixel data has it in our samples
            break
        found.append(Element(tag, vr, data[position : position + length]))
        position += length
    return found


def joined(elements: list[Element], implicit: bool) -> bytes:
    """The dataset as bytes."""
    return b"".join(element.encoded(implicit) for element in elements)


def item(value: bytes, length: int | None = None) -> bytes:
    """One item of a sequence or of encapsulated pixel data."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value) if length is None else length & UNDEFINED) + value


def delimiter(tag: int) -> bytes:
    """An item or sequence delimitation item."""
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, 0)


def nested(depth: int, implicit: bool, *, undefined: bool, closed: bool, tag: int = 0x00091010) -> Element:
    """A sequence in a sequence, ``depth`` deep, with or without its delimiters."""
    made = Element(0x00091001, "LO", b"deep")
    inner = made.encoded(implicit)
    for _ in range(depth):
        if undefined:
            inside = item(inner, UNDEFINED) + (delimiter(ITEM_END) if closed else b"")
            made = Element(tag, "SQ", inside + (delimiter(SEQUENCE_END) if closed else b""), UNDEFINED)
        else:
            made = Element(tag, "SQ", item(inner))
        inner = made.encoded(implicit)
    return made


def vr_of(tag: int) -> str:
    """VR that the dictionary gives ``tag``, or UN."""
    try:
        return dictionary_VR(tag)[:2]
    except KeyError:
        return "UN"


def uid_of(dataset: Dataset, keyword: str) -> str:
    """A UID of ``dataset`` as text."""
    return str(dataset.get(keyword) or "")
