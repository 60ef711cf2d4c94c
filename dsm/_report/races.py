"""The section of the page about data races, of a races.json beside the profile."""

from __future__ import annotations

from dsm._report import parts, words
from dsm._report.parts import Cell, Column
from dsm._report.profile import Json

ROWS_MAX = 200


def section(found: Json) -> str:
    """Return the section.  Local."""
    races = found["races"]
    blocks = []
    if not found["complete"]:
        blocks.append(parts.paragraph("The search was cut short: there may be more races."))
    if not races:
        blocks.append(parts.paragraph("The search found no data race in this run."))
        return parts.section("races", "Data races", *blocks)
    columns = [
        Column("race", words=True),
        Column("elements", words=True),
        Column("one side", words=True),
        Column("the other side", words=True),
        Column("pairs of ranks"),
        Column("of the pages", says="how much of the pages that hold the elements was written"),
    ]
    certain = sum(race["certain"] for race in races)
    blocks += [
        parts.paragraph(
            f"{certain} certain, {len(races) - certain} possible. Two ranks accessed the same bytes, one of them "
            "wrote, and no lock or barrier orders them. A read is known by its page only, so such a race is possible."
        ),
        parts.table(columns, [("", _cells(race)) for race in races[:ROWS_MAX]]),
    ]
    if len(races) > ROWS_MAX:
        blocks.append(parts.paragraph(f"races.json has {len(races) - ROWS_MAX} more.", "note"))
    return parts.section("races", "Data races", *blocks)


def _cells(race: Json) -> list[Cell]:
    kind = race["kind"] if race["certain"] else f"possible {race['kind']}"
    sides = [
        Cell(
            f"rank {side['rank']} {parts.text(side['access'])}<br><span class=soft>between {parts.text(side['began'])}"
            f"<br>and {parts.text(side['ended'])}</span>"
        )
        for side in race["sides"]
    ]
    return [
        Cell(kind),
        Cell(f"<code>{parts.text(race['where'])}</code><br><span class=soft>{race['elements']:,} elements</span>"),
        *sides,
        Cell(words.count(len(race["pairs"])), len(race["pairs"])),
        Cell(words.share(race["share"]), race["share"]),
    ]
