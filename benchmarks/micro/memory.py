"""S16, S17: memory beside the data, as the kernel and dsm itself count it; and what a bound of it costs."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np

import dsm
from benchmarks.micro import kernels
from benchmarks.micro.bench import PAGE, Bench, word_of
from benchmarks.micro.table import Case, Reach


def used_bytes() -> int:
    """Memory of this process that grows with shared data: what is behind its memfds, and anonymous memory.

    A page of a memfd counts once, although dsm has mapped it twice, and also when it is mapped nowhere.
    """
    behind = 0
    for entry in os.scandir("/proc/self/fd"):
        try:
            if os.readlink(entry.path).startswith("/memfd:"):
                behind += os.stat(entry.path).st_blocks * 512
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    anonymous = re.search(r"^Anonymous:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.M)
    return behind + int(anonymous[1]) * 1024


def memory(bench: Bench) -> list[Case]:
    """S16: data written by one rank only; and data that it took over from rank 0, after a collection."""
    own_bytes = bench.size(96 << 20, 1 << 20)
    shape = (bench.ranks, own_bytes // 8)
    kernels.fill(bench.fresh(1), 0)  # compiled before anything is counted
    dsm.barrier()
    before, tables_before = used_bytes(), dsm.stats()["memory_bytes"]
    with bench.arrays() as make:
        a = make(shape, page_size=PAGE)
        for k in range(3):
            kernels.fill(a[bench.rank], k)
            dsm.barrier()
        alone = bench.slowest((used_bytes() - before) / own_bytes)
        tables = bench.slowest(dsm.stats()["memory_bytes"] - tables_before) / (a.nbytes / PAGE)

    # Still beside what there was at first: memory that was kept and is used again is no growth, the rest is.
    collections = dsm.stats()["collections"]
    with bench.arrays() as make:
        a = make(shape, page_size=PAGE)
        if bench.rank == 0:
            kernels.fill(a.reshape(-1), word_of(0))
        dsm.barrier()
        kernels.fill(a[bench.rank], word_of(1))
        collected = False
        for _ in range(bench.size(50, 3)):
            dsm.barrier()
            time.sleep(0.02)
            # Looked at by all alike: a barrier needs everybody.
            collected = bench.comm.allreduce(dsm.stats()["collections"]) > collections * bench.ranks
            if collected:
                break
        dsm.barrier()
        # Rank 0 keeps the pages that it wrote for the others, so it is not the one to look at.
        taken_over = bench.slowest((used_bytes() - before) / own_bytes if bench.rank or bench.ranks == 1 else 0)
    megabytes = f"{own_bytes >> 20} MiB a rank"
    note = "" if collected else "no collection came"
    return [
        Case("S16", f"memory over data, written by its owner, {megabytes}", "x", [alone], {}, Reach("value", 1.1)),
        Case(
            "S16",
            f"memory over data, taken over from rank 0, after a collection, {megabytes}",
            "x",
            [taken_over],
            {},
            Reach("value", 1.1),
            note,
        ),
        Case("S16", "protocol memory per page of the array", "B", [tables], {}, Reach("value", 64)),
    ]


def bounded(bench: Bench) -> list[Case]:
    """S17: a read of four times what may be cached, in order, of arrays that were never read."""
    looks, bound_bytes = 64, bench.size(16 << 20, 1 << 20)
    words = 4 * bound_bytes // 8
    most = 0

    def read(a: np.ndarray) -> float:
        nonlocal most
        found = 0
        if bench.rank == 1:
            kernels.fill(a, 1)
        with bench.timed() as span:
            dsm.barrier()
            for k in range(looks if bench.rank == 0 else 0):
                found += kernels.total(a[k * words // looks : (k + 1) * words // looks])
                most = max(most, dsm.stats()["cached_bytes"])
            span.stop()
            dsm.barrier()
        bench.check(bench.rank != 0 or found == words, "the sum of what was fetched")
        return words * 8 / span.seconds / 1e9

    with bench.arrays() as make:
        arrays = iter([make(words, page_size=PAGE) for _ in range(bench.rounds + 1)])
        rates = bench.in_turns(dsm=lambda: read(next(arrays)))["dsm"]
    what = f"first read of {words * 8 >> 20} MiB, of which {bound_bytes >> 20} MiB may be cached"
    over = [bench.slowest(most / bound_bytes)]
    return [
        Case("S17", what, "GB/s", rates, counters=bench.counters["dsm"]),
        Case("S17", "cached at most, over the bound", "x", over, {}, Reach("value", 1.1)),
    ]


ROWS = {"S16": memory, "S17": bounded}
