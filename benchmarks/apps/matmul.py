"""Product of two square matrices by BLAS: each rank computes a block of rows, for which it needs all of B.

A, B and C lie distributed by rows before the measured part, B too; that everybody gets all of B is measured.

Entries have random mantissas, as dsm would send less of whole numbers.  BLAS may sum in another order for another
number of rows, so that the result and the serial one, each within n u |A| |B| of the product (Higham, Accuracy and
Stability of Numerical Algorithms, 3.5), may differ by n epsilon times n.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks.app import App, Result, Team, require


class Problem(NamedTuple):
    """The factors, both of shape (n, n)."""

    a: np.ndarray
    b: np.ndarray


def make(n: int) -> Problem:
    """Draw the factors, between -1 and 1."""
    random = np.random.default_rng(1)
    return Problem(random.uniform(-1, 1, (n, n)), random.uniform(-1, 1, (n, n)))


def serial(problem: Problem, team: Team) -> Result:
    """Multiply alone."""
    c = np.zeros_like(problem.a)
    with team.timed():
        np.matmul(problem.a, problem.b, out=c)
    return {"c": c}


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """Gather B everywhere, then one call of BLAS.

    A ring, which multiplies by a block of B while the next travels, has more and smaller calls of BLAS, during which
    MPI does not go on.
    """
    comm, n = team.comm, len(problem.a)
    rows = dsm.split(n, team.size, team.rank)
    blocks = [dsm.split(n, team.size, rank) for rank in range(team.size)]
    counts = [n * (block.stop - block.start) for block in blocks]
    a, b = problem.a[rows].copy(), np.zeros((n, n))
    b[rows] = problem.b[rows]
    c = np.zeros_like(a)
    with team.timed():
        comm.Allgatherv(MPI.IN_PLACE, [b, counts])
        np.matmul(a, b, out=c)
    product = np.empty((n, n)) if team.rank == 0 else None
    comm.Gatherv(c, [product, counts])
    return {"c": product}


def by_dsm(problem: Problem, team: Team) -> Result:
    """The serial program on this rank's rows."""
    a, b, c = (dsm.zeros(problem.a.shape) for _ in range(3))
    rows = dsm.split(len(a))
    a[rows], b[rows] = problem.a[rows], problem.b[rows]
    dsm.barrier()
    with team.timed():
        np.matmul(a[rows], b, out=c[rows])
        dsm.barrier()
    return {"c": c}


def verify(problem: Problem, result: Result, reference: Result | None) -> None:
    """Against serial, up to rounding."""
    assert reference is not None
    error, bound = np.abs(result["c"] - reference["c"]).max(), len(problem.a) ** 2 * np.finfo(float).eps
    require(error <= bound, f"an entry differs from serial by {error:.3g}, more than {bound:.3g}")


APPS = (
    App(
        name="matmul",
        title="Matrix product by BLAS",
        pattern="reads all, writes own blocks",
        sizes={"tiny": 60, "small": 1536, "paper": 2048, "large": 4096},
        make=make,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=by_dsm,
        verify=verify,
        memory=lambda n: 3 * 8 * n**2,
        reach=0.95,
    ),
)
