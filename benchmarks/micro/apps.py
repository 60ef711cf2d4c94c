"""S13, S14: two small programs, written as one writes them with dsm and with mpi4py, around the same kernels."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks.micro import kernels
from benchmarks.micro.bench import Bench
from benchmarks.micro.table import NOT_MEASURED, Case, Reach


class Jacobi:
    """S13's problem: the four ways to solve it leave their block of the result in `results`."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.comm = bench, bench.comm
        self.n, self.steps = bench.size(2048, 64), bench.size(100, 6)
        self.rows = dsm.split(self.n)
        self.first, self.end = max(self.rows.start, 1), min(self.rows.stop, self.n - 1)
        # Random, so that all of a row changes in each step: dsm would not send what stays zero, and MPI does.
        self.start = np.random.default_rng(1).random((self.n, self.n))
        self.start[0], self.start[:, 0] = 1.0, 0.5
        self.up = bench.rank - 1 if bench.rank else MPI.PROC_NULL
        self.down = bench.rank + 1 if bench.rank + 1 < bench.ranks else MPI.PROC_NULL
        self.results: dict[str, np.ndarray] = {}

    def _in_place(self, name: str, a: np.ndarray, b: np.ndarray, barrier: Callable[[], None]) -> float:
        """Solve on memory that all ranks share: dsm's, or a file's."""
        for grid in (a, b):
            grid[self.rows] = self.start[self.rows]
        barrier()
        with self.bench.timed() as span:
            for _ in range(self.steps):
                kernels.jacobi(a, b, self.first, self.end)
                barrier()
                a, b = b, a
        self.results[name] = a[self.rows].copy()
        barrier()
        return self.bench.slowest(span.seconds) * 1e3

    def by_dsm(self, a: np.ndarray, b: np.ndarray) -> float:
        """Solve on shared arrays."""
        return self._in_place("dsm", a, b, dsm.barrier)

    def by_file(self, shared: np.ndarray) -> float:
        """Solve on a file that all ranks have mapped."""
        return self._in_place("file", shared[0], shared[1], self.comm.Barrier)

    def steady(self, a: np.ndarray, b: np.ndarray) -> dict[str, int]:
        """What all ranks' statistics grow by in the second half of the steps.  Collective."""
        for grid in (a, b):
            grid[self.rows] = self.start[self.rows]
        dsm.barrier()
        before: dict[str, int] = {}
        for step in range(self.steps):
            if step == self.steps // 2:
                self.comm.Barrier()
                before = dict(dsm.stats())
                self.comm.Barrier()
            kernels.jacobi(a, b, self.first, self.end)
            dsm.barrier()
            a, b = b, a
        after = dict(dsm.stats())
        return self.bench.summed({name: after[name] - before[name] for name in after})

    def _blocks(self) -> tuple[np.ndarray, np.ndarray, int, int]:
        """Make this rank's rows with one more above and below, twice, and say which of them change."""
        height = self.rows.stop - self.rows.start
        old = np.zeros((height + 2, self.n))
        old[1:-1] = self.start[self.rows]
        return old, old.copy(), self.first - self.rows.start + 1, self.end - self.rows.start + 1

    def by_sendrecv(self) -> float:
        """Exchange the rows at the edges, then compute."""
        old, new, first, end = self._blocks()
        comm, up, down = self.comm, self.up, self.down
        with self.bench.timed() as span:
            for _ in range(self.steps):
                comm.Sendrecv(old[1], up, recvbuf=old[-1], source=down)
                comm.Sendrecv(old[-2], down, recvbuf=old[0], source=up)
                kernels.jacobi(old, new, first, end)
                old, new = new, old
        self.results["Sendrecv"] = old[1:-1]
        return self.bench.slowest(span.seconds) * 1e3

    def by_persistent(self) -> float:
        """Compute the inner rows while the ones at the edges travel, by persistent requests."""
        old, new, first, end = self._blocks()
        comm, up, down = self.comm, self.up, self.down
        old_requests, new_requests = (
            [
                comm.Recv_init(grid[0], up),
                comm.Recv_init(grid[-1], down),
                comm.Send_init(grid[1], up),
                comm.Send_init(grid[-2], down),
            ]
            for grid in (old, new)
        )
        inner, inner_end = max(first, 2), min(end, old.shape[0] - 2)
        with self.bench.timed() as span:
            for _ in range(self.steps):
                MPI.Prequest.Startall(old_requests)
                kernels.jacobi(old, new, inner, inner_end)
                MPI.Prequest.Waitall(old_requests)
                kernels.jacobi(old, new, first, inner)
                kernels.jacobi(old, new, inner_end, end)
                old, new, old_requests, new_requests = new, old, new_requests, old_requests
        for request in old_requests + new_requests:
            request.Free()
        self.results["persistent"] = old[1:-1]
        return self.bench.slowest(span.seconds) * 1e3


def one_file(bench: Bench, items: int) -> np.ndarray | None:
    """Map a file in memory on all ranks; None when they are on several hosts.  Collective."""
    here = bench.comm.Split_type(MPI.COMM_TYPE_SHARED)
    one_host = here.size == bench.ranks
    here.Free()
    if not one_host:
        return None
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    path = ""
    if bench.rank == 0:
        handle, path = tempfile.mkstemp(prefix="dsm-benchmark-", dir=folder)
        os.ftruncate(handle, items * 8)
        os.close(handle)
    path = bench.comm.bcast(path)
    mapped = np.memmap(path, np.float64, "r+", shape=(items,)).view(np.ndarray)
    bench.comm.Barrier()
    if bench.rank == 0:
        os.unlink(path)
    return mapped


