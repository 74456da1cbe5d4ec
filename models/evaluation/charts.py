"""Charts as SVG text, drawn by hand: colours come from the page's style sheet (light, dark, print), and the same
figures give the same bytes. Each chart says in its title and description what it shows; the numbers stand in a table
beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 440, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 44
Point = Sequence[float]


@dataclass(frozen=True)
class Line:
    """A line through points in 0…1 (or the chart's range); ``style`` is a class of the style sheet."""

    points: Sequence[Point]
    style: str = "line"


@dataclass(frozen=True)
class Mark:
    """A named point on a chart."""

    x: float
    y: float
    words: str


@dataclass(frozen=True)
class Row:
    """One line of an interval chart; ``low`` and ``high`` are ``None`` where there is no interval."""

    words: str
    value: float | None
    low: float | None = None
    high: float | None = None
    warned: bool = False


def line_chart(
    title: str,
    x: str,
    y: str,
    lines: Sequence[Line],
    marks: Sequence[Mark] = (),
    diagonal: bool = False,
    top: float = 1.0,
) -> str:
    """Lines over 0…1 on the x axis and 0…``top`` on the y axis."""
    body = [_axes(x, y, top)]
    if diagonal:
        body.append(_polyline([(0.0, 0.0), (1.0, 1.0)], "guide", top))
    body += [_polyline(line.points, line.style, top) for line in lines]
    for number, mark in enumerate(marks, start=1):
        a, b = _place(mark.x, mark.y / top)
        body.append(f'<circle class="mark" cx="{a}" cy="{b}" r="7"/>')
        body.append(f'<text class="on-mark" x="{a}" y="{_n(float(b) + 3.5)}">{number}</text>')
    described = "; ".join(f"{n}: {mark.words}" for n, mark in enumerate(marks, start=1))
    return _svg(title, described, WIDTH, HEIGHT, body)


def histogram(title: str, x: str, counts: Sequence[int], limit: float | None = None, words: str = "") -> str:
    """Counts in bins of equal width over 0…1; a dashed line at ``limit``, named by ``words``."""
    highest = max([*counts, 1])
    body = [_axes(x, "images", float(highest), whole=True)]
    for number, count in enumerate(counts):
        left, top = _place(number / len(counts), count / highest)
        right, bottom = _place((number + 1) / len(counts), 0.0)
        style = "bar low" if limit is not None and (number + 0.5) / len(counts) < limit else "bar"
        width, height = _n(float(right) - float(left) - 1.5), _n(float(bottom) - float(top))
        body.append(
            f'<rect class="{style}" x="{left}" y="{top}" width="{width}" height="{height}">'
            f"<title>{number / len(counts):.2f}–{(number + 1) / len(counts):.2f}: {count}</title></rect>"
        )
    if limit is not None:
        body.append(_polyline([(limit, 0.0), (limit, 1.0)], "guide", 1.0))
        a, b = _place(limit, 1.0)
        body.append(f'<text class="note" x="{_n(float(a) - 6)}" y="{_n(float(b) + 10)}" text-anchor="end">')
        body.append(f"{escape(words)}</text>")
    return _svg(title, "", WIDTH, HEIGHT, body)


def reliability(title: str, bins: Sequence[dict[str, Any]], x: str = "stated probability") -> str:
    """Observed share over stated probability; a dot per bin, its area after its number of images."""
    most = max([one["images"] for one in bins] + [1])
    body = [_axes(x, "observed share", 1.0), _polyline([(0.0, 0.0), (1.0, 1.0)], "guide", 1.0)]
    body.append(_polyline([(one["stated"], one["observed"]) for one in bins], "line thin", 1.0))
    for one in bins:
        a, b = _place(one["stated"], one["observed"])
        radius = _n(3.0 + 7.0 * (one["images"] / most) ** 0.5)
        words = f"{one['low']:g}–{one['high']:g}: {one['observed']:.2f} of {one['images']}"
        body.append(f'<circle class="dot" cx="{a}" cy="{b}" r="{radius}"><title>{words}</title></circle>')
    return _svg(title, "the diagonal is perfect calibration", WIDTH, HEIGHT, body)


def confusion(title: str, classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A confusion matrix: rows true, columns called; the darker a cell, the larger its share of the row."""
    cell, left, top = 50, 66, 46
    width, height = left + cell * len(classes) + 12, top + cell * len(classes) + 12
    body = [f'<text class="label" x="{left + cell * len(classes) / 2:g}" y="14" text-anchor="middle">called</text>']
    body.append(f'<text class="label" x="8" y="{top - 12}">true</text>')
    for k, name in enumerate(classes):
        middle = cell * k + cell / 2
        body.append(
            f'<text class="tick" x="{left + middle:g}" y="{top - 10}" text-anchor="middle">{escape(name)}</text>'
        )
        body.append(
            f'<text class="tick" x="{left - 8}" y="{top + middle + 4:g}" text-anchor="end">{escape(name)}</text>'
        )
    for r, row in enumerate(counts):
        total = max(1, sum(row))
        for c, count in enumerate(row):
            share = count / total
            x, y = left + cell * c, top + cell * r
            style = "cell right" if r == c else "cell wrong"
            body.append(
                f'<rect class="{style}" x="{x}" y="{y}" width="{cell - 2}" height="{cell - 2}" '
                f'fill-opacity="{share:.2f}"/><rect class="grid" x="{x}" y="{y}" width="{cell - 2}" '
                f'height="{cell - 2}"/>'
            )
            if count:
                ink = "in-cell strong" if share > 0.55 else "in-cell"
                body.append(f'<text class="{ink}" x="{x + cell / 2 - 1:g}" y="{y + 22}">{count}</text>')
                body.append(f'<text class="{ink} small" x="{x + cell / 2 - 1:g}" y="{y + 37}">{share:.0%}</text>')
    return _svg(title, "rows are the true classes, columns what was called", width, height, body)


def intervals(title: str, rows: Sequence[Row], low: float = 0.0, high: float = 1.0, at: float | None = None) -> str:
    """A dot and its interval per row, on one scale; a dashed line at ``at``. Rows that are warned of stand out."""
    left, step, top = 190, 22, 8
    width, height = 620, top + step * len(rows) + 34

    def across(value: float) -> float:
        return left + (width - left - 20) * (min(max(value, low), high) - low) / (high - low)

    bottom = top + step * len(rows)
    body = []
    for number in range(5):
        value = low + (high - low) * number / 4
        a = _n(across(value))
        body.append(f'<line class="grid" x1="{a}" y1="{top}" x2="{a}" y2="{bottom}"/>')
        body.append(f'<text class="tick" x="{a}" y="{bottom + 18}" text-anchor="middle">{value:.2f}</text>')
    if at is not None:
        a = _n(across(at))
        body.append(f'<line class="guide" x1="{a}" y1="{top}" x2="{a}" y2="{bottom}"/>')
    for number, row in enumerate(rows):
        y = top + step * number + step / 2
        body.append(f'<text class="tick" x="{left - 10}" y="{_n(y + 4)}" text-anchor="end">{escape(row.words)}</text>')
        if row.value is None:
            body.append(f'<text class="note" x="{left + 4}" y="{_n(y + 4)}">no figure</text>')
            continue
        style = " warned" if row.warned else ""
        if row.low is not None and row.high is not None:
            a, b = _n(across(row.low)), _n(across(row.high))
            body.append(f'<line class="interval{style}" x1="{a}" y1="{_n(y)}" x2="{b}" y2="{_n(y)}"/>')
        body.append(f'<circle class="dot{style}" cx="{_n(across(row.value))}" cy="{_n(y)}" r="4.5"/>')
    return _svg(title, "dots are the figures, lines their 95 % intervals", width, height, body)


def _axes(x: str, y: str, top: float, whole: bool = False) -> str:
    parts = []
    for number in range(6):
        share = number / 5
        a, low = _place(share, 0.0)
        left, b = _place(0.0, share)
        right, high = _place(1.0, 1.0)
        value = share * top
        label = f"{value:.0f}" if whole else f"{value:.2g}"
        parts.append(f'<line class="grid" x1="{a}" y1="{low}" x2="{a}" y2="{high}"/>')
        parts.append(f'<line class="grid" x1="{left}" y1="{b}" x2="{right}" y2="{b}"/>')
        parts.append(f'<text class="tick" x="{a}" y="{_n(float(low) + 16)}" text-anchor="middle">{share:.1f}</text>')
        parts.append(
            f'<text class="tick" x="{_n(float(left) - 7)}" y="{_n(float(b) + 4)}" text-anchor="end">{label}</text>'
        )
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(f'<text class="label" x="{(_LEFT + WIDTH - _RIGHT) / 2:g}" y="{HEIGHT - 6}" text-anchor="middle">')
    parts.append(f"{escape(x)}</text>")
    parts.append(
        f'<text class="label" x="12" y="{middle:g}" text-anchor="middle" transform="rotate(-90 12 {middle:g})">'
    )
    parts.append(f"{escape(y)}</text>")
    return "".join(parts)


def _polyline(points: Sequence[Point], style: str, top: float) -> str:
    placed = " ".join(",".join(_place(x, y / top)) for x, y in points)
    return f'<polyline class="{style}" points="{placed}"/>'


def _place(x: float, y: float) -> tuple[str, str]:
    """A point of the unit square on the drawing."""
    across = _LEFT + (WIDTH - _LEFT - _RIGHT) * min(max(x, 0.0), 1.0)
    down = HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * min(max(y, 0.0), 1.0)
    return _n(across), _n(down)


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _svg(title: str, described: str, width: float, height: float, body: Sequence[str]) -> str:
    more = f"<desc>{escape(described)}</desc>" if described else ""
    return (
        f'<svg class="chart" role="img" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{more}{"".join(body)}</svg>'
    )
