"""What hosts as nodes are to reach on one host: memory, first writes, barriers, locks, and no fault and no message."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

import dsm
from benchmarks.app import free_others, regions
from benchmarks.micro import kernels
from benchmarks.micro.bench import Bench, NotMeasuredError, word_of
from benchmarks.micro.sync import in_strict_turns
from benchmarks.micro.table import Case, Reach
from benchmarks.reach.rivals import Shared, cases, over

MIB = 1 << 20
THREADS = 4


def proportional_bytes() -> int:
    """Memory of this process, what it shares with others by its proportional share (PSS).  Sums of it count once."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.M)
    assert found
    return int(found[1]) << 10


def memory(bench: Bench) -> list[Case]:
    """All ranks read a table that rank 0 has filled."""
    table_bytes = bench.size(256 * MIB, MIB)
    items, before = 1, 0.0

    def used() -> float:
        bench.comm.Barrier()  # all have what they read
        found = float(bench.comm.allreduce(proportional_bytes()))
        bench.comm.Barrier()
        return found

    def read(table: np.ndarray) -> float:
        bench.check((kernels.total(table) - items * word_of(0)) % 2**64 == 0, "the table")
        return used() - before

    def program(shared: Shared) -> float:
        table = shared.zeros(items, np.int64)
        if bench.rank == 0:
            kernels.fill(table, word_of(0))
        shared.barrier()
        return read(table)

    def by_bcast() -> float:
        table = np.empty(items, np.int64)
        if bench.rank == 0:
            kernels.fill(table, word_of(0))
        bench.comm.Bcast(table)
        return read(table)

    def after(measure: Callable[[], float]) -> Callable[[], float]:
        """Count from here on: dsm keeps memory for its next array, which is none of a rival's."""

        def counted() -> float:
            nonlocal before
            before = used()
            return measure()

        return counted

    measures = over(bench, program)
    measures["dsm"]()  # what it needs but for the table is there then
    items, before = table_bytes // 8, used()
    samples = bench.in_turns(dsm=measures.pop("dsm"))
    samples |= bench.in_turns(**{name: after(measure) for name, measure in measures.items()}, bcast=after(by_bcast))
    names = {"bcast": "mpi4py, Bcast", "floor": "the floor"}
    what = f"host memory of {bench.ranks} ranks that read a table of {table_bytes // MIB} MiB"

    def case(more: str, unit: str, scale: Callable[[float], float], reach: float) -> Case:
        scaled = {name: [scale(bytes_) for bytes_ in values] for name, values in samples.items()}
        rivals = {names[name]: values for name, values in scaled.items() if name in names}
        return Case("memory", f"{what}{more}", unit, scaled["dsm"], rivals, Reach("value", reach))

    return [
        case(", over the table", "x", lambda bytes_: bytes_ / table_bytes, 1.05),
        case(", beyond the table", "MiB a rank", lambda bytes_: max(0, bytes_ - table_bytes) / MIB / bench.ranks, 4),
    ]


