"""LU factorisation by blocks, without pivoting, of a matrix whose diagonal dominates: as LU of SPLASH-2.

Panels of columns lie one after the other in memory and are dealt out in turn.  When a panel has been factored, all
ranks subtract its part from their panels right of it, by BLAS; the owner of the next panel does that one first and
factors it, so that the others find it when they have done.

All versions make the same calls of BLAS for each panel.  Some BLAS round differently at other addresses, so entries may
differ from the serial ones by the rounding errors of n steps.  A system that is solved with the factors must
besides have a scaled residual below 16, the bound of LINPACK.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import blas, solve_triangular

import dsm
from benchmarks.app import App, Result, Team, kernel, require


class Size(NamedTuple):
    """Order of the matrix, and columns of a panel, which divide it."""

    n: int
    width: int


class Problem(NamedTuple):
    """The matrix in panels: shape (n // width, n, width)."""

    panels: np.ndarray


@kernel
def factor_block(block: np.ndarray) -> None:
    """Put the factors of a square block, L without its diagonal of ones, in its place."""
    for k in range(len(block)):
        for i in range(k + 1, len(block)):
            block[i, k] /= block[k, k]
            for j in range(k + 1, len(block)):
                block[i, j] -= block[i, k] * block[k, j]


def factor(panel: np.ndarray, index: int) -> None:
    """Factor a panel, shape (n, width), from its diagonal block down.

    BLAS sees the transposes of what is stored by rows, here and below, and works in place.
    """
    start, end = index * panel.shape[1], (index + 1) * panel.shape[1]
    factor_block(panel[start:end])
    blas.dtrsm(1.0, panel[start:end].T, panel[end:].T, lower=True, overwrite_b=True)


def update(panel: np.ndarray, left: np.ndarray, index: int) -> None:
    """Subtract what the factored panel `left`, which is the one of that index, has to do with a later one."""
    start, end = index * panel.shape[1], (index + 1) * panel.shape[1]
    top = panel[start:end].T
    blas.dtrsm(1.0, left[start:end].T, top, side=True, diag=True, overwrite_b=True)
    blas.dgemm(-1.0, top, left[end:].T, 1.0, panel[end:].T, overwrite_c=True)


def make(size: Size) -> Problem:
    """Draw the matrix, and make its diagonal as large as the rest of its rows together."""
    matrix = np.random.default_rng(1).uniform(-1, 1, (size.n, size.n))
    np.fill_diagonal(matrix, np.abs(matrix).sum(axis=1))
    return Problem(np.ascontiguousarray(matrix.reshape(size.n, -1, size.width).swapaxes(0, 1)))


def serial(problem: Problem, team: Team) -> Result:
    """Solve alone."""
    panels = problem.panels.copy()
    with team.timed():
        for k in range(len(panels)):
            factor(panels[k], k)
            for panel in panels[k + 1 :]:
                update(panel, panels[k], k)
    return {"panels": panels}


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """Broadcast a panel as soon as it is factored, while the one before is subtracted from the rest."""
    comm, (count, n, width) = team.comm, problem.panels.shape
    mine = problem.panels[team.rank :: team.size].copy()
    received = np.empty((2, n, width))

    def place(k: int) -> np.ndarray:
        return mine[k // team.size] if k % team.size == team.rank else received[k % 2]

    with team.timed():
        if team.rank == 0:
            factor(mine[0], 0)
        request = comm.Ibcast(place(0), 0)
        for k in range(count):
            request.Wait()
            left = place(k)
            if k + 1 < count:
                following, owner = place(k + 1), (k + 1) % team.size
                if owner == team.rank:
                    update(following, left, k)
                    factor(following, k + 1)
                request = comm.Ibcast(following[(k + 1) * width :], owner)
            for panel in mine[len(range(team.rank, k + 2, team.size)) :]:
                update(panel, left, k)
                request.Test()  # lets MPI go on with the broadcast
    panels = np.empty_like(problem.panels) if team.rank == 0 else None
    parts = [n * width * len(range(rank, count, team.size)) for rank in range(team.size)]
    comm.Gatherv(mine, [panels, parts])
    if panels is None:
        return {}
    dealt = np.concatenate([np.arange(rank, count, team.size) for rank in range(team.size)])
    return {"panels": panels[np.argsort(dealt)]}


def by_dsm(problem: Problem, team: Team) -> Result:
    """The serial program on every so-many-th panel, with a barrier after each that is factored."""
    panels = dsm.zeros(problem.panels.shape)
    panels[team.rank :: team.size] = problem.panels[team.rank :: team.size]
    dsm.barrier()
    with team.timed():
        if team.rank == 0:
            factor(panels[0], 0)
        for k in range(len(panels)):
            dsm.barrier()
            for j in range(team.rank, len(panels), team.size):
                if j > k:
                    update(panels[j], panels[k], k)
                if j == k + 1:
                    factor(panels[j], j)
    dsm.barrier()
    return {"panels": panels}


def by_events(problem: Problem, team: Team) -> Result:
    """The same with an event for each panel: a rank waits for the panel that it needs, and for no other rank.

    A panel is fetched as a whole, and while the one before is subtracted if it is factored by then, as MPI goes on with
    its broadcast.
    """
    panels = dsm.zeros(problem.panels.shape)
    panels[team.rank :: team.size] = problem.panels[team.rank :: team.size]
    count, width = len(panels), problem.panels.shape[2]
    factored = [dsm.Event() for _ in range(count)]
    dsm.barrier()
    with team.timed():
        if team.rank == 0:
            factor(panels[0], 0)
            factored[0].set()
        for k in range(count):
            factored[k].wait()
            dsm.prefetch(panels[k, k * width :])
            following = k + 1
            for j in range(team.rank, count, team.size):
                if j > k:
                    update(panels[j], panels[k], k)
                if j == k + 1:
                    factor(panels[j], j)
                    factored[j].set()
                    following = count
                elif following < count and factored[following].is_set():
                    dsm.prefetch(panels[following, following * width :])
                    following = count
    dsm.barrier()
    return {"panels": panels}


def verify(problem: Problem, result: Result, reference: Result | None) -> None:
    """Close to serial, and the residual of a system."""
    assert reference is not None
    matrix, factors, expected = (
        panels.swapaxes(0, 1).reshape(panels.shape[1], -1)
        for panels in (problem.panels, result["panels"], reference["panels"])
    )
    epsilon = len(matrix) * np.finfo(float).eps
    error = float(np.abs(factors - expected).max() / np.abs(expected).max() / epsilon)
    require(error < 1, f"factors differ from serial by {error:.3g} n epsilon of the largest")
    right = matrix.sum(axis=1)
    x = solve_triangular(factors, right, lower=True, unit_diagonal=True)
    x = solve_triangular(factors, x)
    size = np.abs(matrix).sum(axis=1).max() * np.abs(x).max() * epsilon
    residual = float(np.abs(matrix @ x - right).max() / size)
    require(residual < 16, f"scaled residual {residual:.3g}, not below 16")


def app(name: str, title: str, program: Callable[[Problem, Team], Result]) -> App:
    """One of the two dsm programs as an application."""
    return App(
        name=name,
        title=title,
        pattern="blocked panels read by all",
        sizes={"tiny": Size(80, 8), "small": Size(2048, 32), "paper": Size(1024, 32), "large": Size(5120, 64)},
        make=make,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=program,
        verify=verify,
        memory=lambda size: 8 * size.n**2,
        reach=0.95,
    )


APPS = (
    app("lu", "LU factorisation by blocks", by_dsm),
    app("lu-events", "LU factorisation by blocks, with events", by_events),
)
