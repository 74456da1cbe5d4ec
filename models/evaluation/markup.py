"""Pieces of the page: sections, tables, tiles, and numbers as people read them. Everything is escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

DASH = "–"


class Safe(str):
    """Markup that is already escaped."""

    __slots__ = ()


def text(value: object) -> Safe:
    """``value`` as markup: escaped, unless it is markup already."""
    return value if isinstance(value, Safe) else Safe(escape(str(value)))


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return DASH if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage, or a dash."""
    return DASH if value is None else f"{100.0 * value:.{digits}f}\u00a0%"


def measured(figure: Mapping[str, Any] | None, digits: int = 3) -> Safe:
    """A figure with its interval: ``0.912 (0.90–0.93)``."""
    if figure is None or figure.get("value") is None:
        return Safe(DASH)
    interval = figure.get("interval")
    if not interval:
        return text(number(figure["value"], digits))
    low, high = interval
    return Safe(
        f'{number(figure["value"], digits)} <span class="interval-text">({number(low, digits)}–{number(high, digits)})'
        "</span>"
    )


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[object]], words: Sequence[int] = ()) -> Safe:
    """A table; the first cell of a row is its heading, the columns in ``words`` hold text and are set left."""
    head = "".join(f'<th scope="col"{_style(column in words)}>{text(cell)}</th>' for column, cell in enumerate(header))
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{text(cell)}</th>' if not column else f"<td{_style(column in words)}>{text(cell)}</td>"
            for column, cell in enumerate(row)
        )
        + "</tr>\n"
        for row in rows
    )
    return Safe(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def tiles(figures: Sequence[tuple[str, object, object]]) -> Safe:
    """Main figures as tiles: name, value, and what is said in small letters below."""
    inner = "".join(
        f'<div class="tile"><dt>{text(name)}</dt><dd>{text(value)}<small>{text(small)}</small></dd></div>'
        for name, value, small in figures
    )
    return Safe(f'<dl class="tiles">{inner}</dl>')


def figure(chart: str, caption: str) -> Safe:
    """A chart with its caption."""
    return Safe(f"<figure>{chart}<figcaption>{text(caption)}</figcaption></figure>")


def side_by_side(*parts: str) -> Safe:
    """Parts beside each other where there is room."""
    return Safe('<div class="pair">' + "".join(f"<div>{part}</div>" for part in parts) + "</div>")


def folded(summary: str, content: str) -> Safe:
    """Content that opens on demand."""
    return Safe(f"<details><summary>{text(summary)}</summary>{content}</details>")


def paragraph(words: object) -> Safe:
    """A paragraph."""
    return Safe(f"<p>{text(words)}</p>")


def bullets(lines: Sequence[object]) -> Safe:
    """A list."""
    return Safe("<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>")


def warned(words: object) -> Safe:
    """Words that must not be overlooked."""
    return Safe(f'<span class="warned-text">{text(words)}</span>')


def code(words: object) -> Safe:
    """A name or digest in fixed width."""
    return Safe(f"<code>{text(words)}</code>")


def joined(*parts: str) -> Safe:
    """Parts one after another."""
    return Safe("\n".join(parts))


def _style(worded: bool) -> str:
    return ' class="text"' if worded else ""
