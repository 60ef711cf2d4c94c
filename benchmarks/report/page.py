"""Writes a report as one HTML file that needs nothing else: no script, no style sheet, no image from elsewhere."""

from __future__ import annotations

import base64
import html
import itertools
import re
from collections.abc import Mapping
from string import Template

from benchmarks.report.document import Block, Column, Document, Items, Picture, Table, Text

STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 1120px; color: #222; background: #fff;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 3.2rem 0 .8rem; padding-top: .9rem; border-top: 1px solid #ddd; }
p, ul, dl { max-width: 46rem; }
p { margin: .7rem 0; }
.lead { font-size: 1.2rem; line-height: 1.5; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 1.2rem 0 0; padding: 0; list-style: none;
  max-width: none; font-size: .92rem; }
a { color: #005a8f; }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: #f3f3f3; padding: .05em .3em;
  border-radius: 3px; }
.scroll { overflow-x: auto; margin: 1.2rem 0 1.8rem; }
table { border-collapse: collapse; font-size: .82rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
caption { text-align: left; white-space: nowrap; font-weight: 600; font-size: .95rem; padding: 0 0 .5rem; }
th, td { padding: .32rem .5rem; text-align: right; vertical-align: baseline; white-space: nowrap; }
th { font-weight: 500; }
thead th { color: #555; border-bottom: 1px solid #999; vertical-align: bottom; }
thead tr:first-child:not(:last-child) th { border-bottom-color: #ccc; }
thead th[colspan] { text-align: center; }
tbody tr { border-bottom: 1px solid #ececec; }
.words, tbody th { text-align: left; }
.start { padding-left: 1.1rem; }
.long { white-space: normal; min-width: 7rem; }
.missed { color: #b04a00; font-weight: 600; }
.facts th { color: #555; padding-left: 0; vertical-align: top; }
.facts td { white-space: normal; }
figure { margin: 1.6rem 0 2.4rem; }
figure .scroll { margin: 0; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { max-width: 46rem; margin-top: .7rem; }
dt { font-weight: 600; margin-top: 1rem; }
dd { margin: .1rem 0 0; }
@media (max-width: 700px) {
  body { padding: 1.4rem 1rem 3rem; }
  h1 { font-size: 1.6rem; }
  figure img.wide { max-width: none; width: 680px; }
  .words.name { position: sticky; left: 0; background: #fff; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  h2 { margin-top: 1.6rem; break-after: avoid; }
  figure, tr, dt, dd { break-inside: avoid; }
  dt { break-after: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: .15rem .22rem; }
  .start { padding-left: .5rem; }
}
"""

PAGE = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="lead">$lead</p>
<nav aria-label="Sections"><ul>$contents</ul></nav>
</header>
<main>
$sections
</main>
</body>
</html>
"""
)


def write(document: Document, images: Mapping[str, tuple[bytes, int]]) -> str:
    """Return the page; `images` has the SVG of each picture by its name, and how many pixels wide it is meant to be."""
    sections = "\n".join(
        f'<section id="s{number}">\n<h2>{_text(section.title)}</h2>\n'
        + "\n".join(_block(block, images) for block in section.blocks)
        + "\n</section>"
        for number, section in enumerate(document.sections)
    )
    links = (
        f'<li><a href="#s{number}">{_text(section.title)}</a></li>' for number, section in enumerate(document.sections)
    )
    return PAGE.substitute(
        title=_text(document.title),
        lead=_text(document.lead),
        style=STYLE,
        contents="".join(links),
        sections=sections,
    )


def _block(block: Block, images: Mapping[str, tuple[bytes, int]]) -> str:
    match block:
        case Text():
            return f"<p>{_text(block.words)}</p>"
        case Table():
            return _table(block) if block.caption else _facts(block)
        case Items():
            rows = (f"<dt>{_text(name)}</dt><dd>{_text(told)}</dd>\n" for name, told in block.rows)
            return f"<dl>\n{''.join(rows)}</dl>"
        case Picture():
            return _figure(block, *images[block.name])


def _figure(picture: Picture, svg: bytes, width: int) -> str:
    data = base64.b64encode(svg).decode()
    alt = html.escape(f"{picture.title}. {picture.says}".replace("`", ""))
    wide = ' class="wide"' if width > 680 else ""
    return (
        f'<figure>\n<div class="scroll"><img{wide} width="{width}" src="data:image/svg+xml;base64,{data}" '
        f'alt="{alt}"></div>\n<figcaption><strong>{_text(picture.title)}.</strong> {_text(picture.says)}'
        "</figcaption>\n</figure>"
    )


def _facts(table: Table) -> str:
    """Write pairs of a name and what it is, without a head."""
    rows = "\n".join(
        f'<tr><th scope="row">{_text(name)}</th><td class="words">{_text(what)}</td></tr>' for name, what in table.rows
    )
    return f'<div class="scroll"><table class="facts"><tbody>\n{rows}\n</tbody></table></div>'


def _table(table: Table) -> str:
    starts = _starts(table.columns)
    heads = _heads(table.columns, starts)
    body = []
    for row in table.rows:
        cells = [f'<th scope="row" class="words name">{_text(row[0])}</th>']
        for column, start, cell in zip(table.columns[1:], starts[1:], row[1:], strict=True):
            names = ["words"] * column.words + ["start"] * start
            names += ["missed"] * cell.startswith("missed") + ["long"] * (len(cell) > 16)
            cells.append(f"<td{_classes(names)}>{_text(cell)}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>\n")
    return (
        f'<div class="scroll"><table>\n<caption>{_text(table.caption)}</caption>\n<thead>\n{heads}\n</thead>\n'
        f"<tbody>\n{''.join(body)}</tbody></table></div>"
    )


def _starts(columns: list[Column]) -> list[bool]:
    """Tell which columns begin a group, and get a gap before them."""
    return [bool(c.group) and (not i or columns[i - 1].group != c.group) for i, c in enumerate(columns)]


def _heads(columns: list[Column], starts: list[bool]) -> str:
    """Write one row of heads, or two where columns have groups."""
    if not any(column.group for column in columns):
        return f"<tr>{''.join(_head(column, False) for column in columns)}</tr>"
    upper, lower = [], []
    for group, members in itertools.groupby(zip(columns, starts, strict=True), key=lambda pair: pair[0].group):
        pairs = list(members)
        if group:
            upper.append(f'<th scope="colgroup" colspan="{len(pairs)}" class="start">{_text(group)}</th>')
            lower += [_head(column, start) for column, start in pairs]
        else:
            upper += [_head(column, start, ' rowspan="2"') for column, start in pairs]
    return f"<tr>{''.join(upper)}</tr>\n<tr>{''.join(lower)}</tr>"


def _head(column: Column, start: bool, more: str = "") -> str:
    return f'<th scope="col"{more}{_classes(["words"] * column.words + ["start"] * start)}>{_text(column.name)}</th>'


def _classes(names: list[str]) -> str:
    return f' class="{" ".join(names)}"' if names else ""


def _text(words: str) -> str:
    """Escape a text, and set what is in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(words))
