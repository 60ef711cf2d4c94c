"""Facts about a shared array: its name, its pages and their owners."""

from __future__ import annotations

from dataclasses import dataclass

from dsm import _runtime
from dsm._numpy import AnyArray, byte_bounds
from dsm._regions import Region, region_of, shared_region

OWNER_PAGES_MAX = 1 << 16  # info() takes about 50 ms for these


@dataclass(frozen=True)
class Info:
    """Facts about a shared array, or a view of one, as this rank knows them.

    Attributes
    ----------
    name : str or None
        As given to `zeros`.
    nbytes : int
        Bytes of the whole allocation.
    page_size : int
        The unit of coherence, in bytes.
    pages : int
        Pages of the whole allocation.
    first_page, last_page : int
        First and last page that the view reaches, from 0 at the start of the allocation.  An empty view has
        ``last_page == first_page - 1``.
    owners : tuple of (int, int, int or None)
        Runs (first page, last page, rank) over the view's pages: this rank fetches a page that it lacks from that
        rank's node, of which it is the first; None if no rank has written to the page, and always in a job of one node.
        Covers the first 65,536 pages of the view at most.
    """

    name: str | None
    nbytes: int
    page_size: int
    pages: int
    first_page: int
    last_page: int
    owners: tuple[tuple[int, int, int | None], ...]


def info(a: AnyArray) -> Info:
    """Return the facts about a shared array.  Local.

    Parameters
    ----------
    a : numpy.ndarray
        A shared array or a view of one.

    Returns
    -------
    Info
        Name, bytes, page size, the pages that `a` reaches and their owners.

    Raises
    ------
    ValueError
        `a` is not shared.

    Examples
    --------
    >>> import dsm
    >>> a = dsm.zeros(1024, page_size=4096, name="grid")
    >>> dsm.info(a[512:]).first_page
    1
    """
    region = shared_region(a, "info")
    if a.size == 0:
        first, last = 0, -1
    else:
        low, high = byte_bounds(a)
        first, last = ((address - region.address) // region.page_bytes for address in (low, high - 1))
    return Info(
        name=region.name,
        nbytes=region.bytes,
        page_size=region.page_bytes,
        pages=region.pages,
        first_page=first,
        last_page=last,
        owners=_owners(region, first, last),
    )


def _owners(region: Region, first: int, last: int) -> tuple[tuple[int, int, int | None], ...]:
    runtime = _runtime.active()
    page = runtime.ffi.new("struct dsm_page_info *")
    runs: list[tuple[int, int, int | None]] = []
    for number in range(first, min(last, first + OWNER_PAGES_MAX - 1) + 1):
        runtime.check(runtime.lib.dsm_page_info(region.id, number, page))
        owner = None if page.owner < 0 else int(page.owner)
        if runs and runs[-1][2] == owner:
            runs[-1] = (runs[-1][0], number, owner)
        else:
            runs.append((number, number, owner))
    return tuple(runs)


def is_shared(a: object) -> bool:
    """Tell whether an array lies in shared memory.  Local.

    Parameters
    ----------
    a : object
        Any object; only a `numpy.ndarray` can be shared.

    Returns
    -------
    bool
        False before `init`, and for an array that was freed.

    Examples
    --------
    >>> import dsm
    >>> a = dsm.zeros(4)
    >>> dsm.is_shared(a[1:]), dsm.is_shared(a + 1)
    (True, False)
    """
    _runtime.refuse_if_ended()
    return region_of(a) is not None
