"""S8 to S11: barriers and locks."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

import numpy as np
from mpi4py import MPI
from mpi4py.util.sync import Mutex

import dsm
from benchmarks.micro.bench import PAGE, Bench
from benchmarks.micro.table import Case, Reach

WORDS = PAGE // 8


def clean_barrier(bench: Bench) -> list[Case]:
    """S8: nothing is dirty, nothing is fetched."""
    times = bench.size(300, 10)

    samples = bench.in_turns(
        dsm=lambda: bench.each_us(dsm.barrier, times), mpi=lambda: bench.each_us(bench.comm.Barrier, times)
    )
    rivals = {"comm.Barrier": samples["mpi"]}
    reach = Reach("ratio", 1.2)
    return [Case("S8", "barrier, nothing dirty", "us", samples["dsm"], rivals, reach, counters=bench.counters["dsm"])]


def dirty_barrier(bench: Bench) -> list[Case]:
    """S9: rank 0 dirties pages that the others have read once, each page in one barrier only.

    A page that is read after every barrier would be sent ahead with it, which is another matter than the notices.
    """
    pages, repeats = bench.size(1024, 16), bench.size(3, 1)
    section = pages * WORDS

    def clean() -> float:
        took = []
        for _ in range(10 * repeats):
            with bench.timed() as span:
                dsm.barrier()
            took.append(bench.slowest(span.seconds))
        return statistics.median(took) * 1e6

    def dirty(a: np.ndarray, turns: itertools.count, step: int) -> float:
        took = []
        for turn in itertools.islice(turns, repeats):
            part = slice(turn * section, (turn + 1) * section)
            if bench.rank == 0:
                a[part] = 1
            dsm.barrier()
            bench.check(a[part].sum() == section, "pages before they are dirtied")
            dsm.barrier()
            if bench.rank == 0:
                a[part][::step] = 2
            with bench.timed() as span:
                dsm.barrier()
            took.append(bench.slowest(span.seconds))
            bench.check(a[part].sum() == section + section // step, "pages after they were dirtied")
        dsm.barrier()
        return statistics.median(took) * 1e6

    with bench.arrays() as make:
        one, half = (make((bench.rounds + 1) * repeats * section, page_size=PAGE) for _ in range(2))
        turns = {"one": itertools.count(), "half": itertools.count()}
        samples = bench.in_turns(
            one=lambda: dirty(one, turns["one"], WORDS), half=lambda: dirty(half, turns["half"], 2), clean=clean
        )
    rivals = {"dsm.barrier, nothing dirty": samples["clean"]}
    return [
        Case(
            "S9",
            f"barrier after {pages:,} pages dirtied, {what}",
            "us",
            samples[kind],
            rivals,
            Reach("excess", 100),
            counters=bench.counters[kind],
        )
        for kind, what in (("one", "a word of each"), ("half", "every other word"))
    ]


def in_strict_turns(rank: int, times: int, enter: Callable, leave: Callable, read: Callable, write: Callable) -> int:
    """Take a lock until it is this rank's turn to count, `times` times: how often it was taken."""
    taken, done = 0, False
    while not done:
        enter()
        taken += 1
        value = read()
        done = value >= 2 * times
        if not done and value % 2 == rank:
            write(value + 1)
        leave()
    return taken


