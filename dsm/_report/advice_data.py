"""Advice about data that travel: tables that all read, pages too small for long reads, first touches, unread arrays."""

from __future__ import annotations

from collections.abc import Iterator

from dsm._report.code import allocation, variable
from dsm._report.found import GAIN_MIN, Found
from dsm._report.profile import Json, Profile, place
from dsm._report.words import count, counted, ranks, seconds, share, size

NEARLY_ALL = 0.8  # of the pages or bins
OFTEN = 3  # phases: more is no start-up
WIDE_PAGE = 1 << 16
FAULTS_MIN = 0.2  # of the pages read
PAGES_MIN = 16  # of an array, for what is about its parts


def small_pages(profile: Profile) -> Iterator[Found]:
    """Find arrays of which ranks read pieces of many pages, with a fault for one or a few of them.  Local."""
    for array in profile.arrays:
        wait_s, faults = max(array["by_rank"]["wait_s"]), sum(array["by_rank"]["faults_read"])
        if wait_s < GAIN_MIN * profile.seconds or not _has_small_pages(profile, array):
            continue
        page, pages = array["page_bytes"], sum(array["pages_read"])
        fewer = max(page / WIDE_PAGE, pages * page / WIDE_PAGE / faults)  # a fault for each larger page remains
        yield Found(
            title=f"Pages of `{array['name']}` are small for what ranks read in one piece",
            evidence=[
                f"Ranks read {count(pages)} pages of {size(page)}, in pieces of about "
                f"{size(_piece_bytes(profile, array))}.",
                f"They took {count(faults)} read faults for it: the runtime could not predict the order of the reads.",
                f"One rank waited {seconds(wait_s)}.",
            ],
            remedy="Give the array larger pages: a fault then fetches more.",
            code=allocation(profile, array, page_size=WIDE_PAGE),
            gain_s=wait_s * (1 - fewer),
            arrays=[array["id"]],
        )


def _has_small_pages(profile: Profile, array: Json) -> bool:
    pages, faults = sum(array["pages_read"]), sum(array["by_rank"]["faults_read"])
    return (
        array["page_bytes"] < WIDE_PAGE
        and array["contested"]["phases"] <= 0.05 * sum(array["by_rank"]["fetches"])
        and pages >= PAGES_MIN * profile.size
        and faults >= FAULTS_MIN * pages  # else the runtime reads ahead already
        and _piece_bytes(profile, array) >= 4 * WIDE_PAGE
    )


def read_by_all(profile: Profile) -> Iterator[Found]:
    """Find arrays that one rank writes and nearly all read.  Local."""
    for array in profile.arrays:
        writers = _writers(array)
        if len(writers) != 1 or profile.run["one_node"] or array["pages"] < PAGES_MIN:
            continue
        writer, written = writers[0], array["pages_written"][writers[0]]
        readers = _readers_of_nearly(profile, array, written, {profile.node_of(writer)})
        gain_s = max(array["by_rank"]["wait_s"])  # not what the runtime brings in barriers by itself
        if 2 * len(readers) < profile.size - 1 or gain_s < GAIN_MIN * profile.seconds or not readers:
            continue
        if _faults_in_broadcasts(profile, array) > 0.5 * _faults(array):
            continue
        name = variable(profile, array)
        times = max((value for *_, value in _runs(array, writer, "written")), default=1)
        yield Found(
            title=f"All ranks read `{array['name']}`, a table that rank {writer} writes",
            evidence=[
                f"Rank {writer} wrote {counted(written, 'page')}, at most {counted(times, 'time')} each; "
                f"{ranks(readers)} read nearly all of them.",
                f"These pages were fetched {count(sum(array['by_rank']['fetches']))} times, one by one; a rank waited "
                f"{seconds(gain_s)} for them.",
            ],
            remedy="Send the table to all ranks at once: `dsm.broadcast` is a barrier that also brings every rank the "
            "pages.",
            code=f"dsm.broadcast({name}, root={writer})  # in place of the dsm.barrier() after {name} is written",
            gain_s=gain_s,
            arrays=[array["id"]],
        )


def reads_everything(profile: Profile) -> Iterator[Found]:
    """Find arrays that have a block of each rank, and that ranks read whole in each phase.  Local."""
    for array in profile.arrays:
        writers = _writers(array)
        if len(writers) < 2 or array["pages"] < PAGES_MIN or array["contested"]["pages"] > 0.5 * array["pages"]:
            continue
        if _has_small_pages(profile, array):
            continue  # the faults cost more than the data
        total = min(sum(array["pages_written"]), array["pages"])
        readers = [r for r in _readers_of_nearly(profile, array, total, set()) if _repeats(profile, array, r)]
        gain_s = max((profile.cost_s(array)[rank] for rank in readers), default=0.0)
        if gain_s < GAIN_MIN * profile.seconds:
            continue
        name = variable(profile, array)
        received = sum(array["by_rank"]["bytes_received"])
        yield Found(
            title=f"{_capital(ranks(readers))} fetch all of `{array['name']}` again and again",
            evidence=[
                f"{_capital(ranks(writers))} write blocks of it, {counted(total, 'page')} together; "
                f"{ranks(readers)} fetched nearly all pages of the others, most of them more than {OFTEN} times.",
                f"{size(received)} travelled for it, and a rank waited {seconds(gain_s)}.",
            ],
            remedy="If a rank uses only a part, read that part: a copy or a sum of the whole array fetches every page "
            "that somebody wrote. (If it needs all of it, this is what the data cost.)",
            code=f"rows = dsm.split(len({name}))\n"
            f"near = {name}[max(rows.start - 1, 0) : rows.stop + 1]  # in place of {name}.copy() or {name}[...]",
            gain_s=gain_s,
            arrays=[array["id"]],
        )


