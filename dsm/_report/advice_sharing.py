"""Advice about pages that several ranks write: padding, page sizes, and blocks in place of turns.

The three kinds exclude each other: most pages shared is a matter of distribution, some pages larger than the kernel's
of the page size, and otherwise the borders of blocks lie inside of pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from dsm._report.code import allocation, variable
from dsm._report.found import GAIN_MIN, Found
from dsm._report.profile import Json, Profile, row_bytes
from dsm._report.words import count, counted, ranks, share, size

SMALLEST_PAGE = 4096
MOST_PAGES = 0.5  # of those written: more shared ones are no matter of borders
PADDING_MAX = 0.34  # of a row
PHASES_MIN = 5  # in which pages were shared: once is no pattern


def shared_pages(profile: Profile) -> Iterator[Found]:
    """Find arrays whose blocks meet inside of pages.  Local."""
    for array, gain_s in _falsely_shared(profile):
        if _share_shared(array) >= MOST_PAGES and not _is_tiny(profile, array):
            continue
        if array["page_bytes"] > SMALLEST_PAGE and not _is_tiny(profile, array):
            continue
        remedy, code = _own_rows(profile, array) if _is_tiny(profile, array) else _padded(profile, array)
        yield Found(
            title=f"Rows of several ranks share pages of `{array['name']}`",
            evidence=[*_evidence(array), f"A row has {count(row_bytes(array))} bytes, a page {array['page_bytes']:,}."],
            remedy=remedy,
            code=code,
            gain_s=gain_s,
            arrays=[array["id"]],
        )


def large_pages(profile: Profile) -> Iterator[Found]:
    """Find arrays whose pages are larger than what a rank writes in one piece.  Local."""
    for array, gain_s in _falsely_shared(profile):
        page = array["page_bytes"]
        if page == SMALLEST_PAGE or _is_tiny(profile, array):
            continue
        piece = _bytes_a_rank_writes(array)
        smaller = max(SMALLEST_PAGE, min(page // 2, 1 << max(0, int(math.log2(max(piece, 1))))))
        yield Found(
            title=f"Pages of `{array['name']}` are larger than the pieces that ranks write",
            evidence=[
                *_evidence(array),
                f"A rank changes about {size(piece)} of such a page in a phase; a page has {size(page)}.",
            ],
            remedy="Give the array smaller pages, so that ranks seldom write the same one.",
            code=allocation(profile, array, page_size=smaller),
            gain_s=gain_s,
            arrays=[array["id"]],
        )


def interleaved(profile: Profile) -> Iterator[Found]:
    """Find arrays whose items are dealt out in turn.  Local."""
    for array, gain_s in _falsely_shared(profile):
        if _share_shared(array) < MOST_PAGES or _is_tiny(profile, array) or array["page_bytes"] > SMALLEST_PAGE:
            continue
        name = variable(profile, array)
        yield Found(
            title=f"`{array['name']}` is dealt out in turn, so that most pages have several writers",
            evidence=[*_evidence(array), f"These are {share(_share_shared(array))} of all pages that were written."],
            remedy="Give each rank one block of neighbouring rows. If ranks work on blocks of columns, lay the array "
            'out by columns: order="F".',
            code=f"mine = dsm.local({name})  # or {name}[dsm.split(len({name}))], instead of {name}[rank::size]",
            gain_s=gain_s,
            arrays=[array["id"]],
        )


def _falsely_shared(profile: Profile) -> Iterator[tuple[Json, float]]:
    """Yield arrays with pages that ranks wrote in one phase in different bytes, and the time that this may cost."""
    for array in profile.arrays:
        contested = array["contested"]
        if contested["phases"] < PHASES_MIN or contested["true_pages"] > contested["false_pages"]:
            continue
        fetches = sum(array["by_rank"]["fetches"])
        # Each of these pages is fetched by the ranks that wrote it, in each phase: two fetches at least.
        part = min(1.0, 2 * contested["phases"] / max(fetches, 1))
        gain_s = part * max(profile.cost_s(array))
        if gain_s >= GAIN_MIN * profile.seconds:
            yield array, gain_s


def _evidence(array: Json) -> list[str]:
    contested = array["contested"]
    worst = contested["worst"][:1]
    shown = [
        f"Most often page {one['page']}, elements {_index(one['first'])} to {_index(one['last'])}, by "
        f"{ranks(one['ranks'])}: {counted(one['phases'], 'time')}."
        for one in worst
    ]
    return [
        f"{counted(contested['pages'], 'page')} had two writers between the same two barriers, "
        f"{counted(contested['phases'], 'time')} in all; {size(contested['diff_bytes'])} of diffs went to and fro. "
        f"No byte had two writers on {counted(contested['false_pages'], 'page')}.",
        *shown,
        f"All ranks together brought pages of the array up to date {count(sum(array['by_rank']['fetches']))} times.",
    ]


def _index(index: list[int]) -> str:
    return f"[{', '.join(map(str, index))}]"


def _share_shared(array: Json) -> float:
    """Return the part of the written pages that had several writers."""
    shared = array["contested"]["pages"]
    # A page that two ranks wrote counts twice in the sum.
    return float(shared / max(sum(array["pages_written"]) - shared, shared, 1))


def _is_tiny(profile: Profile, array: Json) -> bool:
    """Tell whether not even the smallest pages would give each rank one of its own."""
    return bool(array["bytes"] < profile.size * SMALLEST_PAGE)


def _bytes_a_rank_writes(array: Json) -> float:
    contested = array["contested"]
    return float(contested["diff_bytes"] / max(2 * contested["phases"], 1))


def _own_rows(profile: Profile, array: Json) -> tuple[str, str]:
    items = max(1, SMALLEST_PAGE // array["itemsize"])
    name = variable(profile, array)
    return (
        "Give each rank a page of its own, or let a rank add up in private memory and write once in a phase.",
        f"{name} = dsm.zeros(({profile.size}, {items}))  # a row is a page of {SMALLEST_PAGE} bytes\n"
        f"{name}[dsm.rank(), 0] += 1",
    )


def _padded(profile: Profile, array: Json) -> tuple[str, str]:
    """Return a remedy: longer rows where little is lost by it, else blocks that begin where pages do."""
    name, page, row = variable(profile, array), array["page_bytes"], row_bytes(array)
    shape = tuple(array["shape"])
    padded = -(-row // page) * page
    if (
        len(shape) == 2
        and array["order"] == "C"
        and page % array["itemsize"] == 0
        and padded <= row * (1 + PADDING_MAX)
    ):
        columns = padded // array["itemsize"]
        return (
            f"Pad the rows, so that each begins a page: {share(padded / row - 1)} more memory.",
            f"{name} = dsm.zeros(({shape[0]}, {columns}))[:, :{shape[1]}]  # rows of {padded} bytes",
        )
    together = page // math.gcd(row, page)
    blocks = -(-shape[0] // together) if shape else 1
    pages = together * row // page
    return (
        f"Let the blocks of the ranks begin where pages do: every {counted(together, 'row')}.",
        f"part = dsm.split({blocks})\n"
        f"mine = {name}[{together} * part.start : {together} * part.stop]  # {together} rows are {pages} pages",
    )
