"""A numbered document of paragraphs and tables, as Markdown for people and as JSON for programs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """``key`` names the table in the JSON form and never changes; a table without rows says so in its place."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.key}: a row of {len(row)} cells under {len(self.columns)} columns")


@dataclass(frozen=True, slots=True)
class Section:
    """``blocks`` are paragraphs (Markdown) and tables; ``number`` is that of PS3.2 Annex N without its letter."""

    number: str
    title: str
    blocks: tuple[str | Table, ...] = ()
    sections: tuple[Section, ...] = ()

    @property
    def heading(self) -> str:
        """Number and title."""
        return f"{self.number} {self.title}"


@dataclass(frozen=True, slots=True)
class Document:
    """A title, a few paragraphs before the first section, and the sections."""

    title: str
    preface: tuple[str, ...]
    sections: tuple[Section, ...]

    def tables(self) -> dict[str, Table]:
        """Every table by its key. Raises `ValueError` for a key that is there twice."""
        found: dict[str, Table] = {}
        for section in _walk(self.sections):
            for block in section.blocks:
                if isinstance(block, Table) and found.setdefault(block.key, block) is not block:
                    raise ValueError(f"two tables are called {block.key}")
        return found

    def to_markdown(self) -> str:
        """GitHub flavoured Markdown, with a table of contents after the first section (PS3.2 N.2)."""
        lines = [f"# {self.title}", ""]
        for paragraph in self.preface:
            lines += [paragraph, ""]
        for place, section in enumerate(self.sections):
            lines += _markdown(section, 2)
            if place == 0:
                lines += ["## 2 Table of contents", "", *_contents(self.sections), ""]
        return "\n".join(lines).rstrip() + "\n"

    def to_json(self) -> dict[str, Any]:
        """Sections as they stand, each table under its key with one object for each row."""
        return {"title": self.title, "preface": list(self.preface), "sections": [_json(s) for s in self.sections]}


def rows(table: Iterable[Sequence[object]]) -> tuple[tuple[str, ...], ...]:
    """Cells as text."""
    return tuple(tuple(str(cell) for cell in row) for row in table)


def _walk(sections: Iterable[Section]) -> Iterator[Section]:
    for section in sections:
        yield section
        yield from _walk(section.sections)


def _contents(sections: Sequence[Section]) -> Iterator[str]:
    for section in sections:
        yield f"- [{section.heading}](#{_anchor(section.heading)})"
        yield from (f"  - [{part.heading}](#{_anchor(part.heading)})" for part in section.sections)


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _markdown(section: Section, level: int) -> list[str]:
    lines = [f"{'#' * min(level, 6)} {section.heading}", ""]
    for block in section.blocks:
        lines += [block, ""] if isinstance(block, str) else _table(block)
    for part in section.sections:
        lines += _markdown(part, level + 1)
    return lines


def _table(table: Table) -> list[str]:
    if not table.rows:
        return [f"**{table.title}:** none.", ""]
    head = [_row(table.columns), "|" + "---|" * len(table.columns)]
    return [f"**{table.title}**", "", *head, *(_row(row) for row in table.rows), ""]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"


def _json(section: Section) -> dict[str, Any]:
    return {
        "number": section.number,
        "title": section.title,
        "blocks": [
            block
            if isinstance(block, str)
            else {
                "table": block.key,
                "title": block.title,
                "rows": [dict(zip(block.columns, row, strict=True)) for row in block.rows],
            }
            for block in section.blocks
        ],
        "sections": [_json(part) for part in section.sections],
    }
