"""What one rank contributes to a profile: the tables of its core as NumPy arrays and plain values, with aligned times.

The imbalance of a collective call needs the others: the ranks compare the times of their arrivals, call by call, as all
ranks make the same collective calls in the same order.
"""

from __future__ import annotations

import linecache
import os
import platform
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dsm import _nodes
from dsm._numpy import AnyArray
from dsm._profile import bins
from dsm._profile.clocks import Clock
from dsm._recorder import BARRIER, KINDS, Place, Recorder, Watched

EVENTS_OF_ALL = 300_000  # in the timeline
HOLDS_OF_ALL = 1 << 20
CONTESTED_MAX = 1 << 12  # pages of an array, of one rank
LINES_MAX = 256
_EMPTY_NS = 20_000  # a phase that computes less does nothing ...
_NOTHING_NS = 3_000  # ... where the barrier before it has brought pages: less than it takes to look at an array
_SECOND = 1_000_000_000


@dataclass
class Site:
    """The calls of one rank at one place."""

    place: Place
    source: str
    label: str | None
    numbers: dict[str, float]
    arrays: dict[int, int]  # faults
    empty: int = 0


@dataclass
class ArrayPart:
    """An array as one rank has used it."""

    region: int
    label: str
    named: bool
    shape: tuple[int, ...]
    dtype: str
    itemsize: int
    order: str
    bytes: int
    page_bytes: int
    pages: int
    place: Place
    allocated_s: float
    freed_s: float | None
    stats: dict[str, int]
    owners: list[tuple[int, int, int]]
    held_bytes: int
    strips: dict[str, bins.Runs]
    first_s: AnyArray  # for each bin: when this rank wrote there first, or infinity
    pages_written: int
    pages_read: int
    contested: AnyArray  # of CONTESTED


@dataclass
class Part:
    """All that a rank contributes."""

    rank: int
    node: int
    host: str
    pid: int
    cores: int
    memory_bytes: int | None
    began_s: float
    ended_s: float
    threads: list[dict[str, float]]  # the first one made dsm start
    service_s: float
    stats: dict[str, int]
    sites: list[Site]
    site_numbers: dict[int, Place]
    locks: dict[int, dict[str, float]]
    holds: AnyArray
    arrays: list[ArrayPart]
    arrays_left: int
    memory: AnyArray
    asked: AnyArray
    lines: list[tuple[str, int, str, str, float]]
    events: AnyArray
    clock_error_s: float
    truncated: list[str] = field(default_factory=list)


CONTESTED = np.dtype(
    [("page", np.int64), ("phases", np.int64), ("diff_bytes", np.int64), ("common", np.int64), ("rivals", np.uint64)]
)
HOLD = np.dtype([("lock", np.int64), ("asked", float), ("acquired", float), ("released", float), ("site", np.int64)])
EVENT = np.dtype(
    [("begin", float), ("end", float), ("bytes", np.int64), ("kind", np.int32), ("site", np.int32)]
    + [("object", np.int64), ("thread", np.int64), ("count", np.int64), ("pages", np.int64), ("peer", np.int32)]
)


def dtype_of(ffi: Any, kind: Any) -> Any:
    """Return the dtype of a type of the core: a number, a struct, or an array of these.  Local."""
    if kind.kind == "primitive":
        return np.dtype(kind.cname.removesuffix("_t"))
    if kind.kind == "array":
        return np.dtype((dtype_of(ffi, kind.item), (kind.length,)))
    names, fields = zip(*kind.fields, strict=True)
    formats = [dtype_of(ffi, each.type) for each in fields]
    layout: Any = {
        "names": names,
        "formats": formats,
        "offsets": [each.offset for each in fields],
        "itemsize": ffi.sizeof(kind),
    }
    return np.dtype(layout)


def table(ffi: Any, pointer: Any, count: int) -> AnyArray:
    """Copy `count` items of the core into an array.  Local."""
    dtype = dtype_of(ffi, ffi.typeof(pointer).item)
    items: AnyArray = np.frombuffer(ffi.buffer(pointer, max(count, 1) * dtype.itemsize), dtype, count).copy()
    return items


