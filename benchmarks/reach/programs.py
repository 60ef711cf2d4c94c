"""Small programs that one node per rank made slow: transpose, pipelined stencil, Floyd-Warshall, Jacobi with a set-up.

Transpose and stencil are those of the Parallel Research Kernels (Van der Wijngaart and Mattson, HPEC 2014).  All
versions have the same kernels, and each verifies its result.
"""

from __future__ import annotations

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks.app import kernel
from benchmarks.micro import kernels
from benchmarks.micro.bench import Bench
from benchmarks.micro.table import Case, Reach
from benchmarks.reach.rivals import Shared, cases

SQUARE = 32  # rows and columns that fit the cache
GROUP = 50  # rows of the stencil that are handed on together


@kernel
def add_transposed(source: np.ndarray, target: np.ndarray) -> None:
    """Add the transpose of `source` to `target`, in squares that fit the cache."""
    for i0 in range(0, target.shape[0], SQUARE):
        for j0 in range(0, target.shape[1], SQUARE):
            for i in range(i0, min(i0 + SQUARE, target.shape[0])):
                for j in range(j0, min(j0 + SQUARE, target.shape[1])):
                    target[i, j] += source[j, i]


@kernel
def add(a: np.ndarray, value: float) -> None:
    """Add a number to all of an array."""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            a[i, j] += value


def transpose(bench: Bench) -> list[Case]:
    """In each step B += A^T, then A += 1."""
    n, times = bench.size(2000, 64) // bench.ranks * bench.ranks, bench.size(10, 3)
    rows = dsm.split(n)
    height = rows.stop - rows.start
    blocks = [dsm.split(n, bench.ranks, rank) for rank in range(bench.ranks)]
    start = np.arange(rows.start * n, rows.stop * n, dtype=float).reshape(height, n)
    column = np.arange(n, dtype=float)[None, :]
    right = times * (column * n + np.arange(rows.start, rows.stop)[:, None]) + times * (times - 1) / 2

    def program(shared: Shared) -> float:
        a, b = shared.zeros((n, n)), shared.zeros((n, n))
        a[rows] = start
        shared.barrier()
        with bench.timed() as span:
            for _ in range(times):
                add_transposed(a[:, rows], b[rows])
                shared.barrier()
                add(a[rows], 1.0)
                shared.barrier()
        bench.check(np.array_equal(b[rows], right), "the transpose")
        return bench.slowest(span.seconds) * 1e3

    def by_alltoall() -> float:
        a, b = start.copy(), np.zeros_like(start)
        sent, received = np.zeros((2, bench.ranks, height, height))
        with bench.timed() as span:
            for _ in range(times):
                for rank, block in enumerate(blocks):
                    sent[rank] = a[:, block]
                bench.comm.Alltoall(sent, received)
                for rank, block in enumerate(blocks):
                    add_transposed(received[rank], b[:, block])
                add(a, 1.0)
        bench.check(np.array_equal(b, right), "Alltoall's transpose")
        return bench.slowest(span.seconds) * 1e3

    what = f"transpose {n} x {n}, {times} times"
    return cases(bench, "transpose", what, "ms", program, {"mpi4py, Alltoall": by_alltoall}, Reach("ratio", 1.0))


@kernel
def sweep(a: np.ndarray, left: np.ndarray, first: int, end: int) -> None:
    """Compute rows `first` to `end` of the stencil; `left` is the column before `a`, from row first - 1 on."""
    for i in range(first, end):
        before, above_before = left[i - first + 1], left[i - first]
        for j in range(a.shape[1]):
            above = a[i - 1, j]
            before = above + before - above_before
            a[i, j] = before
            above_before = above


def pipeline(bench: Bench) -> list[Case]:
    """Each point follows from those above and to the left; ranks have columns, and hand on groups of rows."""
    n, times = bench.size(2000, 100), bench.size(10, 3)
    rank, last = bench.rank, bench.ranks - 1
    columns = dsm.split(n)
    mine = slice(max(columns.start, 1), columns.stop)  # column 0 stays
    groups = [(max(first, 1), min(first + GROUP, n)) for first in range(0, n, GROUP)]
    right = np.arange(1, n)[:, None] + np.arange(mine.start, mine.stop) + (times - 1) * (2 * n - 2.0)

    def program(shared: Shared) -> float:
        a = shared.zeros((n, n))
        done = [[[shared.Event() for _ in groups] for _ in range(times)] for _ in range(bench.ranks)]
        a[0, columns] = np.arange(columns.start, columns.stop)
        if rank == 0:
            a[:, 0] = np.arange(n)
        shared.barrier()
        with bench.timed() as span:
            for step in range(times):
                if rank == 0 and step:
                    done[last][step - 1][-1].wait()
                    a[0, 0] = -a[-1, -1]
                for k, (first, end) in enumerate(groups):
                    if rank:
                        done[rank - 1][step][k].wait()
                    sweep(a[:, mine], a[first - 1 : end, mine.start - 1], first, end)
                    done[rank][step][k].set()
            shared.barrier()
        bench.check(np.array_equal(a[1:, mine], right), "the stencil")
        shared.barrier()
        return bench.slowest(span.seconds) * 1e3

    def by_messages() -> float:
        own = np.zeros((n, mine.stop - mine.start + 1))  # with the column before
        own[0] = np.arange(mine.start - 1, mine.stop)
        if rank == 0:
            own[:, 0] = np.arange(n)
        edge, corner = np.zeros(GROUP), np.zeros(1)
        with bench.timed() as span:
            for step in range(times):
                if rank == 0 and step:
                    if last:
                        bench.comm.Recv(corner, last)
                    own[0, 0] = -(corner[0] if last else own[-1, -1])
                for first, end in groups:
                    if rank:
                        bench.comm.Recv(edge[: end - first], rank - 1)
                        own[first:end, 0] = edge[: end - first]
                    sweep(own[:, 1:], own[first - 1 : end, 0], first, end)
                    if rank < last:
                        bench.comm.Send(own[first:end, -1].copy(), rank + 1)
                if rank == last > 0 and step + 1 < times:
                    bench.comm.Send(own[-1, -1:], 0)
            bench.comm.Barrier()
        bench.check(np.array_equal(own[1:, 1:], right), "the stencil by messages")
        return bench.slowest(span.seconds) * 1e3

    what = f"pipelined stencil {n} x {n}, {GROUP} rows at a time, {times} times"
    return cases(bench, "pipeline", what, "ms", program, {"mpi4py, Send/Recv": by_messages}, Reach("ratio", 1.0))


