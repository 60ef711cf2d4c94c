"""CG: an eigenvalue of a sparse symmetric matrix by inverse iteration, each time with 25 conjugate gradient steps.

NAS Parallel Benchmarks, kernel CG (Bailey et al., RNR-94-007, section 2.2.3).  A rank owns a block of the rows, and
needs nearly all of the vector that the matrix is multiplied with.  As in NPB, making the matrix is not timed, nor is a
first iteration.  The estimate zeta of the eigenvalue is within 1e-10, as NPB demands, of the one that NPB publishes
(cg.f): sums over ranks are rounded otherwise than serial ones.  `tiny`, and `large`, which is class B with fewer
iterations, have no published zeta; there serial's takes its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from mpi4py import MPI
from scipy import sparse

import dsm
from benchmarks import npb
from benchmarks.app import App, Result, Team, kernel, require

STEPS = 25
CONDITION = 0.1
TOLERANCE = 1e-10


class Size(NamedTuple):
    """Rows, random elements of a vector that the matrix is made of, iterations, shift, and zeta where published."""

    n: int
    elements: int
    iterations: int
    shift: float
    zeta: float | None = None


class Matrix(NamedTuple):
    """Rows of a sparse matrix: where each begins and the last ends; columns and values of all elements."""

    starts: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    def rows(self, block: slice) -> Matrix:
        """Return a block of the rows."""
        starts = self.starts[block.start : block.stop + 1]
        inside = slice(starts[0], starts[-1])
        return Matrix(starts - starts[0], self.columns[inside], self.values[inside])


class Problem(NamedTuple):
    """The matrix, and the size with what else counts."""

    matrix: Matrix
    size: Size


@kernel
def draw_vectors(n: int, elements: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw n vectors: columns of random elements, shape (n, elements), int32, and their values.

    A column that does not exist, or is there already, is drawn again together with its value.
    """
    limit = 1
    while limit < n:
        limit *= 2
    columns, values = np.empty((n, elements), np.int32), np.empty((n, elements))
    seed, factor, mask = npb.after(npb.SEED, npb.FACTOR, 1), np.uint64(npb.FACTOR), np.uint64(npb.MASK)
    for row in range(n):
        have = 0
        while have < elements:
            seed = seed * factor & mask
            value = npb.UNIT * np.float64(seed)
            seed = seed * factor & mask
            column = int(limit * (npb.UNIT * np.float64(seed)))
            if column < n and column not in columns[row, :have]:
                columns[row, have], values[row, have] = column, value
                have += 1
    return columns, values


@kernel
def multiply(matrix: Matrix, vector: np.ndarray, product: np.ndarray) -> None:
    """Multiply rows of a matrix with a vector."""
    for row in range(len(product)):
        total = 0.0
        for i in range(matrix.starts[row], matrix.starts[row + 1]):
            total += matrix.values[i] * vector[matrix.columns[i]]
        product[row] = total


@kernel
def dot(a: np.ndarray, b: np.ndarray) -> float:
    """Return the scalar product."""
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@kernel
def advance(alpha: float, p: np.ndarray, q: np.ndarray, z: np.ndarray, r: np.ndarray) -> float:
    """Move the solution z along p and the residual r against q; return the square of r."""
    total = 0.0
    for i in range(len(z)):
        z[i] += alpha * p[i]
        r[i] -= alpha * q[i]
        total += r[i] * r[i]
    return total


@kernel
def turn(beta: float, r: np.ndarray, p: np.ndarray) -> None:
    """Make the next direction p."""
    for i in range(len(p)):
        p[i] = r[i] + beta * p[i]


@kernel
def sums(x: np.ndarray, z: np.ndarray, q: np.ndarray, out: np.ndarray) -> None:
    """Set `out` to x z, z z and the square of x - q."""
    out[:] = 0
    for i in range(len(x)):
        out[0] += x[i] * z[i]
        out[1] += z[i] * z[i]
        out[2] += (x[i] - q[i]) ** 2


def make(size: Size) -> Problem:
    """Add up the products of n vectors with themselves, the last one's a tenth of the first one's, and shift.

    Element i of vector i is 1/2, whatever was drawn.
    """
    columns, values = draw_vectors(size.n, size.elements)
    index = np.arange(size.n)
    others = columns != index[:, None]
    rows = np.append(np.nonzero(others)[0], index)
    columns, values = np.append(columns[others], index), np.append(values[others], np.full(size.n, 0.5))
    vectors = sparse.csr_array((values, (rows, columns)), (size.n, size.n))
    scales = sparse.diags_array(CONDITION ** (index / size.n))
    whole = (vectors.T @ scales @ vectors + (CONDITION - size.shift) * sparse.eye_array(size.n)).tocsr()
    whole.sort_indices()
    return Problem(Matrix(whole.indptr.astype(np.int32), whole.indices.astype(np.int32), whole.data), size)


