"""The report of the suite: a page with tables and pictures, and the same tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import apps as applications
from benchmarks.app import App
from benchmarks.report import figures, page, sections
from benchmarks.report import markdown as _markdown
from benchmarks.report.data import Measured
from benchmarks.report.document import Document


def write(records: Sequence[dict[str, Any]], folder: Path, apps: Mapping[str, App] | None = None) -> Path:
    """Write ``report.html``, which is complete by itself, and its pictures as PNG beside it.

    Parameters
    ----------
    records : sequence of dict
        As `results.load` returns them; whatever they lack is left out, and the page says so.
    folder : Path
        Is made if need be.
    apps : mapping, optional
        Where reaches and published figures come from, if not from the suite's applications.

    Returns
    -------
    Path
        Of the page.
    """
    document = _document(records, apps)
    folder.mkdir(parents=True, exist_ok=True)
    images = {}
    for picture in document.pictures():
        svg, png, width = figures.render(picture.draw)
        images[picture.name] = (svg, width)
        (folder / f"{picture.name}.png").write_bytes(png)
    file = folder / "report.html"
    file.write_text(page.write(document, images), encoding="utf-8")
    return file


def markdown(records: Sequence[dict[str, Any]], pictures: str = "", apps: Mapping[str, App] | None = None) -> str:
    """Return the report as Markdown, which refers to the PNGs of `write` in the folder `pictures`, as it is given."""
    return _markdown.write(_document(records, apps), pictures)


def _document(records: Sequence[dict[str, Any]], apps: Mapping[str, App] | None) -> Document:
    return sections.build(Measured(records, applications.load() if apps is None else apps))
