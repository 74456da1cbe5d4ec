"""What PS3.15 Table E.1-1 says of each attribute, under the profile and the options that we claim.

The table itself is ``deidentify_actions.tsv``, whole and with its source; nothing is left out because no camera is
known to write it. Where an option has an action it takes the place of the Basic Profile's (PS3.15 E.1.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

_FILE: Final = "deidentify_actions.tsv"


@dataclass(frozen=True, slots=True)
class Retained:
    """What is retained beyond the (moved) dates, where somebody asked for it: the options of PS3.15 E.3.7 and E.3.8."""

    patient: bool = False
    """Patient characteristics: age (90 and more as 90), sex, size, weight."""
    device: bool = False
    """Device identity: manufacturer, model, serial number, software, station."""


@dataclass(frozen=True, slots=True)
class Option:
    """One row of CID 7050 (PS3.16): ``code`` in the scheme DCM, ``column`` of the table where it has one."""

    code: str
    meaning: str
    column: str = ""


BASIC: Final = Option("113100", "Basic Application Confidentiality Profile", "basic")
_ALWAYS: Final = (
    Option("113101", "Clean Pixel Data Option"),
    Option("113102", "Clean Recognizable Visual Features Option"),
    Option("113105", "Clean Descriptors Option", "descriptors"),
    Option("113107", "Retain Longitudinal Temporal Information Modified Dates Option", "modified_dates"),
)
_PATIENT: Final = Option("113108", "Retain Patient Characteristics Option", "patient")
_DEVICE: Final = Option("113109", "Retain Device Identity Option", "device")


def claimed(retained: Retained) -> tuple[Option, ...]:
    """Profile and options, as they stand in each object and in the manifest."""
    asked = ((_PATIENT,) if retained.patient else ()) + ((_DEVICE,) if retained.device else ())
    return (BASIC, *_ALWAYS, *asked)


@cache
def read_actions() -> Mapping[str, Mapping[str, str]]:
    """The table: tag (eight hex digits; ``x`` stands for any, in repeating groups) → column → action."""
    text = files(__package__).joinpath(_FILE).read_text(encoding="utf-8")
    names, *rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return {row[0].lower(): dict(zip(names[1:], row[1:], strict=True)) for row in rows}


def action_for(tag: int, retained: Retained) -> str:
    """The action on ``tag`` (X, Z, D, U, K, C, or several with ``/``); empty where the table has no row.

    Of several options that speak of one attribute, one that retains what was asked for goes before one that cleans.
    """
    table = read_actions()
    name = f"{tag:08x}"
    row = table.get(name) or table.get(f"{name[:2]}xx{name[4:]}") or table.get(f"{name[:2]}xxxxxx")
    if row is None:
        return ""
    for option in reversed(claimed(retained)):
        if option.column and row[option.column]:
            return row[option.column]
    return row[BASIC.column]
