"""Gauss-Seidel sweeps over a grid in the order of its points, as a pipeline: blocks of columns go from rank to rank.

A point is renewed with the new values above and left of it and the old ones below and right of it.  So a rank can renew
a block of columns of its rows when the rank above has renewed the same block in this sweep, and the rank below in the
sweep before.  Successive sweeps overlap: while the last rank is still in one, the first one has begun the next.

Each hand-over is point to point: an event for each block in dsm, a message of one row of the block in mpi4py.  The
points go through the same operations in the same order, so the result is bit-identical to the serial one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks.app import App, Result, Team, kernel, verify_grid


class Size(NamedTuple):
    """Rows and columns of the grid, columns of a block, and sweeps."""

    rows: int
    columns: int
    width: int
    sweeps: int


class Problem(NamedTuple):
    """The grid at first, shape (rows, columns), columns of a block, and the number of sweeps."""

    start: np.ndarray
    width: int
    sweeps: int

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """First column of each block, and the one behind it; the edges of the grid belong to none."""
        m = self.start.shape[1]
        return [(max(at, 1), min(at + self.width, m - 1)) for at in range(0, m, self.width)]


@kernel
def sweep(grid: np.ndarray, first: int, end: int, left: int, right: int) -> None:
    """Renew the points of rows `first` to `end` and columns `left` to `right`, one after the other."""
    for i in range(first, end):
        for j in range(left, right):
            grid[i, j] = 0.25 * (grid[i - 1, j] + grid[i, j - 1] + grid[i + 1, j] + grid[i, j + 1])


def make(size: Size) -> Problem:
    """Random numbers."""
    start = np.random.default_rng(1).uniform(0.5, 1.5, (size.rows, size.columns))
    return Problem(start, size.width, size.sweeps)


def serial(problem: Problem, team: Team) -> Result:
    """Solve alone, block by block, too: the columns of a block stay in the cache."""
    grid = problem.start.copy()
    with team.timed():
        for _ in range(problem.sweeps):
            for left, right in problem.blocks:
                sweep(grid, 1, len(grid) - 1, left, right)
    return {"grid": grid}


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """The new row at the lower edge travels down for this sweep, the one at the upper edge up for the next."""
    comm, (n, m), blocks = team.comm, problem.start.shape, problem.blocks
    rows = dsm.split(n, team.size, team.rank)
    up = team.rank - 1 if team.rank else MPI.PROC_NULL
    down = team.rank + 1 if team.rank + 1 < team.size else MPI.PROC_NULL
    low = max(rows.start - 1, 0)
    grid = problem.start[low : rows.stop + 1].copy()  # with a row of each neighbour
    top, bottom = rows.start - low, rows.stop - 1 - low
    first, end = max(rows.start, 1) - low, min(rows.stop, n - 1) - low
    below = [MPI.REQUEST_NULL] * len(blocks)
    sends: list[MPI.Request] = []
    with team.timed():
        for step in range(problem.sweeps):
            for k, (left, right) in enumerate(blocks):
                comm.Recv(grid[0, left:right], up)
                below[k].Wait()
                sweep(grid, first, end, left, right)
                MPI.Request.Waitall(sends)
                sends = [comm.Isend(grid[bottom, left:right], down)]
                if step + 1 < problem.sweeps:
                    sends.append(comm.Isend(grid[top, left:right], up))
                    below[k] = comm.Irecv(grid[-1, left:right], down)
        MPI.Request.Waitall(sends)
    counts = [m * (part.stop - part.start) for part in (dsm.split(n, team.size, rank) for rank in range(team.size))]
    whole = np.empty((n, m)) if team.rank == 0 else None
    comm.Gatherv(grid[top : bottom + 1], [whole, counts])
    return {"grid": whole}


def by_dsm(problem: Problem, team: Team) -> Result:
    """The serial program on this rank's rows, with an event for each block of each sweep."""
    n, rank, blocks, sweeps = len(problem.start), team.rank, problem.blocks, problem.sweeps
    rows = dsm.split(n)
    grid = dsm.zeros(problem.start.shape)
    grid[rows] = problem.start[rows]
    done = [[[dsm.Event() for _ in blocks] for _ in range(sweeps)] for _ in range(team.size)]
    dsm.barrier()
    with team.timed():
        for step in range(sweeps):
            for k, (left, right) in enumerate(blocks):
                if rank > 0:
                    done[rank - 1][step][k].wait()
                if rank + 1 < team.size and step > 0:
                    done[rank + 1][step - 1][k].wait()
                sweep(grid, max(rows.start, 1), min(rows.stop, n - 1), left, right)
                done[rank][step][k].set()
    dsm.barrier()
    return {"grid": grid}


APPS = (
    App(
        name="wavefront",
        title="Gauss-Seidel sweeps in a pipeline",
        pattern="rows of neighbours by blocks, events",
        sizes={
            "tiny": Size(19, 70, 16, 4),
            "small": Size(1024, 4096, 512, 20),
            "paper": Size(1024, 4096, 512, 50),
            "large": Size(4096, 8192, 512, 50),
        },
        make=make,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=by_dsm,
        verify=verify_grid,
        memory=lambda size: 8 * size.rows * size.columns,
        reach=0.95,
        grow=lambda size, ranks: size._replace(rows=size.rows * ranks),
    ),
)
