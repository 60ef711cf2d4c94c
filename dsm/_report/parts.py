"""Pieces of HTML and SVG that the sections of the page have in common."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Column(NamedTuple):
    """The head of a column; `words` holds text and is set flush left."""

    name: str
    words: bool = False
    says: str = ""


class Cell(NamedTuple):
    """What a cell shows, as HTML, and the number by which it sorts."""

    shown: str
    value: float | None = None


def text(words: str) -> str:
    """Escape a text, set what is in backticks as code, and keep numbers with their units.  Local."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(words))
    return re.sub(r"(?<=\d) (?=(?:%|s|ms|\N{MICRO SIGN}s|B|[KMGT]iB)(?:\W|$))", "&nbsp;", marked)


def attribute(words: str) -> str:
    """Escape a text for an attribute in quotes.  Local."""
    return html.escape(words.replace("`", ""), quote=True)


def section(name: str, title: str, *blocks: str) -> str:
    """Return a section with a heading that the navigation links to.  Local."""
    return f'<section id="{name}">\n<h2>{text(title)}</h2>\n' + "\n".join(blocks) + "\n</section>"


def paragraph(words: str, name: str = "") -> str:
    """Return a paragraph.  Local."""
    return f"<p{f' class={name}' if name else ''}>{text(words)}</p>"


def key(kinds: Iterable[tuple[str, str]]) -> str:
    """Return a legend of (CSS class, words).  Local."""
    items = "".join(f'<li class="{name}">{text(words)}</li>' for name, words in kinds)
    return f'<ul class="key">{items}</ul>'


def table(columns: Sequence[Column], rows: Iterable[tuple[str, Sequence[Cell]]], sorted_by: int = -1) -> str:
    """Return a table that sorts by a click; each row has an id, empty for none.  Local."""
    heads = "".join(
        f'<th scope="col"{_words(column)}{_title(column)}{_sorted(number == sorted_by)}>'
        f"<button>{text(column.name)}</button></th>"
        for number, column in enumerate(columns)
    )
    body = "\n".join(
        f"<tr{f' id={name}' if name else ''}>"
        + "".join(
            f"<td{_words(column)}{_value(cell)}>{cell.shown}</td>" for column, cell in zip(columns, cells, strict=True)
        )
        + "</tr>"
        for name, cells in rows
    )
    return (
        f'<div class="scroll"><table class="sortable wide">\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>'
        "</table></div>"
    )


def _words(column: Column) -> str:
    return ' class="words"' if column.words else ""


def _title(column: Column) -> str:
    return f' title="{attribute(column.says)}"' if column.says else ""


def _sorted(yes: bool) -> str:
    return ' aria-sort="descending"' if yes else ""


def _value(cell: Cell) -> str:
    return "" if cell.value is None else f' data-value="{cell.value:.9g}"'


def spark(values: Sequence[float], kind: str, says: str) -> str:
    """Return small bars, one for each rank, the largest as high as the line.  Local."""
    most = max(values, default=0)
    if most <= 0:
        return ""
    wide = 5 if len(values) <= 16 else 2 if len(values) <= 64 else 1
    gap = 1 if wide > 1 else 0
    bars = "".join(
        f"M{rank * (wide + gap)} 16v-{max(value / most * 16, 0.4):.1f}h{wide}V16z"
        for rank, value in enumerate(values)
        if value > 0
    )
    width = len(values) * (wide + gap)
    return (
        f'<svg class="spark {kind}" viewBox="0 0 {width} 16" width="{width}" height="16" role="img">'
        f'<title>{html.escape(says)}</title><path class="fill" d="{bars}"/></svg>'
    )


def stacked(parts: Iterable[tuple[str, float, str]], whole: float) -> str:
    """Return a bar of (CSS class, value, words).  Local."""
    pieces = "".join(
        f'<i class="{kind}" style="width:{value / whole * 100:.2f}%" title="{attribute(words)}"></i>'
        for kind, value, words in parts
        if value / whole > 0.0005
    )
    return f'<div class="bar">{pieces}</div>'


def matrix(pairs: Iterable[tuple[int, int, float]], size: int, kind: str, unit: str, down: str, across: str) -> str:
    """Return a square of counts from one rank or node (down) to another (across).  Local."""
    values = {(a, b): value for a, b, value in pairs if value}
    most = max(values.values(), default=0)
    cell = 26 if size <= 12 else max(3, 320 // size)
    left, top = 34, 20
    cells = "".join(
        f'<rect class="fill" x="{left + b * cell}" y="{top + a * cell}" width="{cell - 1}" height="{cell - 1}" '
        f'opacity="{0.15 + 0.85 * math.log1p(value) / math.log1p(most):.2f}"><title>{down} {a}, {across} {b}: '
        f"{value:,.0f} {unit}</title></rect>"
        for (a, b), value in sorted(values.items())
    )
    step = max(1, size // 8)
    labels = "".join(
        f'<text x="{left - 6}" y="{top + (i + 0.5) * cell + 4:.1f}" text-anchor="end">{i}</text>'
        f'<text x="{left + (i + 0.5) * cell:.1f}" y="{top - 6}" text-anchor="middle">{i}</text>'
        for i in range(0, size, step)
    )
    edge = size * cell
    return (
        f'<svg class="{kind}" width="{left + edge + 4}" height="{top + edge + 4}" role="img">'
        f'<rect class="axis" x="{left - 0.5}" y="{top - 0.5}" width="{edge}" height="{edge}"/>{cells}{labels}</svg>'
    )


def details(summary: str, inside: str) -> str:
    """Return what is folded away at first.  Local."""
    return f'<details class="more"><summary>{text(summary)}</summary>\n{inside}\n</details>'