def jacobi(bench: Bench) -> list[Case]:
    """S13: no hints; the block of each rank is first written by that rank, as the loop itself does."""
    problem = Jacobi(bench)
    n = problem.n
    file = one_file(bench, 2 * n * n)
    with bench.arrays() as make:
        a, b = make((n, n), float), make((n, n), float)
        measures = {
            "dsm": lambda: problem.by_dsm(a, b),
            "Sendrecv": problem.by_sendrecv,
            "persistent": problem.by_persistent,
        }
        if file is not None:
            measures["file"] = lambda: problem.by_file(file.reshape(2, n, n))
        samples = bench.in_turns(**measures)
        steady = problem.steady(a, b)
    for name, result in problem.results.items():
        bench.check(np.array_equal(result, problem.results["Sendrecv"]), f"{name} against Sendrecv")

    what = f"Jacobi {n} x {n}, {problem.steps} steps"
    rivals = {"mpi4py, Sendrecv": samples["Sendrecv"], "mpi4py, persistent": samples["persistent"]}
    measured, counters = samples["dsm"], bench.counters["dsm"]
    floor = Case("S13", f"{what}: the floor", "ms", measured, reach=Reach("ratio", 1.03))
    if file is None:
        floor.measured, floor.verdict_given, floor.note = [], NOT_MEASURED, "several hosts"
    else:
        floor.rivals = {"a mapped file and comm.Barrier": samples["file"]}
    counted = problem.steps - problem.steps // 2
    faults = (steady.get("faults_read", 0) + steady.get("faults_write", 0)) / counted
    messages = steady.get("messages_sent", 0) / counted
    halos = 2.0 * (bench.ranks - 1)
    collected = f"{steady['collections']} collections in them" if "collections" in steady else ""
    return [
        Case("S13", what, "ms", measured, rivals, Reach("ratio", 1.05), counters=counters),
        floor,
        Case(
            "S13", f"{what}: faults, all ranks", "per step", [faults], {}, Reach("value", 0), collected, counters=steady
        ),
        Case(
            "S13",
            f"{what}: messages, all ranks",
            "per step",
            [messages],
            {"rows at the edges": [halos]} if halos else {},
            Reach("ratio", 2),
        ),
    ]


def transpose(bench: Bench) -> list[Case]:
    """S14: every rank needs a part of every other's block."""
    n, times = bench.size(4096, 64) // bench.ranks * bench.ranks, 10
    height = n // bench.ranks
    rows = dsm.split(n)
    blocks = [dsm.split(n, bench.ranks, rank) for rank in range(bench.ranks)]
    start = np.arange(rows.start * n, rows.stop * n, dtype=float).reshape(height, n)
    sent, received = np.ones((2, bench.ranks, height, height))
    others = [rank for rank in range(bench.ranks) if rank != bench.rank]

    def by_dsm(a: np.ndarray, b: np.ndarray) -> float:
        a[rows] = start
        dsm.barrier()
        with bench.timed() as span:
            for _ in range(times):
                kernels.transpose(a[:, rows], b[rows])
                dsm.barrier()
                a, b = b, a
        bench.check(np.array_equal(a[rows], start + times), "dsm's transpose")
        dsm.barrier()
        return bench.slowest(span.seconds) * 1e3

    def by_alltoall() -> float:
        old, new = start.copy(), np.ones_like(start)
        with bench.timed() as span:
            for _ in range(times):
                for rank, block in enumerate(blocks):
                    kernels.transpose(old[:, block], sent[rank])
                bench.comm.Alltoall(sent, received)
                for rank, block in enumerate(blocks):
                    new[:, block] = received[rank]
                old, new = new, old
        bench.check(np.array_equal(old, start + times), "Alltoall's transpose")
        return bench.slowest(span.seconds) * 1e3

    def by_requests() -> float:
        """Send each block when it is packed; the own one needs no packing."""
        old, new = start.copy(), np.ones_like(start)
        with bench.timed() as span:
            for _ in range(times):
                arriving = [bench.comm.Irecv(received[rank], rank) for rank in others]
                leaving = []
                for rank in others:
                    kernels.transpose(old[:, blocks[rank]], sent[rank])
                    leaving.append(bench.comm.Isend(sent[rank], rank))
                kernels.transpose(old[:, rows], new[:, rows])
                for rank, request in zip(others, arriving, strict=True):
                    request.Wait()
                    new[:, blocks[rank]] = received[rank]
                MPI.Request.Waitall(leaving)
                old, new = new, old
        bench.check(np.array_equal(old, start + times), "the transpose by requests")
        return bench.slowest(span.seconds) * 1e3

    with bench.arrays() as make:
        a, b = make((n, n), float), make((n, n), float)
        samples = bench.in_turns(dsm=lambda: by_dsm(a, b), alltoall=by_alltoall, requests=by_requests)
    rivals = {"Alltoall, packed": samples["alltoall"], "Isend/Irecv, packed": samples["requests"]}
    what = f"transpose of {n} x {n} float64, {times} times"
    return [Case("S14", what, "ms", samples["dsm"], rivals, Reach("ratio", 1.2), counters=bench.counters["dsm"])]


ROWS = {"S13": jacobi, "S14": transpose}
