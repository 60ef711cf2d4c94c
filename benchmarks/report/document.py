"""What a report is made of, apart from how it is written: sections of paragraphs, tables, lists and pictures.

Texts are plain; what stands in backticks is code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matplotlib.figure import Figure


class Text(NamedTuple):
    """A paragraph."""

    words: str


class Column(NamedTuple):
    """Head of a column: its name, what it has in common with its neighbours, and whether it holds words."""

    name: str
    group: str = ""
    words: bool = False


class Table(NamedTuple):
    """A table.  The first cell of a row is its head."""

    caption: str
    columns: list[Column]
    rows: list[list[str]]


class Items(NamedTuple):
    """A list of things with what is to be said of each."""

    rows: list[tuple[str, str]]


class Picture(NamedTuple):
    """A figure: name of its file, what it is, what it shows (from the data), and how it is drawn."""

    name: str
    title: str
    says: str
    draw: Callable[[], Figure]


Block = Text | Table | Items | Picture


class Section(NamedTuple):
    """A part with a title."""

    title: str
    blocks: list[Block]


class Document(NamedTuple):
    """A whole report: its title, the one sentence that matters, and its sections."""

    title: str
    lead: str
    sections: list[Section]

    def pictures(self) -> list[Picture]:
        """Return all pictures in their order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]
