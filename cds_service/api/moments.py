"""Times as clients state them: RFC 3339 text with a time zone, nothing that merely could be read as a time."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

_DATE_FIRST = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")


def _text(value: object) -> object:
    if not isinstance(value, str) or not _DATE_FIRST.match(value):  # a number would count seconds since 1970
        raise ValueError("give the time as RFC 3339 text")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time outside the calendar") from error


Moment = Annotated[AwareDatetime, BeforeValidator(_text), AfterValidator(_in_utc)]
"""In UTC."""
