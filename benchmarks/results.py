"""What a measurement gives: tables of medians with the samples behind them, shown on screen, as JSON, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table as ScreenTable

Cell = str | int | float | None
NOT_INSTALLED = "not installed"


@dataclass(frozen=True, slots=True)
class Table:
    """One table of figures. ``samples`` holds every single measurement behind the medians, by what was measured."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "columns": self.columns,
            "rows": self.rows,
            "note": self.note,
            "samples": dict(self.samples),
        }

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Table:
        """What `plain` wrote."""
        return cls(
            name=document["name"],
            title=document["title"],
            columns=tuple(document["columns"]),
            rows=tuple(tuple(row) for row in document["rows"]),
            note=document["note"],
            samples=document["samples"],
        )


def median(samples: Sequence[float]) -> float:
    """The median, to the digits that mean something."""
    return rounded(statistics.median(samples))


def quantile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least ``share`` of them do not exceed (nearest rank)."""
    ordered = sorted(samples)
    rank = max(1, -(-len(ordered) * round(share * 1000) // 1000))
    return rounded(ordered[rank - 1])


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def shown(cell: Cell) -> str:
    """A cell as text: three significant digits are all that a measurement on a computer with other work can promise."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def on_screen(table: Table) -> ScreenTable:
    """For a terminal."""
    screen = ScreenTable(title=table.title, caption=table.note or None, title_justify="left", caption_justify="left")
    for number, column in enumerate(table.columns):
        screen.add_column(column, justify="left" if number == 0 else "right", no_wrap=number == 0)
    for row in table.rows:
        screen.add_row(*(shown(cell) for cell in row))
    return screen


def markdown(machine: Mapping[str, Any], tables: Iterable[Table]) -> str:
    """For docs/benchmarks.md."""
    lines = ["| measured on | |", "|---|---|", *(f"| {key} | {value} |" for key, value in machine.items()), ""]
    for table in tables:
        lines += [f"### {table.title}", ""]
        lines += [_line(table.columns), "|---|" + "---:|" * (len(table.columns) - 1)]
        lines += [_line([shown(cell) for cell in row]) for row in table.rows]
        lines += ["", table.note, ""] if table.note else [""]
    return "\n".join(lines).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