def run(iterate: Callable[[], tuple[float, float]], x: np.ndarray, problem: Problem, team: Team) -> Result:
    """Time the iterations, each of which renews x and returns zeta and the residual, after one that is not timed."""
    x[:] = 1
    iterate()
    x[:] = 1
    with team.timed():
        for _ in range(problem.size.iterations):
            zeta, residual = iterate()
    return {"zeta": zeta, "residual": residual}


def serial(problem: Problem, team: Team) -> Result:
    """Iterate alone."""
    matrix, size = problem
    x, z, r, p, q = np.zeros((5, size.n))
    total = np.zeros(3)

    def iterate() -> tuple[float, float]:
        z[:], r[:], p[:] = 0, x, x
        rho = dot(r, r)
        for _ in range(STEPS):
            multiply(matrix, p, q)
            alpha = rho / dot(p, q)
            last, rho = rho, advance(alpha, p, q, z, r)
            turn(rho / last, r, p)
        multiply(matrix, z, q)
        sums(x, z, q, total)
        np.divide(z, math.sqrt(total[1]), out=x)
        return size.shift + 1 / total[0], math.sqrt(total[2])

    return run(iterate, x, problem, team)


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """Iterate on a block of the rows: directions are gathered by all, and sums reduced by all."""
    comm, size = team.comm, problem.size
    mine = dsm.split(size.n, team.size, team.rank)
    lengths = [part.stop - part.start for part in (dsm.split(size.n, team.size, rank) for rank in range(team.size))]
    matrix, whole = problem.matrix.rows(mine), np.zeros(size.n)
    p, (x, z, r, q) = whole[mine], np.zeros((4, lengths[team.rank]))
    one, three = np.zeros(1), np.zeros(3)

    def total(part: float) -> float:
        one[0] = part
        comm.Allreduce(MPI.IN_PLACE, one)
        return float(one[0])

    def iterate() -> tuple[float, float]:
        z[:], r[:], p[:] = 0, x, x
        rho = total(dot(r, r))
        for _ in range(STEPS):
            comm.Allgatherv(MPI.IN_PLACE, [whole, lengths])
            multiply(matrix, whole, q)
            alpha = rho / total(dot(p, q))
            last, rho = rho, total(advance(alpha, p, q, z, r))
            turn(rho / last, r, p)
        p[:] = z
        comm.Allgatherv(MPI.IN_PLACE, [whole, lengths])
        multiply(matrix, whole, q)
        sums(x, z, q, three)
        comm.Allreduce(MPI.IN_PLACE, three)
        np.divide(z, math.sqrt(three[1]), out=x)
        return size.shift + 1 / three[0], math.sqrt(three[2])

    return run(iterate, x, problem, team)


def by_dsm(problem: Problem, team: Team) -> Result:
    """Iterate on a block of the rows: directions are shared, and so is the part of each rank in a sum."""
    size = problem.size
    mine = dsm.split(size.n)
    matrix, whole = problem.matrix.rows(mine), dsm.zeros(size.n)
    p, (x, z, r, q) = whole[mine], np.zeros((4, mine.stop - mine.start))
    squares, products, others = dsm.zeros(team.size), dsm.zeros(team.size), dsm.zeros((team.size, 3))

    def total(parts: np.ndarray, part: float) -> float:
        parts[team.rank] = part
        dsm.barrier()
        return float(parts.sum())

    def iterate() -> tuple[float, float]:
        z[:], r[:], p[:] = 0, x, x
        rho = total(squares, dot(r, r))
        for _ in range(STEPS):
            multiply(matrix, whole, q)
            alpha = rho / total(products, dot(p, q))
            last, rho = rho, total(squares, advance(alpha, p, q, z, r))
            turn(rho / last, r, p)
            dsm.barrier()
        p[:] = z
        dsm.barrier()
        multiply(matrix, whole, q)
        sums(x, z, q, others[team.rank])
        dsm.barrier()
        three = others.sum(axis=0)
        np.divide(z, math.sqrt(three[1]), out=x)
        return size.shift + 1 / three[0], math.sqrt(three[2])

    return run(iterate, x, problem, team)


def verify(problem: Problem, result: Result, reference: Result | None) -> None:
    """The eigenvalue as published, else as serial's, and a system that was solved."""
    zeta = problem.size.zeta
    if zeta is None:
        assert reference is not None
        zeta = float(reference["zeta"])
    error = abs(float(result["zeta"]) - zeta)
    require(error <= TOLERANCE, f"zeta {result['zeta']} is {error:.1e} off {zeta}")
    require(result["residual"] <= TOLERANCE, f"residual {result['residual']:.1e}")


APPS = (
    App(
        name="cg",
        title="NPB CG: eigenvalue of a sparse matrix",
        pattern="irregular reads, reductions",
        sizes={
            "tiny": Size(100, 3, 2, 10),
            "small": Size(7000, 8, 15, 12, 10.362595087124),
            "paper": Size(14000, 11, 15, 20, 17.130235054029),
            "large": Size(75000, 13, 15, 60),
        },
        make=make,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=by_dsm,
        verify=verify,
        memory=lambda size: 12 * size.n * (size.elements + 1) ** 2,
        reach=0.95,
    ),
)
