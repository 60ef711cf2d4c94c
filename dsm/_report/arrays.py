"""The section of the page about arrays: for each its numbers, its strips and the pages that several ranks wrote."""

from __future__ import annotations

from collections.abc import Sequence

from dsm._report import parts, words
from dsm._report.parts import Cell, Column
from dsm._report.profile import Json, Profile, dims, place, spread

OPEN = 6  # arrays that are unfolded at first
ROWS_MAX = 64  # of a strip; more ranks share rows
STRIPS_CHARACTERS_MAX = 5_000_000  # of all strips in the page
WORST_MAX = 8

PANELS = (
    ("written", "written, by rank", "phases (the largest count of a page here)"),
    ("read", "read faults", "(the largest count of a page here)"),
    ("fetched", "fetched from other nodes", "times (the largest count of a page here)"),
)


def section(profile: Profile) -> tuple[str, dict[str, Json]]:
    """Return the section, and the strips that the script draws, by number.  Local."""
    # The arrays that cost most stand first.
    order = sorted(profile.arrays, key=lambda array: (-max(array["by_rank"]["wait_s"], default=0.0), -array["bytes"]))
    strips: dict[str, Json] = {}
    blocks = []
    room = STRIPS_CHARACTERS_MAX
    for number, array in enumerate(order):
        # A run takes about six characters.
        needed = 6 * sum(len(strip[what]) for strip in array["strips"] for what, *_ in PANELS)
        if array["strips"] and needed < room:
            strips[str(array["id"])] = _strip(profile, array)
            room -= needed
        blocks.append(_array(profile, array, str(array["id"]) in strips, number < OPEN))
    intro = [
        parts.paragraph(
            "Each strip has the array's index range across and the ranks down. The darker, the more often. Arrays that "
            "cost most stand first."
        )
    ]
    if profile.run["one_node"]:
        intro.append(
            parts.paragraph(
                "The whole job was one node: its ranks share memory and no page is watched, so a strip shows only the "
                "first touch of each page. `python -m dsm run --node rank --profile` shows what ranks share."
            )
        )
    if not order:
        intro = [parts.paragraph("The program made no shared array.")]
    if any(array["contested"]["pages"] for array in order):
        kinds = [("false", "false sharing: no byte had two writers"), ("true", "some byte had two writers")]
        intro.append(parts.key(kinds))
    if profile.numbers["arrays_left_out"]:
        left = words.counted(profile.numbers["arrays_left_out"], "further array")
        intro.append(parts.paragraph(f"{left}, smaller or fetched less, are not in the profile.", "note"))
    return parts.section("arrays", "Arrays", *intro, *blocks), strips


def _array(profile: Profile, array: Json, drawn: bool, unfolded: bool) -> str:
    rows = array["by_rank"]
    wait_s, fetches = max(rows["wait_s"], default=0.0), sum(rows["fetches"])
    label = parts.attribute(_says(array))
    canvas = (
        f'<div><canvas data-strip="{array["id"]}" role="img" aria-label="{label}"></canvas></div>'
        if drawn
        else parts.paragraph("No page of it was written, read or fetched while it was watched.", "note")
        if not array["strips"]
        else parts.paragraph("Its strips have no room in this page; profile.json has them.", "note")
    )
    head = (
        f"<h3><code>{parts.text(array['name'])}</code></h3><span>{parts.text(dims(array))} {parts.text(array['dtype'])}"
        f"{', order F' if array['order'] == 'F' else ''}</span><span class=soft>{words.size(array['bytes'])} in "
        f"{words.counted(array['pages'], 'page')} of {words.size(array['page_bytes'])}</span>"
        f"<span>{f'waited {words.seconds(wait_s)}, ' if wait_s else ''}{words.count(fetches)} pages fetched</span>"
    )
    opened = " open" if unfolded else ""
    return (
        f'<details class="array" id="array-{array["id"]}"{opened}>\n<summary>{head}</summary>\n'
        f"{_facts(profile, array)}\n{canvas}\n{_worst(array)}\n</details>"
    )


def _says(array: Json) -> str:
    writers = [rank for rank, pages in enumerate(array["pages_written"]) if pages]
    readers = [rank for rank, pages in enumerate(array["pages_read"]) if pages]
    written = f"written by {words.ranks(writers)}" if writers else "never written"
    return f"{array['name']}: {written}, " + (f"read by {words.ranks(readers)}" if readers else "read by nobody")


def _facts(profile: Profile, array: Json) -> str:
    rows, contested = array["by_rank"], array["contested"]
    site = profile.site(array["allocated_at"])
    made = parts.text(place(site)) if site is None else f'<a href="#site-{site["id"]}">{parts.text(place(site))}</a>'
    facts = [
        ("made at", made),
        ("life", "alive at the end" if array["alive"] else f"freed after {words.seconds(array['freed_s'] or 0.0)}"),
        ("read faults", words.count(sum(rows["faults_read"]))),
        ("write faults", words.count(sum(rows["faults_write"]))),
        ("whole pages", words.count(sum(rows["pages_received"]))),
        ("diffs", words.count(sum(rows["diffs_received"]))),
        ("received", words.size(sum(rows["bytes_received"]))),
        ("shared in a phase", words.counted(contested["pages"], "page")),
    ]
    held = [value for value in array["memory_bytes"] if value is not None]
    if held:
        each = words.size(held[0]) if len(set(held)) == 1 else f"{words.size(min(held))} to {words.size(max(held))}"
        facts.append(("memory on a node", each))
    owned = _owned(array)
    if owned:
        facts.append(("owners at the end", parts.text(owned)))
    return '<p class="facts">' + "".join(f"<span>{name} <b>{value}</b></span>" for name, value in facts) + "</p>"


