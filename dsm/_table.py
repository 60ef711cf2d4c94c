"""Tables for people: aligned text, and HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Sequence


class Table:
    """A title, a header and rows of texts; the first column is a name, the others are numbers.  Local.

    Parameters
    ----------
    title : str
        What the rows are.
    header : sequence of str
        Names of the columns.
    rows : sequence of sequence of str
        As many texts each.
    """

    def __init__(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.title, self.header, self.rows = title, header, rows

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [self._line(row, widths) for row in (self.header, *self.rows)]
        return "\n".join([self.title, *lines])

    @staticmethod
    def _line(row: Sequence[str], widths: Sequence[int]) -> str:
        first = row[0].ljust(widths[0])
        return "  ".join(["", first, *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))])

    def to_html(self) -> str:
        """Return the table as HTML, in the style of the page around it.  Local."""

        def cells(tag: str, row: Sequence[str]) -> str:
            sides = ("left", *["right"] * (len(row) - 1))
            texts = (
                f'<{tag} style="text-align:{side}">{html.escape(text)}</{tag}>'
                for text, side in zip(row, sides, strict=True)
            )
            return f"<tr>{''.join(texts)}</tr>"

        body = "".join(cells("td", row) for row in self.rows)
        caption = f"<caption>{html.escape(self.title)}</caption>"
        return f"<table>{caption}<thead>{cells('th', self.header)}</thead><tbody>{body}</tbody></table>"
