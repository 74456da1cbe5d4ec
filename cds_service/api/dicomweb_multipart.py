"""``multipart/related`` (RFC 2387) as DICOMweb uses it: read part by part from the network, written part by part."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser

from cds_service.api.refusals import MalformedRequest


@dataclass(slots=True)
class Part:
    """One part of a body. ``too_large``: it went over the limit and its bytes were let go."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    too_large: bool = False


class _Reader:
    """Callbacks of the parser; what is complete waits in ``done``."""

    def __init__(self, boundary: str, largest_part: int) -> None:
        self._largest = largest_part
        self._part = Part()
        self._name, self._value = bytearray(), bytearray()
        self.done: list[Part] = []
        self.ended = False
        self.parser = MultipartParser(
            boundary.encode("latin-1"),
            {
                "on_part_begin": self._begin,
                "on_header_field": self._field,
                "on_header_value": self._text,
                "on_header_end": self._header,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    def _begin(self) -> None:
        self._part = Part()

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _text(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header(self) -> None:
        self._part.headers[self._name.decode("latin-1").strip().lower()] = self._value.decode("latin-1").strip()
        self._name, self._value = bytearray(), bytearray()

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if len(part.data) + end - start > self._largest:
            part.too_large, part.data = True, bytearray()
        if not part.too_large:
            part.data += data[start:end]

    def _end(self) -> None:
        self.done.append(self._part)
        self._part = Part()

    def _finish(self) -> None:
        self.ended = True


async def read_parts(chunks: AsyncIterator[bytes], boundary: str, largest_part: int) -> AsyncIterator[Part]:
    """Parts of a body as they become complete; no more than one and a chunk are in memory.

    Raises `MalformedRequest` when the body is no multipart or ends before its last boundary.
    """
    try:
        reader = _Reader(boundary, largest_part)
        async for chunk in chunks:
            reader.parser.write(chunk)
            for part in reader.done:
                yield part
            reader.done.clear()
        reader.parser.finalize()
    except (FormParserError, MultipartParseError, UnicodeEncodeError) as error:
        raise MalformedRequest("The body is not the multipart that its Content-Type says it is.") from error
    if not reader.ended:
        raise MalformedRequest("The body ends before its last boundary: send it again, what came twice is kept once.")


def new_boundary() -> str:
    """A boundary that no object holds."""
    return f"dermoscopy-{secrets.token_hex(24)}"


def write_parts(parts: Iterable[tuple[str, str, bytes]], boundary: str) -> Iterator[bytes]:
    """The body of (Content-Type, Content-Location or empty, bytes) parts, in pieces (RFC 2046 5.1)."""
    for media_type, location, data in parts:
        head = f"--{boundary}\r\nContent-Type: {media_type}\r\nContent-Length: {len(data)}\r\n"
        yield (head + (f"Content-Location: {location}\r\n" if location else "") + "\r\n").encode("latin-1")
        yield data
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode("latin-1")