def hand_over(bench: Bench) -> list[Case]:
    """S10: the counter is in shared memory under dsm's lock, and in a window under mpi4py's mutex."""
    bench.helper.need()
    times = bench.size(100, 5)
    lock = dsm.Lock()
    mutex = Mutex(comm=bench.comm)
    window = MPI.Win.Allocate(8 if bench.rank == 0 else 0, 8, comm=bench.comm)
    window.Lock_all()
    value = np.zeros(1, np.int64)

    def by_dsm(cell: np.ndarray) -> float:
        if bench.rank == 0:
            cell[0] = 0
        dsm.barrier()
        with bench.timed() as span:
            if bench.rank < 2:
                in_strict_turns(
                    bench.rank,
                    times,
                    lock.acquire,
                    lock.release,
                    lambda: int(cell[0]),
                    lambda count: cell.__setitem__(0, count),
                )
            span.stop()
            dsm.barrier()
        bench.check(cell[0] == 2 * times, "the counter under the lock")
        dsm.barrier()
        return bench.slowest(span.seconds if bench.rank < 2 else 0) / (2 * times) * 1e6

    def read() -> int:
        window.Get(value, 0)
        window.Flush(0)
        return int(value[0])

    def write(count: int) -> None:
        value[0] = count
        window.Put(value, 0)
        window.Flush(0)

    def by_mutex() -> float:
        if bench.rank == 0:
            write(0)
        with bench.timed() as span:
            if bench.rank < 2:
                in_strict_turns(bench.rank, times, mutex.acquire, mutex.release, read, write)
            span.stop()
            bench.comm.Barrier()
        bench.check(read() == 2 * times, "the counter under the mutex")
        return bench.slowest(span.seconds if bench.rank < 2 else 0) / (2 * times) * 1e6

    with bench.arrays() as make:
        cell = make(1)
        samples = bench.in_turns(
            dsm=lambda: by_dsm(cell),
            mutex=by_mutex,
            rtt=lambda: bench.helper.round_trip_us(8, 8, bench.size(200, 10)),
            fault=lambda: bench.helper.fault_us(bench.size(256, 16)),
        )
        longest = longest_wait(bench, lock, make(1 + bench.ranks * times), times)
    window.Unlock_all()
    window.Free()
    mutex.free()
    budget = [4 * rtt + 2 * fault for rtt, fault in zip(samples["rtt"], samples["fault"], strict=True)]
    what = "lock hand-over, two ranks in strict turns, a counter incremented"
    counters = bench.counters["dsm"]
    return [
        Case("S10", what, "us", samples["dsm"], {"4 RTT of 8 B + 2 faults": budget}, Reach("ratio", 1), "", counters),
        Case("S10", what, "us", samples["dsm"], {"mpi4py.util.sync.Mutex": samples["mutex"]}),
        Case(
            "S10",
            f"all {bench.ranks} ranks want the lock and hold it 0.2 ms: longest wait",
            "turns",
            [longest],
            reach=Reach("value", bench.ranks),
        ),
    ]


def longest_wait(bench: Bench, lock: dsm.Lock, log: np.ndarray, times: int) -> float:
    """Count the most turns that others had between two of one rank; a request travels in less time than a turn."""
    dsm.barrier()
    for _ in range(times):
        with lock:
            log[0] += 1
            log[log[0]] = bench.rank
            bench.helper.spin(2e-4)
    dsm.barrier()
    bench.check(log[0] == bench.ranks * times, "the number of turns")
    gaps = [np.diff(np.flatnonzero(log[1:] == rank)) - 1 for rank in range(bench.ranks)]
    return float(max(gap.max() for gap in gaps))


def take_again(bench: Bench) -> list[Case]:
    """S11: the token rests here; called from C, and beside it through Python's `with`."""
    bench.helper.need()
    times = bench.size(20000, 100)
    lock = dsm.Lock()

    def from_c() -> float:
        took = 0.0
        with bench.timed():
            if bench.rank == 0:
                took = bench.helper.lock_again_us(lock, times)
            dsm.barrier()
        return took

    def from_python() -> float:
        took = 0.0
        if bench.rank == 0:
            start = time.perf_counter()
            for _ in range(times):
                with lock:
                    pass
            took = (time.perf_counter() - start) / times * 1e6
        dsm.barrier()
        return took

    samples = bench.in_turns(c=from_c, python=from_python)
    counted = bench.counters["c"]
    with_message = counted["lock_acquires"] - counted["lock_acquires_local"]
    what = "lock re-acquired by the same rank"
    return [
        Case("S11", f"{what}, in C", "us", samples["c"], reach=Reach("value", 1), counters=counted),
        Case("S11", f"{what}: with a message", "", [float(with_message)], reach=Reach("value", 0)),
        Case("S11", f"{what}, through `with`", "us", samples["python"]),
    ]


ROWS = {"S8": clean_barrier, "S9": dirty_barrier, "S10": hand_over, "S11": take_again}