def first_touch(profile: Profile) -> Iterator[Found]:
    """Find arrays that one rank fills and others then work on.  Local."""
    for array in profile.arrays:
        bins = array["bins"]
        first: dict[int, int] = {}
        for _, length, rank in array["first_writer"]:
            first[rank] = first.get(rank, 0) + length
        toucher = max(first, key=lambda rank: first[rank], default=-1)
        if toucher < 0 or first[toucher] < NEARLY_ALL * bins or array["pages"] < PAGES_MIN:
            continue
        others = [r for r in _writers(array) if profile.node_of(r) != profile.node_of(toucher)]
        worked_on = sum(array["pages_written"][rank] for rank in others)
        if worked_on < 0.4 * array["pages"] or array["contested"]["pages"] > 0.5 * array["pages"]:
            continue
        gains = {rank: _first_fetch_s(array, rank) for rank in others}
        worst = max(others, key=lambda rank: gains[rank])
        if gains[worst] < GAIN_MIN * profile.seconds:
            continue
        name = variable(profile, array)
        yield Found(
            title=f"Rank {toucher} fills `{array['name']}`, which other ranks then work on",
            evidence=[
                f"Rank {toucher} was the first to write {share(first[toucher] / bins)} of the array. Afterwards "
                f"{ranks(others)} wrote {counted(worked_on, 'page')} of it.",
                f"They had to fetch these pages first: rank {worst} {count(array['by_rank']['pages_received'][worst])} "
                f"whole pages, about {seconds(gains[worst])}.",
            ],
            remedy="Let each rank fill the block that it works on. Nothing travels then, and the ranks fill at the "
            "same time.",
            code=f"mine = dsm.local({name})  # on every rank, not under `if dsm.rank() == {toucher}:`\nmine[...] = ...",
            gain_s=gains[worst],
            arrays=[array["id"]],
        )


def unread(profile: Profile) -> Iterator[Found]:
    """Find arrays of which no rank reads what another one wrote.  Local."""
    for array in profile.arrays:
        rows = array["by_rank"]
        writers = _writers(array)
        if profile.run["one_node"] or not writers or sum(rows["fetches"]) or array["contested"]["pages"]:
            continue
        if any(rank not in writers for rank in _readers(array)):
            continue
        gain_s = max(profile.cost_s(array))
        if gain_s < GAIN_MIN * profile.seconds:
            continue
        name = variable(profile, array)
        shape = ", ".join(map(str, array["shape"]))
        alone = len(writers) == 1
        yield Found(
            title=f"Nobody reads what {'rank ' + str(writers[0]) if alone else 'a rank'} writes to `{array['name']}`",
            evidence=[
                f"{_capital(ranks(writers))} wrote {counted(sum(array['pages_written']), 'page')}; none was fetched.",
                f"The writes took {count(_faults(array))} page faults; a rank waited {seconds(gain_s)} in them.",
            ],
            remedy="Private memory has no page faults and no notices. Share only results that another rank reads."
            + ("" if alone else " A rank needs only its own block of it."),
            code=f"{name} = np.zeros({f'({shape},)' if len(array['shape']) == 1 else f'({shape})'}, "
            f"{array['dtype']!r})  # in place of dsm, {place(profile.site(array['allocated_at']))}",
            gain_s=gain_s,
            gain_bytes=int(array["bytes"]),
            arrays=[array["id"]],
        )


def _writers(array: Json) -> list[int]:
    return [rank for rank, pages in enumerate(array["pages_written"]) if pages]


def _readers(array: Json) -> list[int]:
    return [rank for rank, pages in enumerate(array["pages_read"]) if pages]


def _faults(array: Json) -> int:
    return int(sum(array["by_rank"]["faults_read"]) + sum(array["by_rank"]["faults_write"]))


def _faults_in_broadcasts(profile: Profile, array: Json) -> int:
    broadcasts = [site for site in profile.sites if site["kind"] == "collective" and "broadcast(" in site["source"]]
    return sum(faults for site in broadcasts for number, faults in site["arrays"] if number == array["id"])


def _runs(array: Json, rank: int, what: str) -> list[list[int]]:
    return next((strip[what] for strip in array["strips"] if strip["rank"] == rank), [])


def _readers_of_nearly(profile: Profile, array: Json, pages: int, without: set[int]) -> list[int]:
    """Return the ranks that read nearly all of the pages, apart from their own and from those of some nodes."""
    return [
        rank
        for rank, read in enumerate(array["pages_read"])
        if profile.node_of(rank) not in without
        and array["by_rank"]["fetches"][rank]
        and read >= NEARLY_ALL * max(pages - array["pages_written"][rank], 1)
    ]


def _repeats(profile: Profile, array: Json, rank: int) -> bool:
    """Tell whether a rank fetched most of what it fetched several times."""
    values = [value for value in profile.strip(array, rank, "fetched") if value]
    return bool(values) and sorted(values)[len(values) // 2] > OFTEN


def _piece_bytes(profile: Profile, array: Json) -> float:
    """Return the mean length of neighbouring bins that a rank fetched, weighted by their number."""
    pieces = []
    for strip in array["strips"]:
        length = 0
        for value in [*profile.strip(array, strip["rank"], "fetched"), 0]:
            if value:
                length += 1
            elif length:
                pieces.append(length)
                length = 0
    return sum(piece * piece for piece in pieces) / max(sum(pieces), 1) * float(array["bin_bytes"])


def _first_fetch_s(array: Json, rank: int) -> float:
    """Return about how long a rank waited for whole pages: its part of all fetches, by number."""
    rows = array["by_rank"]
    whole = rows["pages_received"][rank] / max(rows["fetches"][rank], rows["pages_received"][rank], 1)
    return float(rows["wait_s"][rank] * min(whole, 1.0))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
