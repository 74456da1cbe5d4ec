"""Content negotiation of DICOMweb (PS3.18 8.7): what a request accepts, and which of our forms answers it.

Pure: text in, choice out. A choice of ``None`` is for the edge to answer with 406.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN

DICOM: Final = "application/dicom"
DICOM_JSON: Final = "application/dicom+json"
OCTETS: Final = "application/octet-stream"
MULTIPART: Final = "multipart/related"
ANY_SYNTAX: Final = "*"

IMAGE_TYPES: Final[Mapping[str, str]] = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
"""Transfer syntax of encapsulated frames → media type of one frame (PS3.18 Table 8.7.3-5)."""

_PIECE = re.compile(r'"(?:\\.|[^"\\])*"|[^",;]+|[,;]')
_LONGEST = 4000
"""Characters of a header that are read: a longer one is not an honest one."""


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One media range of an Accept header (RFC 9110 12.5.1), lower case, with its weight 0…1."""

    kind: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0

    def covers(self, media_type: str) -> bool:
        """Whether ``media_type`` is in this range, parameters apart."""
        if self.kind in ("*/*", media_type):
            return True
        major, _, minor = self.kind.partition("/")
        return minor == "*" and media_type.startswith(f"{major}/")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A form that a client takes. ``syntax`` is a UID or ``*`` (as it is stored); ``single`` is no multipart."""

    media_type: str
    syntax: str
    single: bool = False


def parse_accept(header: str) -> tuple[MediaRange, ...]:
    """Media ranges of ``header``, best first; an empty header accepts everything. What cannot be read is left out."""
    ranges = []
    for words in _split(header[:_LONGEST]):
        kind, *rest = words
        parameters = dict(_parameter(word) for word in rest)
        try:
            weight = float(parameters.pop("q", "1"))
        except ValueError:
            weight = 0.0
        if re.fullmatch(r"[^\s/]+/[^\s/]+", kind) and 0.0 < weight <= 1.0:
            ranges.append(MediaRange(kind.lower(), parameters, weight))
    if not header.strip():
        return (MediaRange("*/*"),)
    return tuple(sorted(ranges, key=lambda one: -one.weight))


def content_type(header: str) -> MediaRange:
    """A Content-Type header with its parameters; empty ``kind`` if there is none."""
    words = next(iter(_split(header[:_LONGEST])), [""])
    return MediaRange(words[0].lower(), dict(_parameter(word) for word in words[1:]))


def choose(accept: str, offers: Sequence[str]) -> str | None:
    """The offer that ``accept`` likes best; among equals the first offer. Parameters are not looked at."""
    for one in parse_accept(accept):
        for offer in offers:
            if one.covers(offer):
                return offer
    return None


def wanted_instances(accept: str, *, one: bool) -> tuple[Wanted, ...]:
    """Forms of whole instances that ``accept`` allows, best first (PS3.18 8.7.3.3.2, 10.4.1.1).

    Without a transfer syntax Explicit VR Little Endian is meant; ``one`` says that a single instance was asked for,
    which may come without multipart.
    """
    return tuple(_wanted(accept, [DICOM], single=[DICOM] if one else []))


def wanted_frames(accept: str) -> tuple[Wanted, ...]:
    """Forms of frames and bulk data that ``accept`` allows, best first (PS3.18 8.7.3.3.2)."""
    kinds = [OCTETS, *dict.fromkeys(IMAGE_TYPES.values())]
    return tuple(_wanted(accept, kinds, single=[OCTETS]))


def _wanted(accept: str, kinds: Sequence[str], *, single: Sequence[str]) -> Iterable[Wanted]:
    for one in parse_accept(accept):
        if one.covers(MULTIPART):
            inner = one.parameters.get("type", "").lower() or kinds[0]
            kind = kinds[0] if inner == "*/*" else inner
            if kind in kinds:
                yield Wanted(kind, _syntax(one, kind))
        if one.kind in single:
            yield Wanted(one.kind, _syntax(one, one.kind), single=True)


def _syntax(one: MediaRange, kind: str) -> str:
    # A compressed media type without a transfer syntax has one of its own: whatever is stored under that type.
    return one.parameters.get("transfer-syntax", EXPLICIT_LITTLE_ENDIAN if kind in (DICOM, OCTETS) else ANY_SYNTAX)


def _split(header: str) -> list[list[str]]:
    """``a;b="c,d", e`` → ``[["a", 'b="c,d"'], ["e"]]``."""
    found: list[list[str]] = [[""]]
    for piece in _PIECE.findall(header):
        if piece == ",":
            found.append([""])
        elif piece == ";":
            found[-1].append("")
        else:
            found[-1][-1] += piece
    return [[word.strip() for word in words] for words in found if words[0].strip()]


def _parameter(word: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return name.strip().lower(), value
