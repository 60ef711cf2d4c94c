"""The sections of the page about places of the program: synchronisation calls, sampled lines, locks."""

from __future__ import annotations

import os

from dsm._report import parts, words
from dsm._report.parts import Cell, Column
from dsm._report.profile import Json, Profile, place

ROWS_MAX = 300
SQUARES_MAX = 6


def sites(profile: Profile) -> str:
    """Return the section about synchronisation calls.  Local."""
    columns = [
        Column("where", words=True),
        Column("call", words=True),
        Column("calls", says="over all ranks"),
        Column("computed before", says="longest of a rank, without page faults; the bars are the ranks"),
        Column("data before", says="waits in page faults, longest of a rank"),
        Column("waited", says="in the call itself, longest of a rank; the bars are the ranks"),
        Column("imbalance", says="of the wait: until the last rank arrived"),
        Column("latency", says="of the wait: after the last rank had arrived"),
        Column("faults"),
        Column("pages", says="brought up to date in the phases before"),
        Column("received"),
        Column("arrays", words=True, says="that the phases before faulted on, with the faults"),
    ]
    worst = sorted(profile.sites, key=lambda site: -_weight(site))
    rows = [(f"site-{site['id']}", _site_cells(profile, site)) for site in worst[:ROWS_MAX]]
    left = len(worst) - len(rows)
    return parts.section(
        "sites",
        "Synchronisation calls",
        parts.paragraph(
            "A phase lies between two calls of a rank and belongs to the call that ends it. The last rank to arrive at "
            "a barrier waits only its latency; the others wait for it (imbalance)."
        ),
        parts.table(columns, rows, sorted_by=5),
        parts.paragraph(f"{words.counted(left, 'further place')} with less time in profile.json.", "note")
        if left
        else "",
    )


def _weight(site: Json) -> float:
    rows = site["by_rank"]
    return max(rows["waited_s"], default=0.0) + 1e-6 * max(rows["computed_s"], default=0.0)


def _site_cells(profile: Profile, site: Json) -> list[Cell]:
    rows = site["by_rank"]
    source = f"<br><code>{parts.text(site['source'])}</code>" if site["source"] else ""
    function = (
        f" <span class=soft>in {parts.text(site['function'])}</span>" if site["function"] and site["line"] else ""
    )
    kind = site["kind"] + (f" <code>{parts.text(site['object'])}</code>" if site["object"] else "")
    if site["empty"]:
        kind += f"<br><span class=soft>{words.count(site['empty'])} with nothing before</span>"
    arrays = " ".join(
        f'<a href="#array-{number}"><code>{parts.text(_name(profile, number))}</code></a>&nbsp;{words.count(faults)}'
        for number, faults in site["arrays"][:4]
    )
    return [
        Cell(f"<span class=place>{parts.text(place(site))}</span>{function}{source}"),
        Cell(kind),
        _total(rows["calls"]),
        _longest(rows["computed_s"], "compute"),
        _longest(rows["data_s"], ""),
        _longest(rows["waited_s"], {"barrier": "barrier", "acquire": "lock"}.get(site["kind"], "event")),
        _longest(rows["imbalance_s"], ""),
        _longest(rows["latency_s"], ""),
        _total(rows["faults"]),
        _total(rows["pages"]),
        Cell(words.size(sum(rows["bytes"])), sum(rows["bytes"])),
        Cell(arrays),
    ]


def _name(profile: Profile, number: int) -> str:
    return next((str(array["name"]) for array in profile.arrays if array["id"] == number), f"array {number}")


def _total(values: list[int]) -> Cell:
    return Cell(words.count(sum(values)), sum(values))


def _longest(values: list[float], kind: str) -> Cell:
    most = max(values, default=0.0)
    if most <= 0:
        return Cell("", 0.0)
    bars = ""
    if kind and len(values) > 1:
        said = ", ".join(f"rank {rank}: {words.seconds(value)}" for rank, value in enumerate(values))
        bars = parts.spark(values, kind, said) + " "
    return Cell(bars + words.seconds(most), most)


def lines(profile: Profile) -> str:
    """Return the section about lines by sampled time; empty without samples.  Local."""
    if not profile.lines:
        return ""
    columns = [Column("where", words=True), Column("sampled", says="longest of a rank"), Column("share of the run")]
    rows = []
    for line in profile.lines[:30]:
        where = f"{os.path.basename(line['file'])}:{line['line']}"
        function = f" <span class=soft>in {parts.text(line['function'])}</span>" if line["function"] else ""
        shown = f"<span class=place>{parts.text(where)}</span>{function}<br><code>{parts.text(line['source'])}</code>"
        most = max(line["by_rank"])
        part = Cell(words.share(most / profile.seconds), most / profile.seconds)
        rows.append(("", [Cell(shown), _longest(line["by_rank"], "compute"), part]))
    return parts.section(
        "lines",
        "Lines of the program",
        parts.paragraph("Time of the main threads by line, as sampled now and then; waits are in it."),
        parts.table(columns, rows, sorted_by=1),
    )


def locks(profile: Profile) -> str:
    """Return the section about locks.  Local."""
    if not profile.locks:
        return parts.section("locks", "Locks", parts.paragraph("The program took no lock."))
    columns = [
        Column("lock", words=True),
        Column("acquires"),
        Column("without a message", says="the lock was last used on this node"),
        Column("hand-overs"),
        Column("waited", says="longest of a rank; the bars are the ranks"),
        Column("held", says="longest of a rank"),
        Column("taken at", words=True),
    ]
    worst = sorted(profile.locks, key=lambda lock: -max(lock["by_rank"]["waited_s"], default=0.0))
    rows = [(f"lock-{lock['id']}", _lock_cells(profile, lock)) for lock in worst[:ROWS_MAX]]
    squares = "".join(
        f"<figure>{_square(profile, lock)}<figcaption><code>{parts.text(lock['name'])}</code>: hand-overs from a rank "
        "(down) to the next (across).</figcaption></figure>"
        for lock in worst[:SQUARES_MAX]
        if lock["hand_overs"]
    )
    return parts.section(
        "locks", "Locks", parts.table(columns, rows, sorted_by=4), f'<div class="lockgrid">{squares}</div>'
    )


def _square(profile: Profile, lock: Json) -> str:
    pairs = [(one[0], one[1], one[2]) for one in lock["hand_overs"]]
    return parts.matrix(pairs, profile.size, "lock", "hand-overs", "from rank", "to rank")


def _lock_cells(profile: Profile, lock: Json) -> list[Cell]:
    rows = lock["by_rank"]
    kind = f" <span class=soft>{parts.text(lock['kind'])}</span>" if lock["kind"] != lock["name"].split()[0] else ""
    taken = "<br>".join(
        f'<a href="#site-{number}">{parts.text(place(profile.sites[number]))}</a> {words.count(calls)} times'
        for number, calls in lock["sites"][:4]
    )
    overs = sum(one[2] for one in lock["hand_overs"])
    return [
        Cell(f"<code>{parts.text(lock['name'])}</code>{kind}"),
        _total(rows["acquires"]),
        _total(rows["local"]),
        Cell(words.count(overs), overs),
        _longest(rows["waited_s"], "lock"),
        _longest(rows["held_s"], ""),
        Cell(taken),
    ]
