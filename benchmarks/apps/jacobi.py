"""Jacobi: each inner point of a grid becomes the mean of its four neighbours, from one grid into another.

The grid starts with random numbers, so that all of a row changes in each step: dsm would not send what stays, and MPI
does.  The result is bit-identical to the serial one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks.app import App, Result, Team, kernel, verify_grid


class Size(NamedTuple):
    """Rows and columns of the grid, and steps."""

    n: int
    steps: int


class Problem(NamedTuple):
    """The grid at first, shape (n, n), and the number of steps."""

    start: np.ndarray
    steps: int


@kernel
def step(old: np.ndarray, new: np.ndarray, first: int, end: int) -> None:
    """Make rows `first` to `end` of `new` the mean of the neighbours in `old`; the outer columns stay."""
    for i in range(first, end):
        for j in range(1, old.shape[1] - 1):
            new[i, j] = 0.25 * (old[i - 1, j] + old[i + 1, j] + old[i, j - 1] + old[i, j + 1])


def make(size: Size) -> Problem:
    """Draw the grid."""
    return Problem(np.random.default_rng(1).random((size.n, size.n)), size.steps)


def serial(problem: Problem, team: Team) -> Result:
    """Solve alone."""
    old, new = problem.start.copy(), problem.start.copy()
    with team.timed():
        for _ in range(problem.steps):
            step(old, new, 1, len(old) - 1)
            old, new = new, old
    return {"grid": old}


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """Compute the inner rows while the rows at the edges travel."""
    comm, n = team.comm, len(problem.start)
    rows = dsm.split(n, team.size, team.rank)
    up = team.rank - 1 if team.rank else MPI.PROC_NULL
    down = team.rank + 1 if team.rank + 1 < team.size else MPI.PROC_NULL
    old = np.zeros((rows.stop - rows.start + 2, n))  # a row more above and below
    old[1:-1] = problem.start[rows]
    new = old.copy()
    first, end = max(rows.start, 1) - rows.start + 1, min(rows.stop, n - 1) - rows.start + 1
    inner, inner_end = max(first, 2), min(end, len(old) - 2)
    old_requests, new_requests = (
        [comm.Recv_init(a[0], up), comm.Recv_init(a[-1], down), comm.Send_init(a[1], up), comm.Send_init(a[-2], down)]
        for a in (old, new)
    )
    with team.timed():
        for _ in range(problem.steps):
            for request in old_requests:
                request.Start()
            step(old, new, inner, inner_end)
            MPI.Request.Waitall(old_requests)
            step(old, new, first, min(inner, end))
            step(old, new, max(inner_end, inner), end)
            old, new, old_requests, new_requests = new, old, new_requests, old_requests
    for request in old_requests + new_requests:
        request.Free()
    heights = [n * (part.stop - part.start) for part in (dsm.split(n, team.size, rank) for rank in range(team.size))]
    grid = np.empty((n, n)) if team.rank == 0 else None
    comm.Gatherv(old[1:-1], [grid, heights])
    return {"grid": grid}


def by_dsm(problem: Problem, team: Team) -> Result:
    """The serial program on this rank's rows, with a barrier after each step."""
    n = len(problem.start)
    rows = dsm.split(n)
    old, new = dsm.zeros((n, n)), dsm.zeros((n, n))
    for grid in (old, new):
        grid[rows] = problem.start[rows]
    dsm.barrier()
    with team.timed():
        for _ in range(problem.steps):
            step(old, new, max(rows.start, 1), min(rows.stop, n - 1))
            dsm.barrier()
            old, new = new, old
    return {"grid": old}


APPS = (
    App(
        name="jacobi",
        title="Jacobi on two grids",
        pattern="rows of neighbours, barrier",
        sizes={"tiny": Size(64, 6), "small": Size(1024, 60), "paper": Size(2048, 100), "large": Size(4096, 200)},
        make=make,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=by_dsm,
        verify=verify_grid,
        memory=lambda size: 2 * 8 * size.n**2,
        reach=0.95,
        grow=lambda size, ranks: Size(round(size.n * ranks**0.5), size.steps),
    ),
)