def part_of(recorder: Recorder, clock: Clock) -> Part:
    """Put together what this rank has recorded.  Collective."""
    ffi, runtime = recorder.runtime.ffi, recorder.runtime
    shown = recorder.lib.dsm_profile()
    threads = table(ffi, shown.threads, shown.thread_count)
    site_table = table(ffi, shown.sites, shown.sites_max)
    waits = _Waits(recorder.comm, table(ffi, shown.meetings, shown.meeting_count), clock, len(site_table))
    nodes = _nodes.nodes_of(runtime)
    own = next(number for number, ranks in enumerate(nodes) if runtime.rank in ranks)
    alone = len(nodes[own]) == 1 < len(nodes)
    return Part(
        rank=runtime.rank,
        node=own,
        host=platform.node(),
        pid=os.getpid(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        began_s=float(clock.aligned_s(threads[0]["began_ns"])),
        ended_s=float(clock.aligned_s(threads[0]["last_ns"])),
        threads=[_thread(thread) for thread in threads],
        service_s=recorder.service_ns / _SECOND,
        stats=recorder.stats,
        sites=_sites(recorder, site_table, waits),
        site_numbers=dict(enumerate(recorder.places)),
        locks=_locks(recorder, table(ffi, shown.locks, shown.locks_max)),
        holds=_holds(table(ffi, shown.holds, shown.hold_count), clock, HOLDS_OF_ALL // runtime.size),
        arrays=[_array(recorder, array, clock, alone) for array in recorder.arrays.values()],
        arrays_left=recorder.arrays_left,
        memory=_memory(table(ffi, shown.moments, shown.moment_count), clock),
        asked=table(ffi, shown.asked, len(nodes)),
        lines=_lines(recorder),
        events=_events(table(ffi, shown.events, shown.event_count), clock, EVENTS_OF_ALL // runtime.size),
        clock_error_s=clock.error_s,
        truncated=_truncated(recorder, shown),
    )


def _thread(thread: Any) -> dict[str, float]:
    spent = dict(zip(KINDS, (thread["spent_ns"] / _SECOND).tolist(), strict=True))
    return {
        "number": int(thread["number"]),
        "seconds": (int(thread["last_ns"]) - int(thread["began_ns"])) / _SECOND,
        "compute_s": int(thread["computed_ns"]) / _SECOND,
        "data_s": int(thread["data_ns"]) / _SECOND,
        "lock_s": spent["acquire"] + spent["try"],
        "barrier_s": spent["barrier"],
        "event_s": spent["wait"],
        "other_s": spent["allocation"] + spent["free"] + spent["collective"] + spent["end"],
        "protocol_s": sum(spent[name] for name in ("release", "set", "clear", "notify", "prefetch", "counter")),
    }


class _Waits:
    """The waits in collective calls, divided: until the last rank came, and after that."""

    def __init__(self, comm: Any, meetings: AnyArray, clock: Clock, sites: int) -> None:
        fewest = np.array([len(meetings)], np.int64)
        comm.Allreduce(fewest.copy(), fewest, op=_mpi(comm).MIN)
        part = meetings[: int(fewest[0])]
        arrived, left = clock.aligned_s(part["begin_ns"]), clock.aligned_s(part["end_ns"])
        last, busiest = arrived.copy(), _busiest_ns(part)
        comm.Allreduce(arrived, last, op=_mpi(comm).MAX)
        most = busiest.copy()
        comm.Allreduce(busiest, most, op=_mpi(comm).MAX)
        waits = np.clip(last - arrived, 0.0, np.maximum(left - arrived, 0.0))
        self.imbalance_s = np.bincount(part["site"], waits, sites)
        self.empty = np.bincount(part["site"], most < _EMPTY_NS, sites)


def _busiest_ns(meetings: AnyArray) -> AnyArray:
    """Return how long this rank has computed before each meeting; more than _EMPTY_NS where it did something else."""
    computed: AnyArray = meetings["computed_ns"]
    does = (meetings["busy"] > 0) | ((meetings["brought"] > 0) & (computed >= _NOTHING_NS))
    return np.where(does, np.maximum(computed, _EMPTY_NS), computed)


def _mpi(comm: Any) -> Any:
    """The module of the communicator: it was imported long ago, and must not be before."""
    return sys.modules[type(comm).__module__]


def _sites(recorder: Recorder, sites: AnyArray, waits: _Waits) -> list[Site]:
    found = []
    for number, place in enumerate(recorder.places[: len(sites)]):
        site = sites[number]
        if not site["calls"]:
            continue
        waited = int(site["waited_ns"]) / _SECOND
        imbalance = min(float(waits.imbalance_s[number]), waited)
        values = {name: int(site[name]) for name in ("calls", "faults", "pages", "bytes")}
        times = {
            "computed_s": int(site["computed_ns"]) / _SECOND,
            "data_s": int(site["data_ns"]) / _SECOND,
            "waited_s": waited,
            "imbalance_s": imbalance,
            "latency_s": waited - imbalance,
        }
        arrays = {int(each["region"]): int(each["faults"]) for each in site["arrays"] if each["faults"]}
        label = None if site["objects"] else recorder.labels[number]
        source = linecache.getline(place.file, place.line).strip()
        empty = int(waits.empty[number]) if place.call == BARRIER else 0
        found.append(Site(place, source, label, values | times, arrays, empty))
    return found


def _locks(recorder: Recorder, locks: AnyArray) -> dict[int, dict[str, float]]:
    found = {}
    for number in np.flatnonzero(locks["acquires"]).tolist():
        lock, counted = locks[number], recorder.lock_stats.get(number, {})
        found[number] = {
            "acquires": int(lock["acquires"]),
            "local": counted.get("lock_acquires_local", 0),
            "waited_s": int(lock["waited_ns"]) / _SECOND,
            "held_s": int(lock["held_ns"]) / _SECOND,
        }
    return found


def _holds(holds: AnyArray, clock: Clock, most: int) -> AnyArray:
    found = np.zeros(min(len(holds), most), HOLD)
    part = holds[:most]
    found["lock"], found["site"] = part["lock"], part["site"]
    for name in ("asked", "acquired", "released"):
        found[name] = clock.aligned_s(part[f"{name}_ns"])
    found["released"][part["released_ns"] == 0] = np.inf
    return found


def _memory(moments: AnyArray, clock: Clock) -> AnyArray:
    kinds = [(name, float if name == "time_ns" else np.int64) for name in moments.dtype.names or ()]
    found = moments.astype(np.dtype(kinds))
    found["time_ns"] = clock.aligned_s(moments["time_ns"])
    return found


def _events(events: AnyArray, clock: Clock, most: int) -> AnyArray:
    if len(events) > most:
        lengths = events["end_ns"] - events["begin_ns"]
        events = events[np.sort(np.argpartition(-lengths, most)[:most])]
    found = np.zeros(len(events), EVENT)
    for name in ("bytes", "kind", "site", "object", "thread", "count", "pages", "peer"):
        found[name] = events[name]
    found["begin"], found["end"] = clock.aligned_s(events["begin_ns"]), clock.aligned_s(events["end_ns"])
    return found


def _lines(recorder: Recorder) -> list[tuple[str, int, str, str, float]]:
    most = sorted(recorder.lines.items(), key=lambda item: -item[1])[:LINES_MAX]
    return [
        (os.path.abspath(file), line, function, linecache.getline(file, line).strip(), seconds)
        for (file, line, function), seconds in most
    ]


def _array(recorder: Recorder, array: Watched, clock: Clock, alone: bool) -> ArrayPart:
    layout = array.layout
    kind = dtype_of(recorder.runtime.ffi, recorder.runtime.ffi.typeof("struct dsm_profile_page"))
    pages = np.frombuffer(array.counts, kind)
    number, _ = bins.bins_of(layout.shape, layout.order, array.pages)

    def strip(name: str) -> bins.Runs:
        counts = pages[name]
        if not counts.any():
            return []
        return bins.runs_of(bins.binned(counts, number, layout.bytes, array.page_bytes))

    first_s = np.full(number, np.inf)
    if len(pages) and pages["first_written"].any():
        began = int(recorder.lib.dsm_profile().began_ns)
        ticks = pages["first_written"].astype(np.int64)
        times = np.where(ticks > 0, clock.aligned_s(began + (ticks - 1) * 100_000), np.inf)
        first_s = bins.binned(times, number, layout.bytes, array.page_bytes, np.min)
    return ArrayPart(
        region=array.region,
        label=array.label,
        named=layout.name is not None,
        shape=layout.shape,
        dtype=str(layout.dtype),
        itemsize=layout.dtype.itemsize,
        order=layout.order,
        bytes=layout.bytes,
        page_bytes=array.page_bytes,
        pages=array.pages,
        place=array.place,
        allocated_s=float(clock.aligned_s(array.allocated_ns)),
        freed_s=None if array.freed_ns is None else float(clock.aligned_s(array.freed_ns)),
        stats=array.stats,
        owners=array.owners,
        held_bytes=array.held_bytes,
        strips={name: strip(name) for name in ("written", "opened", "read", "fetched")},
        first_s=first_s,
        pages_written=int(np.count_nonzero(pages["written" if alone else "opened"])),
        pages_read=int(np.count_nonzero(pages["read"] | pages["fetched"])),
        contested=_contested(pages),
    )


def _contested(pages: AnyArray) -> AnyArray:
    numbers = np.flatnonzero(pages["contested"])
    if len(numbers) > CONTESTED_MAX:
        numbers = numbers[np.argsort(-pages["diff_bytes"][numbers].astype(np.int64))[:CONTESTED_MAX]]
    found = np.zeros(len(numbers), CONTESTED)
    found["page"] = numbers
    for name, source in (("phases", "contested"), ("diff_bytes", "diff_bytes"), ("common", "common_bytes")):
        found[name] = pages[source][numbers]
    found["rivals"] = pages["rivals"][numbers]
    return found


def _truncated(recorder: Recorder, shown: Any) -> list[str]:
    rank = recorder.runtime.rank
    found = []
    if shown.events_left:
        shortest_us = shown.shortest_ns / 1000
        found.append(f"rank {rank}: {shown.events_left} events shorter than {shortest_us:g} us are not in the timeline")
    if shown.meetings_left:
        found.append(f"rank {rank}: imbalance is not told for the last {shown.meetings_left} collective calls")
    if shown.holds_left:
        found.append(f"rank {rank}: the last {shown.holds_left} acquires are not in the hand-overs of locks")
    if shown.arrays_left or recorder.arrays_left:
        found.append(f"rank {rank}: the pages of {shown.arrays_left + recorder.arrays_left} arrays were not watched")
    return found
