"""How much structure a dataset may have: checked while it is read, before memory or the interpreter's stack give way.

Half a megabyte of deflated bytes can hold sixty million empty elements, and sequences in sequences go on for ever;
pydicom makes an object of each element and a call of each level. A photograph has about sixty elements, three deep.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from typing import Final

from pydicom.datadict import dictionary_VR
from pydicom.tag import BaseTag

from dermoscopy.errors import UnreadableObject

MAX_ELEMENTS: Final = 20_000
"""Elements and items of a dataset, at all levels together."""
MAX_DEPTH: Final = 64
"""Sequences in sequences."""
MAX_VALUE_BYTES: Final = 1 << 20
"""Longest value of an attribute that holds text or numbers; pixels, profiles and other binary values may be longer."""

_UNDEFINED: Final = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_ITEM_BYTES: Final = b"\xfe\xff\x00\xe0"
_LONG: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""VRs whose length has four bytes (PS3.5 Table 7.1-1)."""
_BINARY: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW"})
_WITHOUT_BOUND: Final = ("O", "SQ", "UN", "US or", "UT")
"""VRs (or how their names begin, as in ``OB or OW``) whose values may be long and are never split into many."""

Stop = Callable[[BaseTag, str | None, int], bool]
"""What `pydicom.filereader.read_dataset` asks before it reads the value of an element."""


def bounded(body: bytes, buffer: BytesIO, implicit: bool, stop: int | None = None) -> Stop:
    """A ``stop_when`` for reading ``body`` through ``buffer``; reading ends before the first tag from ``stop`` on.

    While reading it raises `UnreadableObject` when the dataset has more structure than a picture can have.
    """
    count = 0

    def stop_when(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal count
        if stop is not None and int(tag) >= stop:  # pydicom's own comparison of tags is slow
            return True
        count += 1
        if length > MAX_VALUE_BYTES or vr == "SQ" or count > MAX_ELEMENTS or vr is None or vr == "UN":
            count = _checked(body, buffer.tell(), int(tag), vr, length, implicit, count)
        return False

    return stop_when


def _checked(body: bytes, position: int, tag: int, vr: str | None, length: int, implicit: bool, count: int) -> int:
    if count > MAX_ELEMENTS:
        raise UnreadableObject(f"The object has more than {MAX_ELEMENTS} data elements; send the picture alone.")
    _check_length(tag, length)
    without_vr = implicit or vr in (None, "UN")
    if (
        vr == "SQ"
        or (length == _UNDEFINED and without_vr)
        or (without_vr and body[position : position + 4] == _ITEM_BYTES)
    ):
        return _measured(body, position, length, without_vr, count)
    return count


def _check_length(tag: int, length: int) -> None:
    if not MAX_VALUE_BYTES < length < _UNDEFINED:
        return
    try:
        vr = dictionary_VR(tag)
    except KeyError:  # private or unknown: nobody here looks into it
        return
    if not vr.startswith(_WITHOUT_BOUND):
        raise UnreadableObject(f"The value of ({tag >> 16:04X},{tag & 0xFFFF:04X}) is longer than such a value may be.")


def _measured(body: bytes, position: int, length: int, implicit: bool, count: int) -> int:
    """``count`` and what the sequence at ``position`` holds. Where it is damaged, the reader will find out."""
    levels: list[tuple[int, bool]] = [(_UNDEFINED if length == _UNDEFINED else position + length, implicit)]
    size = len(body)
    while levels and position + 8 <= size:
        end, implicit = levels[-1]
        if position >= end:
            levels.pop()
            continue
        count += 1
        if count > MAX_ELEMENTS:
            raise UnreadableObject(f"The object has more than {MAX_ELEMENTS} data elements; send the picture alone.")
        group, number, length = struct.unpack_from("<HHI", body, position)
        tag = group << 16 | number
        position += 8
        if tag == _SEQUENCE_END:
            if end == _UNDEFINED:
                levels.pop()
            continue
        if tag in (_ITEM, _ITEM_END):
            continue
        vr = body[position - 4 : position - 2]
        if implicit or not (vr.isalpha() and vr.isupper()):
            vr = b""
        elif vr not in _LONG:
            length >>= 16
        elif position + 4 <= size:
            (length,) = struct.unpack_from("<I", body, position)
            position += 4
        _check_length(tag, length)
        without_vr = vr in (b"", b"UN")
        if vr == b"SQ" or (without_vr and (length == _UNDEFINED or body[position : position + 4] == _ITEM_BYTES)):
            if len(levels) >= MAX_DEPTH:
                raise UnreadableObject(f"Sequences in the object are nested more than {MAX_DEPTH} deep.")
            levels.append((_UNDEFINED if length == _UNDEFINED else position + length, without_vr))
        elif length == _UNDEFINED:
            position = _after_fragments(body, position) if vr in _BINARY else size
        else:
            position += length
    return count


def _after_fragments(body: bytes, position: int) -> int:
    """Where encapsulated pixel data (of an icon) ends."""
    while position + 8 <= len(body) and body[position : position + 4] == _ITEM_BYTES:
        position += 8 + int(struct.unpack_from("<I", body, position + 4)[0])
    return position + 8