def _owned(array: Json) -> str:
    pages: dict[int, int] = {}
    for _, count, rank in array["owners"]:
        pages[rank] = pages.get(rank, 0) + count
    most = sorted(pages.items(), key=lambda item: -item[1])
    shown = [f"rank {rank} {words.share(count / array['pages'])}" for rank, count in most[:4]]
    return ", ".join(shown) + (f" and {len(most) - 4} more" if len(most) > 4 else "")


def _worst(array: Json) -> str:
    worst = array["contested"]["worst"]
    if not worst:
        return ""
    columns = [
        Column("page"),
        Column("elements", words=True),
        Column("written by", words=True),
        Column("phases"),
        Column("bytes of diffs"),
        Column("bytes that two wrote"),
        Column("sharing", words=True),
    ]
    rows = [
        (
            "",
            [
                Cell(str(one["page"]), one["page"]),
                Cell(f"<code>{_elements(array, one)}</code>"),
                Cell(words.ranks(one["ranks"])),
                Cell(words.count(one["phases"]), one["phases"]),
                Cell(words.size(one["diff_bytes"]), one["diff_bytes"]),
                Cell(words.size(one["overlap_bytes"] or 0), one["overlap_bytes"] or 0),
                Cell(parts.text(one["kind"])),
            ],
        )
        for one in worst[:WORST_MAX]
    ]
    pages = words.counted(array["contested"]["pages"], "page")
    return parts.details(f"{pages} that two ranks wrote in one phase: the worst", parts.table(columns, rows))


def _elements(array: Json, one: Json) -> str:
    first, last = (", ".join(map(str, index)) for index in (one["first"], one["last"]))
    return parts.text(f"{array['name']}[{first}] to [{last}]")


def _strip(profile: Profile, array: Json) -> Json:
    """Return the strips as the script draws them."""
    few = profile.size <= 16
    ranks = list(range(profile.size)) if few else sorted(strip["rank"] for strip in array["strips"])
    group = -(-len(ranks) // ROWS_MAX)
    groups = [ranks[at : at + group] for at in range(0, len(ranks), group)]
    bins = array["bins"]
    panels = []
    for what, title, unit in PANELS:
        runs = {strip["rank"]: strip[what] for strip in array["strips"]}
        if any(runs.values()):
            rows = [_packed([runs.get(rank, []) for rank in members], bins) for members in groups]
            panels.append({"kind": what, "title": title, "unit": unit, "rows": rows})
    first, length, axis, before = _axis(array)
    return {
        "name": array["name"] if array["name"].isidentifier() else "",
        "before": before,
        "ranks": [f"rank {m[0]}" if len(m) == 1 else f"{m[0]} to {m[-1]}" for m in groups],
        "bins": bins,
        "first": first,
        "length": length,
        "axis": axis,
        "panels": panels,
        "shared": _shared(array),
        "sharedTitle": _shared_title(array),
    }


def _axis(array: Json) -> tuple[int, int, str, str]:
    """Return first index, length and name of the axis across, and what stands before it in an index."""
    shape = array["shape"]
    if array["bin_axis"] == "rows" and shape:
        return 0, shape[0], " (rows)" if len(shape) > 1 else "", ""
    if array["order"] == "F" and len(shape) > 1:
        return 0, shape[-1], " (last axis)", "..., "
    return 0, max(1, array["bytes"] // array["itemsize"]), " (elements)", ""


def _shared(array: Json) -> list[tuple[float, float, str]]:
    """Return the worst shared pages as (first bin, last bin, kind)."""
    pages_a_bin = array["bin_bytes"] / array["page_bytes"]
    return [
        (round(one["page"] / pages_a_bin, 2), round((one["page"] + 1) / pages_a_bin, 2), one["kind"])
        for one in array["contested"]["worst"]
        if one["kind"] in ("false", "true")
    ]


def _shared_title(array: Json) -> str:
    pages, worst = array["contested"]["pages"], len(array["contested"]["worst"])
    return "pages that two ranks wrote in one phase" + (f", the worst {worst} of {pages:,}" if worst < pages else "")


def _packed(members: Sequence[Sequence[Sequence[int]]], bins: int) -> str:
    """Return the largest value for each bin as words, "value" or "valuexbins"."""
    if len(members) == 1:
        runs = members[0]
    else:
        values = [max(column) for column in zip(*(spread(runs, bins) for runs in members), strict=True)]
        runs = [[bin_, 1, value] for bin_, value in enumerate(values) if value]
    found = []
    end = 0
    for first, count, value in [*runs, (bins, 0, 0)]:
        if first > end:
            found.append(f"0x{first - end}")
        if count:
            found.append(f"{value}x{count}" if count > 1 else str(value))
        end = first + count
    return " ".join(found)