@kernel
def relax(rows: np.ndarray, via: np.ndarray, k: int) -> None:
    """Shorten the ways of some rows by those over node `k`, whose row is `via`."""
    for i in range(rows.shape[0]):
        to_k = rows[i, k]
        for j in range(rows.shape[1]):
            if to_k + via[j] < rows[i, j]:
                rows[i, j] = to_k + via[j]


def paths(bench: Bench) -> list[Case]:
    """Floyd-Warshall: all shortest paths; in each step all read one row."""
    n = bench.size(1000, 64)
    rows = dsm.split(n)
    owners = [owner for owner in range(bench.ranks) for _ in range(*dsm.split(n, bench.ranks, owner).indices(n))]
    start = np.random.default_rng(1).random((n, n))
    np.fill_diagonal(start, 0)
    right = start.copy()
    for k in range(n):
        relax(right, right[k].copy(), k)

    def program(shared: Shared) -> float:
        distance = shared.zeros((n, n))
        distance[rows] = start[rows]
        shared.barrier()
        with bench.timed() as span:
            for k in range(n):
                relax(distance[rows], distance[k].copy(), k)  # the kernel is fast where its arrays do not overlap
                shared.barrier()
        bench.check(np.array_equal(distance[rows], right[rows]), "the shortest paths")
        return bench.slowest(span.seconds) * 1e3

    def by_bcast() -> float:
        distance, via = start[rows].copy(), np.empty(n)
        with bench.timed() as span:
            for k in range(n):
                if owners[k] == bench.rank:
                    via[:] = distance[k - rows.start]
                bench.comm.Bcast(via, owners[k])
                relax(distance, via, k)
            bench.comm.Barrier()
        bench.check(np.array_equal(distance, right[rows]), "the shortest paths by Bcast")
        return bench.slowest(span.seconds) * 1e3

    what = f"Floyd-Warshall, {n} nodes"
    return cases(bench, "paths", what, "ms", program, {"mpi4py, Bcast": by_bcast}, Reach("ratio", 1.0))


def jacobi(bench: Bench) -> list[Case]:
    """From allocation on; rank 0 sets a column at the edge, of all ranks' rows."""
    n, steps = bench.size(2048, 64), bench.size(100, 6)
    rows = dsm.split(n)
    first, end = max(rows.start, 1), min(rows.stop, n - 1)
    up = bench.rank - 1 if bench.rank else MPI.PROC_NULL
    down = bench.rank + 1 if bench.rank + 1 < bench.ranks else MPI.PROC_NULL
    results: dict[str, np.ndarray] = {}

    def program(shared: Shared) -> float:
        with bench.timed() as span:
            a, b = shared.zeros((n, n)), shared.zeros((n, n))
            if bench.rank == 0:
                a[:, 0] = b[:, 0] = 1.0
            shared.barrier()
            for _ in range(steps):
                kernels.jacobi(a, b, first, end)
                shared.barrier()
                a, b = b, a
        results["shared"] = a[rows].copy()
        bench.check(np.array_equal(results["shared"], results.get("mpi", results["shared"])), "Jacobi")
        return bench.slowest(span.seconds) * 1e3

    def by_sendrecv() -> float:
        with bench.timed() as span:
            a, b = (np.zeros((rows.stop - rows.start + 2, n)) for _ in range(2))  # a row more above and below
            a[:, 0] = b[:, 0] = 1.0
            for _ in range(steps):
                bench.comm.Sendrecv(a[1], up, recvbuf=a[-1], source=down)
                bench.comm.Sendrecv(a[-2], down, recvbuf=a[0], source=up)
                kernels.jacobi(a, b, first - rows.start + 1, end - rows.start + 1)
                a, b = b, a
        results["mpi"] = a[1:-1].copy()
        bench.check(np.array_equal(results["mpi"], results.get("shared", results["mpi"])), "Jacobi by messages")
        return bench.slowest(span.seconds) * 1e3

    what = f"Jacobi {n} x {n}, {steps} steps, from allocation on"
    return cases(bench, "jacobi", what, "ms", program, {"mpi4py, Sendrecv": by_sendrecv}, Reach("ratio", 1.05))


ROWS = {"transpose": transpose, "pipeline": pipeline, "paths": paths, "jacobi": jacobi}
