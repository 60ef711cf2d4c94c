"""Gaussian elimination with partial pivoting, on rows that are dealt out in turn.

Rows stay where they are: the pivot row of a column is the one with the largest entry among those that have not been
pivots, and each rank subtracts multiples of it from the rest of its own.  A row keeps its multipliers to the left of
its pivot, so that the rows, in the order in which they were pivots, hold the factors L and U.  Substitution is not
timed; it is part of the verification.  In shared memory a row of 1,024 numbers fills two pages of 4 KiB.  The pivot
row can be read there where it is, but its rank has begun to compute by then: to put what may become the pivot row
where the last ones were, before the barrier, which then brings it, was 1.2 times as fast.

Each row goes through the same operations whichever rank has it, so the factors must be the serial ones bit by bit.  A
system that is solved with them must besides have a scaled residual below 16, the bound of LINPACK.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from mpi4py import MPI
from scipy.linalg import solve_triangular

import dsm
from benchmarks.app import App, Result, Team, kernel, require

ENTRY = np.dtype([("size", np.float64), ("row", np.int32)], align=True)  # MPI.DOUBLE_INT


class Problem(NamedTuple):
    """The matrix, shape (n, n)."""

    matrix: np.ndarray


@kernel
def largest(rows: np.ndarray, done: np.ndarray, column: int, first: int, step: int) -> tuple[float, int]:
    """Return the largest absolute value in a column, and its row: of each `step`-th that has not been a pivot."""
    size, row = -1.0, 0
    for i in range(first, len(rows), step):
        if not done[i] and abs(rows[i, column]) > size:
            size, row = abs(rows[i, column]), i
    return size, row


@kernel
def eliminate(rows: np.ndarray, done: np.ndarray, pivot: np.ndarray, column: int, first: int, step: int) -> None:
    """Subtract multiples of the pivot row from each `step`-th that has not been a pivot, and keep the multipliers."""
    for i in range(first, len(rows), step):
        if not done[i]:
            factor = rows[i, column] / pivot[column]
            rows[i, column] = factor
            for j in range(column + 1, rows.shape[1]):
                rows[i, j] -= factor * pivot[j]


def make(n: int) -> Problem:
    """Draw the matrix."""
    return Problem(np.random.default_rng(1).uniform(-1, 1, (n, n)))


def serial(problem: Problem, team: Team) -> Result:
    """Solve alone."""
    rows = problem.matrix.copy()
    done, order = np.zeros(len(rows), bool), np.zeros(len(rows), int)
    with team.timed():
        for column in range(len(rows)):
            _, row = largest(rows, done, column, 0, 1)
            order[column], done[row] = row, True
            eliminate(rows, done, rows[row], column, 0, 1)
    return {"rows": rows, "order": order}


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """Find the pivot by a reduction; its owner broadcasts what is left of the row."""
    comm, n = team.comm, len(problem.matrix)
    rows = problem.matrix[team.rank :: team.size].copy()
    done, order = np.zeros(len(rows), bool), np.zeros(n, int)
    best, received = np.zeros((), ENTRY), np.empty(n)
    with team.timed():
        for column in range(n):
            size, i = largest(rows, done, column, 0, 1)
            best[()] = size, i * team.size + team.rank
            comm.Allreduce(MPI.IN_PLACE, [best, 1, MPI.DOUBLE_INT], MPI.MAXLOC)
            order[column] = row = int(best["row"])
            i, owner = row // team.size, row % team.size
            pivot = received
            if owner == team.rank:
                pivot, done[i] = rows[i], True
            comm.Bcast(pivot[column:], owner)
            eliminate(rows, done, pivot, column, 0, 1)
    counts = [n * len(range(rank, n, team.size)) for rank in range(team.size)]
    gathered = np.empty((n, n)) if team.rank == 0 else None
    comm.Gatherv(rows, [gathered, counts])
    if gathered is None:
        return {}
    dealt = np.concatenate([np.arange(rank, n, team.size) for rank in range(team.size)])
    return {"rows": gathered[np.argsort(dealt)], "order": order}


def by_dsm(problem: Problem, team: Team) -> Result:
    """Each rank offers its row with the largest entry for a pivot; a barrier after the offers of a column."""
    return in_columns(problem, team, lambda column: dsm.barrier())


def by_events(problem: Problem, team: Team) -> Result:
    """The same with an event for each rank's offer in place of the barrier."""
    offered = [[dsm.Event() for _ in range(team.size)] for _ in problem.matrix]

    def meet(column: int) -> None:
        offered[column][team.rank].set()
        for event in offered[column]:
            event.wait()

    return in_columns(problem, team, meet)


def in_columns(problem: Problem, team: Team, meet: Callable[[int], None]) -> Result:
    """The serial program on every so-many-th row; `meet` returns when all ranks have made their offers of a column."""
    n, rank, size = len(problem.matrix), team.rank, team.size
    rows = dsm.zeros((n, n))
    rows[rank::size] = problem.matrix[rank::size]
    # For even and odd columns: others may still read those of the column before.  Each rank has a page for its bests:
    # two ranks that write one page in each column fault for each.
    bests, pivots = dsm.zeros((size, 2, 256)), dsm.zeros((2, size, n))
    done, order = np.zeros(n, bool), np.zeros(n, int)
    dsm.barrier()
    with team.timed():
        for column in range(n):
            value, row = largest(rows, done, column, rank, size)
            bests[rank, column % 2, :2] = -value, row
            pivots[column % 2, rank, column:] = rows[row, column:]
            meet(column)
            row = int(min(bests[:, column % 2, :2].tolist())[1])
            order[column], done[row] = row, True
            eliminate(rows, done, pivots[column % 2, row % size], column, rank, size)
    dsm.barrier()
    return {"rows": rows, "order": order}


def verify(problem: Problem, result: Result, reference: Result | None) -> None:
    """Bit by bit against serial, and the residual of a system."""
    assert reference is not None
    matrix, (rows, order) = problem.matrix, (result["rows"], result["order"])
    wrong = int((rows != reference["rows"]).sum() + (order != reference["order"]).sum())
    require(wrong == 0, f"{wrong} entries of the factors or the order of pivots differ from serial")
    right = matrix.sum(axis=1)
    x = solve_triangular(rows[order], right[order], lower=True, unit_diagonal=True)
    x = solve_triangular(rows[order], x)
    size = np.abs(matrix).sum(axis=1).max() * np.abs(x).max() * len(matrix) * np.finfo(float).eps
    residual = float(np.abs(matrix @ x - right).max() / size)
    require(residual < 16, f"scaled residual {residual:.3g}, not below 16")


def app(name: str, title: str, program: Callable[[Problem, Team], Result]) -> App:
    """One of the two dsm programs as an application."""
    return App(
        name=name,
        title=title,
        pattern="pivot rows read by all",
        sizes={"tiny": 45, "small": 1024, "paper": 1024, "large": 2048},
        make=make,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=program,
        verify=verify,
        memory=lambda n: 8 * n**2,
        reach=0.95,
    )


APPS = (
    app("gauss", "Gaussian elimination with partial pivoting", by_dsm),
    app("gauss-events", "Gaussian elimination with partial pivoting, with events", by_events),
)
