"""The search for data races (``run --races``, ``DSM_RACES``): where a rank synchronises, and when the ranks compare.

The core logs which bytes a rank writes, and which pages it reads, between two synchronising calls: in a *stretch* of
the program.  All such calls pass through `_Watched`, which stands in for the core's library, tells the core where the
stretch ends, and knows the line of the program.  In a barrier and at the end of the program the ranks meet anyhow, so
there they compare: first only which pages a rank wrote and another one touched, then, on rank 0, the bytes of these
pages (Perkovic and Keleher, OSDI'96).  `_race_report` says what is found.

MPI carries the comparison, on a communicator of its own, so that it does not show in what it observes.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dsm import _frames, _regions, _runtime
from dsm._race_report import Found, Report

_COLUMNS = ("stretch", "stretch_edge", "page_access", "byte_run")  # structs of dsm.h, in the order of the log's fields
_FIELDS = ("stretches", "edges", "pages", "runs")
_COUNTS = ("stretch_count", "edge_count", "page_count", "run_count")
_REGION_SHIFT = 40  # pages of an array are fewer
_SEEN = 2**32 - 1  # in `run_first` of a read that was seen
FOUND_MAX = 1 << 18  # races of one comparison
BARRIERS_MAX = 64  # between two comparisons, at most
LOGGED_BYTES = 16 << 20  # between two comparisons, about

Table = npt.NDArray[Any]


class Log(NamedTuple):
    """What a rank did: its stretches, their edges, the pages that were accessed, and the bytes that were written."""

    stretches: Table
    edges: Table
    pages: Table
    runs: Table

    @property
    def bytes(self) -> int:
        """Size of all tables."""
        return sum(table.nbytes for table in self)

    def keys(self) -> npt.NDArray[np.int64]:
        """Return a number for each access: its region and its page.  Local."""
        return self.pages["region"].astype(np.int64) << _REGION_SHIFT | self.pages["page"].astype(np.int64)

    def only(self, chosen: npt.NDArray[np.bool_]) -> Log:
        """Return the log with these accesses only, and all stretches, since they order each other.  Local."""
        pages = self.pages[chosen]
        counts = pages["run_count"].astype(np.int64)
        ends = np.cumsum(counts)
        # The runs of the accesses that stay, one after the other.
        runs = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(
            pages["run_first"].astype(np.int64) - (ends - counts), counts
        )
        pages["run_first"] = np.where(counts > 0, ends - counts, pages["run_first"])
        return Log(self.stretches, self.edges, pages, self.runs[runs])

    def since(self, meeting: int) -> Log:
        """Return what ended after the ranks arrived at a meeting: it is not ordered before what follows.  Local."""
        first = int(np.searchsorted(self.stretches["arrivals"], meeting))
        pages = self.pages[self.pages["stretch"] >= first]
        edges = self.edges[self.edges["stretch"] >= first]
        kept = _kept(pages)
        pages["run_first"][kept] -= np.minimum(pages["run_first"][kept], first)
        pages["stretch"] -= first
        edges["stretch"] -= first
        log = Log(self.stretches[first:], edges, pages, self.runs)
        return log.only(np.ones(len(pages), np.bool_))

    def then(self, other: Log) -> Log:
        """Return this log with the other one behind it.  Local."""
        edges, pages = other.edges.copy(), other.pages.copy()
        edges["stretch"] += len(self.stretches)
        pages["stretch"] += len(self.stretches)
        pages["run_first"][_kept(pages)] += len(self.stretches)
        pages["run_first"][pages["run_count"] > 0] += len(self.runs)
        parts = zip(self, Log(other.stretches, edges, pages, other.runs), strict=True)
        return Log(*(np.concatenate(part) for part in parts))


def _kept(pages: Table) -> npt.NDArray[np.bool_]:
    """Tell which accesses are pages that were kept open; `run_first` is the first stretch of those then."""
    kept: npt.NDArray[np.bool_] = (pages["run_count"] == 0) & (pages["run_first"] != _SEEN)
    return kept


def dtype_of(ffi: Any, name: str) -> np.dtype[Any]:
    """Return the dtype of a struct of the core.  Local."""
    kind = ffi.typeof(f"struct dsm_{name}")
    names, formats, offsets = [], [], []
    for field, what in kind.fields:
        number, many = (what.type.item, (what.type.length,)) if what.type.kind == "array" else (what.type, ())
        letter = "i" if number.cname.startswith("int") else "u"
        names.append(field)
        formats.append((f"{letter}{ffi.sizeof(number)}", many))
        offsets.append(what.offset)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": ffi.sizeof(kind)})


class Search:
    """The search of one rank.

    Parameters
    ----------
    runtime : Runtime
        The core, before it is watched.
    """

    def __init__(self, runtime: _runtime.Runtime) -> None:
        self._runtime, self._ffi, self._lib = runtime, runtime.ffi, runtime.lib
        self._comm = runtime.comm.Dup()
        self._dtypes = [dtype_of(self._ffi, name) for name in _COLUMNS]
        self._kept = Log(*(np.empty(0, dtype) for dtype in self._dtypes))
        self._sites: dict[tuple[int, int, int], tuple[int, CodeType, CodeType]] = {}
        self._places = ["start", "end"]  # of the program
        self._places_sent = 0
        self._barriers = self._due = 0
        self._lost = 0
        self._step = 1
        self._folder = str(runtime.settings.races)
        self._report = Report(runtime.size, self._folder) if runtime.rank == 0 else None
        self._places_of: list[list[str]] = [[] for _ in range(runtime.size)]
        self._regions: dict[int, _regions.Region] = {}
        self.ended = False

    # ---- places in the program ------------------------------------------------------------------------------------

    def _site(self) -> int:
        """Return the number of the place where the program calls dsm."""
        own: FrameType = sys._getframe(2)
        frame = own.f_back
        while frame is not None and _frames.is_own(frame):
            own, frame = frame, frame.f_back
        if frame is None:
            return 1
        key = (id(frame.f_code), frame.f_lasti, id(own.f_code))
        if key not in self._sites:
            self._sites[key] = (len(self._places), frame.f_code, own.f_code)  # keeps the code, and so its id
            self._places.append(f"{_name_of(own.f_code)} at {_frames.place_of(frame)}")
        return self._sites[key][0]

    def boundary(self, boundary: int, number: int = 0) -> None:
        """Tell the core that the program synchronises.  Local."""
        if not self.ended:
            self._lib.dsm_boundary(boundary, number, self._site())

    # ---- comparison -----------------------------------------------------------------------------------------------

    def _take(self) -> Log:
        """Return what the core has logged."""
        log = self._ffi.new("struct dsm_access_log *")
        if self._lib.dsm_accesses_take(log) != self._lib.DSM_OK:
            return self._kept
        tables = []
        for dtype, field, count in zip(self._dtypes, _FIELDS, _COUNTS, strict=True):
            bytes_ = getattr(log, count) * dtype.itemsize
            tables.append(
                np.frombuffer(self._ffi.buffer(getattr(log, field), bytes_), dtype).copy() if bytes_ else None
            )
        self._lost += log.lost
        self._lib.dsm_accesses_give(log)
        made = Log(*(np.empty(0, dtype) if t is None else t for t, dtype in zip(tables, self._dtypes, strict=True)))
        return self._kept.then(made) if len(self._kept.stretches) else made

    def at_barrier(self) -> None:
        """Compare what the ranks did since the last comparison, if it is time.  Collective."""
        self._barriers += 1
        if self._barriers >= self._due:
            since = self._barriers
            biggest = self._compare(self._take())
            self._step = max(1, min(2 * self._step, BARRIERS_MAX, LOGGED_BYTES * self._step // max(biggest, 1)))
            self._due = since + self._step

    def before_end(self) -> None:
        """Take what is still to be compared, while the core is there.  Local."""
        if not self.ended:
            self._kept = self._take()

    def at_end(self) -> None:
        """Compare the rest, and say what was found.  Collective."""
        if self.ended:
            return
        self.ended = True
        self._compare(self._kept)
        if self._report is not None:
            self._report.finish()

    def _compare(self, log: Log) -> int:
        """Compare the logs of all ranks, and return the bytes of the largest one."""
        keys = log.keys()
        places, self._places_sent = self._places[self._places_sent :], len(self._places)
        told = (np.unique(keys), np.unique(keys[log.pages["run_count"] > 0]), log.bytes, self._lost, places)
        everybody = self._comm.allgather(told)
        for known, (*_, new) in zip(self._places_of, everybody, strict=True):
            known += new
        accessed, times = np.unique(np.concatenate([touched for touched, *_ in everybody]), return_counts=True)
        written = np.concatenate([wrote for _, wrote, *_ in everybody])
        shared = np.intersect1d(accessed[times > 1], written)
        if len(shared):
            logs = self._comm.gather(log.only(np.isin(keys, shared)))
            if self._report is not None:
                self._judge(logs)
        if self._report is not None:
            self._report.lost = sum(lost for *_, lost, _ in everybody)
        meeting = int(log.stretches["departures"].max()) if len(log.stretches) else 0
        self._kept = log.since(meeting)
        biggest: int = max(size for _, _, size, *_ in everybody)
        return biggest

    def _judge(self, logs: list[Log]) -> None:
        ffi = self._ffi
        both = ffi.new("struct dsm_access_log[]", len(logs))
        alive = []
        for one, log in zip(both, logs, strict=True):
            for name, field, count, table in zip(_COLUMNS, _FIELDS, _COUNTS, log, strict=True):
                memory = np.ascontiguousarray(table)
                alive.append(memory)
                setattr(one, field, ffi.cast(f"struct dsm_{name} *", memory.ctypes.data))
                setattr(one, count, len(table))
        races = np.zeros(FOUND_MAX, dtype_of(ffi, "race"))
        count, skipped = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        room = ffi.cast("struct dsm_race *", races.ctypes.data)
        self._runtime.check(self._lib.dsm_races(both, len(logs), room, len(races), count, skipped))
        self.note_regions()
        assert self._report is not None
        self._report.cut_short |= bool(skipped[0]) or int(count[0]) > FOUND_MAX
        stretches = [log.stretches for log in logs]
        self._report.add(Found(races[: int(count[0])], stretches, self._places_of), self._regions)

    def note_regions(self) -> None:
        """Remember the arrays that there are, since a race is told after the array may be freed.  Local."""
        self._regions.update(_regions.known())


def _name_of(code: CodeType) -> str:
    """Return the call as the user writes it."""
    name = code.co_qualname
    return name.replace("__enter__", "acquire").replace("__exit__", "release").replace(".__init__", "")


class _Watched:
    """The core's library, with its calls that synchronise told to the search."""

    def __init__(self, lib: Any, search: Search) -> None:
        self._lib, self._search = lib, search
        self._meeting: set[int] = set()  # threads that have begun a collective call

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._lib, name)
        self.__dict__[name] = found
        return found

    def _meet(self, call: Callable[..., int], *arguments: Any) -> int:
        me = threading.get_ident()
        if me not in self._meeting:
            self._meeting.add(me)
            self._search.boundary(self._lib.DSM_BEFORE_MEETING)
        code = call(*arguments)
        if code != self._lib.DSM_AGAIN:
            self._meeting.discard(me)
            self._search.boundary(self._lib.DSM_AFTER_MEETING)
        return code

    def dsm_barrier(self, slice_s: float) -> int:
        code = self._meet(self._lib.dsm_barrier, slice_s)
        if code == self._lib.DSM_OK and not self._search.ended:
            self._search.at_barrier()
        return code

    def dsm_allocate(self, *arguments: Any) -> int:
        return self._meet(self._lib.dsm_allocate, *arguments)

    def dsm_free(self, *arguments: Any) -> int:
        self._search.note_regions()
        return self._meet(self._lib.dsm_free, *arguments)

    def dsm_recount(self, *arguments: Any) -> int:
        return self._meet(self._lib.dsm_recount, *arguments)

    def dsm_finalize(self, *arguments: Any) -> int:
        me = threading.get_ident()
        if me not in self._meeting:
            self._meeting.add(me)
            self._search.boundary(self._lib.DSM_BEFORE_MEETING)
            self._search.before_end()
        code: int = self._lib.dsm_finalize(*arguments)
        if code != self._lib.DSM_AGAIN:
            self._meeting.discard(me)
        if code == self._lib.DSM_OK:
            self._search.at_end()
        return code

    def _acquired(self, code: int, lock: int) -> int:
        if code == self._lib.DSM_OK:
            self._search.boundary(self._lib.DSM_AFTER_LOCK, lock)
        return code

    def dsm_acquire_here(self, lock: int, site: Any) -> int:
        return self._acquired(self._lib.dsm_acquire_here(lock, site), lock)

    def dsm_acquire(self, lock: int, *arguments: Any) -> int:
        return self._acquired(self._lib.dsm_acquire(lock, *arguments), lock)

    def dsm_try_acquire(self, lock: int, *arguments: Any) -> int:
        return self._acquired(self._lib.dsm_try_acquire(lock, *arguments), lock)

    def dsm_release(self, lock: int) -> int:
        self._search.boundary(self._lib.DSM_BEFORE_RELEASE)
        code: int = self._lib.dsm_release(lock)
        return code

    def dsm_flag_set(self, flag: int, slice_s: float) -> int:
        self._search.boundary(self._lib.DSM_BEFORE_RELEASE)
        code: int = self._lib.dsm_flag_set(flag, slice_s)
        return code

    def dsm_flag_is_here(self, flag: int) -> bool:
        del flag
        return False  # so that the caller waits, and the core says whose set ended the wait

    def dsm_flag_wait(self, flag: int, ticket: Any, slice_s: float) -> int:
        code: int = self._lib.dsm_flag_wait(flag, ticket, slice_s)
        if code == self._lib.DSM_OK:
            self._search.boundary(self._lib.DSM_AFTER_FLAG, flag)
        return code

    def dsm_flag_is_set(self, flag: int, found: Any) -> int:
        code: int = self._lib.dsm_flag_is_set(flag, found)
        if code == self._lib.DSM_OK and found[0]:
            self._search.boundary(self._lib.DSM_AFTER_FLAG, flag)
        return code


def begin() -> None:
    """Watch the core if this run searches for races.  Collective."""
    runtime = _runtime.active()
    if runtime.settings.races is None:
        return
    if runtime.lib.dsm_nodes() < 2:
        if runtime.rank == 0:
            sys.stderr.write("dsm: DSM_RACES has nothing to find on one rank\n")
        return
    os.makedirs(runtime.settings.races, exist_ok=True)
    search = Search(runtime)
    _runtime.call_through(_Watched(runtime.lib, search))