def first_write(bench: Bench) -> list[Case]:
    """Each rank writes memory of its own that nobody has touched."""
    bytes_ = bench.size(64 * MIB, MIB)
    kernels.fill(np.zeros(1, np.int64), 0)
    turns = itertools.count()

    def write(own: np.ndarray) -> float:
        word = word_of(next(turns))
        with bench.timed() as span:
            kernels.fill(own, word)
        bench.check((own == word).all(), "what was written")
        return bench.slowest(span.seconds) * 1e3

    def by_dsm() -> float:
        kept = regions()
        a = dsm.zeros((bench.ranks, bytes_ // 8), np.int64)
        took = write(a[bench.rank])
        del a
        free_others(kept)
        return took

    samples = bench.in_turns(dsm=by_dsm, zeros=lambda: write(np.zeros(bytes_ // 8, np.int64)))
    what = f"first write of {bytes_ // MIB} MiB by each rank"
    rivals = {"np.zeros": samples["zeros"]}
    counters = bench.counters["dsm"]
    return [Case("first-write", what, "ms", samples["dsm"], rivals, Reach("ratio", 1.2), counters=counters)]


def barrier(bench: Bench) -> list[Case]:
    """Nothing is dirty."""
    times = bench.size(1000, 10)

    return cases(
        bench,
        "barrier",
        "barrier",
        "us",
        lambda shared: bench.each_us(shared.barrier, times),
        {"comm.Barrier": lambda: bench.each_us(bench.comm.Barrier, times)},
        Reach("ratio", 1.0),
    )


def lock(bench: Bench) -> list[Case]:
    """Ranks 0 and 1 count in turns, and try again when it is not their turn.  By MPI the value goes to and fro."""
    times = bench.size(200, 5)

    def program(shared: Shared) -> float:
        cell, turns = shared.zeros(1, np.int64), shared.Lock()
        shared.barrier()

        def write(count: int) -> None:
            cell[0] = count

        with bench.timed() as span:
            if bench.rank < 2:
                in_strict_turns(bench.rank, times, turns.acquire, turns.release, lambda: int(cell[0]), write)
            span.stop()
            shared.barrier()
        bench.check(cell[0] == 2 * times, "the counter")
        return bench.slowest(span.seconds if bench.rank < 2 else 0) / (2 * times) * 1e6

    def by_messages() -> float:
        cell = np.zeros(1, np.int64)
        with bench.timed() as span:
            for _ in range(times if bench.rank < 2 else 0):
                if bench.rank == 0:
                    cell[0] += 1
                    bench.comm.Send(cell, 1)
                    bench.comm.Recv(cell, 1)
                else:
                    bench.comm.Recv(cell, 0)
                    cell[0] += 1
                    bench.comm.Send(cell, 0)
        bench.check(bench.rank > 1 or cell[0] == 2 * times, "the counter by messages")
        return bench.slowest(span.seconds if bench.rank < 2 else 0) / (2 * times) * 1e6

    if bench.ranks < 2:
        raise NotMeasuredError("two ranks hand the lock over")
    what = "lock hand-over, two ranks in turns with a value, a turn"
    return cases(bench, "lock", what, "us", program, {"mpi4py, Send/Recv": by_messages}, Reach("value", 1.0))


def threads(bench: Bench) -> list[Case]:
    """All threads of all ranks count under one lock."""
    times = bench.size(400, 10)

    def count(shared: Shared, each: int) -> float:
        """Let some threads of each rank count: microseconds a turn."""
        cell, turns = shared.zeros(1, np.int64), shared.Lock()
        shared.barrier()

        def work() -> None:
            for _ in range(times):
                with turns:
                    cell[0] += 1

        workers = [threading.Thread(target=work) for _ in range(each)]
        with bench.timed() as span:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            shared.barrier()
        bench.check(cell[0] == bench.ranks * each * times, "the counter of all threads")
        return bench.slowest(span.seconds) / (bench.ranks * each * times) * 1e6

    many = over(bench, lambda shared: count(shared, THREADS))
    one = over(bench, lambda shared: count(shared, 1))
    samples = bench.in_turns(**many, **{f"one {name}": measure for name, measure in one.items()})
    what = f"a turn under one lock, {THREADS} threads in each of {bench.ranks} ranks"
    counters = bench.counters.get("dsm", {})
    made = [Case("threads", what, "us", samples["dsm"], {"one thread in each": samples["one dsm"]}, counters=counters)]
    if "floor" in samples:
        rivals = {"the same over shared memory": samples["floor"]}
        made.append(Case("threads", f"{what}: the floor", "us", samples["dsm"], rivals))
        rivals = {"one thread in each": samples["one floor"]}
        made.append(Case("threads", f"{what}, on the floor", "us", samples["floor"], rivals))
    return made


def silence(bench: Bench) -> list[Case]:
    """Ranks write blocks, read all of them, and count under a lock, in steps, of which the second half is counted."""
    items, steps = bench.size(1 << 16, 1 << 10), bench.size(60, 8)

    def program(shared: Shared) -> float:
        blocks, cell, turns = shared.zeros((bench.ranks, items), np.int64), shared.zeros(1, np.int64), shared.Lock()
        for half in range(2):
            with bench.timed():
                for step in range(half * steps, (half + 1) * steps):
                    kernels.fill(blocks[bench.rank], step)
                    shared.barrier()
                    bench.check(blocks[:, :: items // 8].sum() == step * 8 * bench.ranks, "the blocks")
                    with turns:
                        cell[0] += 1
                    shared.barrier()
        bench.check(cell[0] == 2 * steps * bench.ranks, "the counter")
        return 0.0

    bench.in_turns(dsm=over(bench, program)["dsm"])
    counters = bench.counters["dsm"]
    faults = counters.get("faults_read", 0) + counters.get("faults_write", 0)
    return [
        Case("silence", f"{what} of all ranks after the first touch, a step", "", [n / steps], {}, Reach("value", 0))
        for what, n in (("faults", faults), ("messages", counters.get("messages_sent", 0)))
    ]


ROWS = {
    "memory": memory,
    "first-write": first_write,
    "barrier": barrier,
    "lock": lock,
    "threads": threads,
    "silence": silence,
}
