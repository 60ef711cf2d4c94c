"""Writes a report as Markdown, for docs/."""

from __future__ import annotations

from benchmarks.report.document import Block, Column, Document, Items, Picture, Table, Text


def write(document: Document, pictures: str) -> str:
    """Return the text; pictures are referred to in the folder `pictures`, relative to where the text will be."""
    parts = [f"# {_text(document.title)}", _text(document.lead)]
    for section in document.sections:
        parts.append(f"## {_text(section.title)}")
        parts += [_block(block, pictures) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, pictures: str) -> str:
    match block:
        case Text():
            return _text(block.words)
        case Table():
            return _table(block)
        case Items():
            return "\n".join(f"- **{_text(name)}**: {_text(told)}" for name, told in block.rows)
        case Picture():
            folder = f"{pictures.rstrip('/')}/" if pictures else ""
            return f"![{_text(block.title)}]({folder}{block.name}.png)\n\n*{_text(block.title)}.* {_text(block.says)}"


def _table(table: Table) -> str:
    heads = [_head(column) for column in table.columns]
    rule = ["---" if column.words else "--:" for column in table.columns]
    lines = [f"**{_text(table.caption)}**", ""] if table.caption else []
    return "\n".join([*lines, *(f"| {' | '.join(map(_text, row))} |" for row in [heads, rule, *table.rows])])


def _head(column: Column) -> str:
    return f"{column.group}: {column.name}" if column.group else column.name


def _text(words: str) -> str:
    """Keep what the text says from being markup; backticks are."""
    return (
        words.replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*")
    )
