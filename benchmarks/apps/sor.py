"""Red-black successive over-relaxation in place on one grid: all red points are renewed, then all black ones.

Lu et al. 1995 ran 51 iterations on 1024 x 3072 points of single precision: SOR-Zero starts with ones on the edge and
zeros within, so that most of the grid never changes; SOR-NonZero changes all points in each iteration.  Double
precision here: in single, what comes in from the edge falls to denormal numbers, which are slow.  That paper leaves the
first iteration out of its times, in which TreadMarks distributed the grid; here it lies distributed before, and all
iterations count.  Points of a colour do not depend on each other, so the result is bit-identical to the serial one.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks.app import App, Result, Team, kernel, verify_grid

OMEGA = 1.5


class Size(NamedTuple):
    """Rows and columns of the grid, and iterations."""

    rows: int
    columns: int
    iterations: int


class Problem(NamedTuple):
    """The grid at first, shape (rows, columns), and the number of iterations."""

    start: np.ndarray
    iterations: int


@kernel
def relax(grid: np.ndarray, first: int, end: int, colour: int) -> None:
    """Renew the inner points (i, j) of rows `first` to `end` where i + j + colour is even."""
    for i in range(first, end):
        for j in range(2 - (i + colour) % 2, grid.shape[1] - 1, 2):
            mean = 0.25 * (grid[i - 1, j] + grid[i + 1, j] + grid[i, j - 1] + grid[i, j + 1])
            grid[i, j] += OMEGA * (mean - grid[i, j])


def make(size: Size, nonzero: bool) -> Problem:
    """Ones around zeros, or random numbers."""
    shape = size.rows, size.columns
    if nonzero:
        return Problem(np.random.default_rng(1).uniform(0.5, 1.5, shape), size.iterations)
    start = np.ones(shape)
    start[1:-1, 1:-1] = 0
    return Problem(start, size.iterations)


def serial(problem: Problem, team: Team) -> Result:
    """Solve alone."""
    grid = problem.start.copy()
    with team.timed():
        for _ in range(problem.iterations):
            for colour in 0, 1:
                relax(grid, 1, len(grid) - 1, colour)
    return {"grid": grid}


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """Renew the rows at the edges first; their points of that colour, and only those, travel during the inner rows."""
    comm, (n, m) = team.comm, problem.start.shape
    rows = dsm.split(n, team.size, team.rank)
    up = team.rank - 1 if team.rank else MPI.PROC_NULL
    down = team.rank + 1 if team.rank + 1 < team.size else MPI.PROC_NULL
    low = max(rows.start - 1, 0)
    grid = problem.start[low : rows.stop + 1].copy()  # with a row of each neighbour
    top, bottom = rows.start - low, rows.stop - 1 - low
    first, end = max(rows.start, 1) - low, min(rows.stop, n - 1) - low
    every_other = MPI.DOUBLE.Create_vector((m - 1) // 2, 1, 2).Commit()
    turns = []
    for colour in (low, low + 1):  # as the points count from row `low`
        above, from_top, from_bottom, below = (
            [grid[i, 2 - (i + colour) % 2 :], 1, every_other] for i in (0, top, bottom, len(grid) - 1)
        )
        sends = comm.Send_init(from_top, up), comm.Send_init(from_bottom, down)
        turns.append((colour, [comm.Recv_init(above, up), comm.Recv_init(below, down), *sends]))
    with team.timed():
        for _ in range(problem.iterations):
            for colour, requests in turns:
                relax(grid, first, min(first + 1, end), colour)
                relax(grid, max(end - 1, first + 1), end, colour)
                for request in requests:
                    request.Start()
                relax(grid, first + 1, end - 1, colour)
                MPI.Request.Waitall(requests)
    for request in turns[0][1] + turns[1][1]:
        request.Free()
    every_other.Free()
    counts = [m * (part.stop - part.start) for part in (dsm.split(n, team.size, rank) for rank in range(team.size))]
    whole = np.empty((n, m)) if team.rank == 0 else None
    comm.Gatherv(grid[top : bottom + 1], [whole, counts])
    return {"grid": whole}


def by_dsm(problem: Problem, team: Team) -> Result:
    """The serial program on this rank's rows, with a barrier after each colour."""
    n = len(problem.start)
    rows = dsm.split(n)
    grid = dsm.zeros(problem.start.shape)
    grid[rows] = problem.start[rows]
    dsm.barrier()
    with team.timed():
        for _ in range(problem.iterations):
            for colour in 0, 1:
                relax(grid, max(rows.start, 1), min(rows.stop, n - 1), colour)
                dsm.barrier()
    return {"grid": grid}


def app(variant: str, start: str, nonzero: bool, paper: tuple[float, float]) -> App:
    """One of the two starts as an application."""
    return App(
        name=f"sor-{variant}",
        title=f"Red-black SOR, {start}",
        pattern="rows of neighbours, red-black in place, barrier",
        sizes={
            "tiny": Size(19, 70, 5),
            "small": Size(1024, 1536, 101),
            "paper": Size(1024, 3072, 51),
            "large": Size(4096, 4096, 101),
        },
        make=partial(make, nonzero=nonzero),
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=by_dsm,
        verify=verify_grid,
        memory=lambda size: 8 * size.rows * size.columns,
        reach=0.95,
        grow=lambda size, ranks: size._replace(rows=size.rows * ranks),
        paper=paper,
    )


APPS = (
    app("zero", "zeros within ones", nonzero=False, paper=(4.71, 4.58)),
    app("nonzero", "random numbers", nonzero=True, paper=(7.44, 6.80)),
)
