"""Search values: how they are read, and whether a resource or a time matches (https://hl7.org/fhir/R4/search.html)."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_adapters.elements import JsonObject

_DATE = re.compile(
    r"(?P<prefix>eq|ne|gt|lt|ge|le|sa|eb)?"
    r"(?P<year>[0-9]{4})(-(?P<month>[0-9]{2})(-(?P<day>[0-9]{2})"
    r"(T(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(:(?P<second>[0-9]{2})(\.(?P<fraction>[0-9]{1,6})[0-9]*)?)?"
    r"(?P<zone>Z|[+-][0-9]{2}:[0-9]{2})?)?)?)?"
)


class BadValue(ValueError):
    """A search value that cannot be read; the text says what to write, and never repeats the value."""


@dataclass(frozen=True, slots=True)
class Token:
    """https://hl7.org/fhir/R4/search.html#token; ``system`` is ``None`` where any will do, empty where none may be."""

    system: str | None
    code: str


@dataclass(frozen=True, slots=True)
class Span:
    """Times that a date value allows: from ``low`` on, and before ``high``; outside of them where ``outside``."""

    low: datetime | None
    high: datetime | None
    outside: bool = False


def read_tokens(value: str) -> tuple[Token, ...]:
    """``a|b,c``: any of them may match. Raises `BadValue`."""
    return tuple(_token(one) for one in _split(value, ","))


def _token(value: str) -> Token:
    parts = [_plain(part) for part in _split(value, "|")]
    if len(parts) == 1 and parts[0]:
        return Token(None, parts[0])
    if len(parts) != 2 or not any(parts):
        raise BadValue("write system|code, |code or code; several with commas between them")
    return Token(parts[0], parts[1])


def _split(value: str, mark: str) -> list[str]:
    """Parts of ``value`` between marks that no backslash stands before (https://hl7.org/fhir/R4/search.html#escaping)."""
    return re.split(rf"(?<!\\){re.escape(mark)}", value)


def _plain(value: str) -> str:
    return re.sub(r"\\([\\,|$])", r"\1", value)


def read_date(value: str) -> Span:
    """https://hl7.org/fhir/R4/search.html#date; a value stands for all times that it leaves open. Raises `BadValue`."""
    found = _DATE.fullmatch(value)
    if found is None:
        raise BadValue(
            "write a date or time as 2026, 2026-03, 2026-03-14 or 2026-03-14T09:26:53Z, behind eq ne gt lt ge le sa eb"
        )
    try:
        low, high = _range(found)
    except (ValueError, OverflowError):
        raise BadValue("this date is not in the calendar") from None
    prefix = found["prefix"] or "eq"
    if prefix in ("gt", "sa"):
        return Span(high, None)
    if prefix in ("lt", "eb"):
        return Span(None, low)
    if prefix == "ge":
        return Span(low, None)
    if prefix == "le":
        return Span(None, high)
    return Span(low, high, outside=prefix == "ne")


def _range(found: re.Match[str]) -> tuple[datetime, datetime]:
    year, month, day = int(found["year"]), int(found["month"] or 1), int(found["day"] or 1)
    zone = found["zone"] or "Z"
    fraction = found["fraction"] or ""
    clock = f"{found['hour'] or '00'}:{found['minute'] or '00'}:{found['second'] or '00'}.{fraction:0<6}"
    text = f"{year:04}-{month:02}-{day:02}T{clock}{zone.replace('Z', '+00:00')}"
    low = datetime.fromisoformat(text).astimezone(UTC)
    if fraction:
        length = timedelta(microseconds=10 ** (6 - len(fraction)))
    elif found["second"]:
        length = timedelta(seconds=1)
    elif found["hour"]:
        length = timedelta(minutes=1)
    elif found["day"]:
        length = timedelta(days=1)
    elif found["month"]:
        length = timedelta(days=calendar.monthrange(year, month)[1])
    else:
        length = timedelta(days=366 if calendar.isleap(year) else 365)
    return low, low + length


def allows(span: Span, moment: datetime) -> bool:
    """Whether a time is one that the date value allows."""
    inside = (span.low is None or moment >= span.low) and (span.high is None or moment < span.high)
    return inside is not span.outside


def matches(resource: JsonObject, element: str, wanted: Sequence[Token]) -> bool:
    """Whether any of ``wanted`` is among the codes or identifiers of the element."""
    there = list(_codes(resource.get(element)))
    if element == "masterIdentifier":  # R4: a DocumentReference is found by either
        there += _codes(resource.get("identifier"))
    return any(_same(one, system, code) for one in wanted for system, code in there)


def _same(wanted: Token, system: str, code: str) -> bool:
    return (wanted.system is None or wanted.system == system) and (not wanted.code or wanted.code == code)


def _codes(value: Any) -> Iterable[tuple[str, str]]:
    """(system, code) of code, Coding, CodeableConcept or Identifier, one or several."""
    if isinstance(value, str):
        yield "", value
    elif isinstance(value, list):
        for one in value:
            yield from _codes(one)
    elif isinstance(value, dict):
        if "coding" in value:
            yield from _codes(value["coding"])
        else:
            yield value.get("system", ""), value.get("code") or value.get("value") or ""
