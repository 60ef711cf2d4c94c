"""FT: a partial differential equation on a torus, solved by 3-D FFT: one forward, then one back for each step of time.

NAS Parallel Benchmarks, kernel FT (Bailey et al., RNR-94-007, section 2.2.4), which Lu et al. 1995 call 3D-FFT.  A rank
has whole planes of z for the FFT along x and y, and whole planes of y for that along z, so each transform transposes
the field.  The FFT is SciPy's in all versions.  As in NPB, drawing the start is timed, and all runs once before the
timing.  The checksum of each step is within 1e-12 of the one that NPB publishes for classes S, W and A (ft.f), as NPB
demands, or of serial's where there is none: the terms are added up in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from mpi4py import MPI
from scipy import fft

import dsm
from benchmarks import npb
from benchmarks.app import App, Result, Team, kernel, require

ALPHA = 1e-6
TOLERANCE = 1e-12

PUBLISHED = {
    (64, 64, 64): (
        554.6087004964 + 484.5363331978j,
        554.6385409190 + 486.5304269511j,
        554.6148406171 + 488.3910722337j,
        554.5423607415 + 490.1273169046j,
        554.4255039624 + 491.7475857993j,
        554.2683411903 + 493.2597244941j,
    ),
    (32, 128, 128): (
        567.3612178944 + 529.3246849175j,
        563.1436885271 + 528.2149986629j,
        559.4024089970 + 527.0996558037j,
        556.0698047020 + 526.0027904925j,
        553.0898991250 + 524.9400845633j,
        550.4159734538 + 523.9212247086j,
    ),
    (128, 256, 256): (
        504.6735008193 + 511.4047905510j,
        505.9412319734 + 509.8809666433j,
        506.9376896287 + 509.8144042213j,
        507.7892868474 + 510.1336130759j,
        508.5233095391 + 510.4914655194j,
        509.1487099959 + 510.7917842803j,
    ),
}


class Problem(NamedTuple):
    """Points along z, y and x, and steps."""

    shape: tuple[int, int, int]
    steps: int


def draw(shape: tuple[int, int, int], planes: slice) -> np.ndarray:
    """Draw planes of z of the field at the start."""
    _, ny, nx = shape
    count = planes.stop - planes.start
    return npb.uniforms(2 * planes.start * ny * nx, 2 * count * ny * nx).view(complex).reshape(count, ny, nx)


def decay(shape: tuple[int, int, int], planes: slice) -> np.ndarray:
    """Return what a step multiplies the spectrum with, for planes of y: shape (nz, planes, nx)."""
    z, y, x = (np.fft.fftfreq(n, 1 / n) ** 2 for n in shape)
    return np.exp(-4 * ALPHA * np.pi**2 * (z[:, None, None] + y[planes, None] + x))


@kernel
def evolve(spectrum: np.ndarray, factors: np.ndarray, copy: np.ndarray) -> None:
    """Advance the spectrum by a step of time, and copy it."""
    for z in range(spectrum.shape[0]):
        for y in range(spectrum.shape[1]):
            for x in range(spectrum.shape[2]):
                spectrum[z, y, x] *= factors[z, y, x]
                copy[z, y, x] = spectrum[z, y, x]


@kernel
def checksum(planes: np.ndarray, first: int, nz: int) -> complex:
    """Add up those of 1,024 points that lie in planes of z of which the first is number `first`."""
    total = 0j
    for j in range(1, 1025):
        z = 5 * j % nz - first
        if 0 <= z < len(planes):
            total += planes[z, 3 * j % planes.shape[1], j % planes.shape[2]]
    return total


def run(solve: Callable[[], Result], team: Team) -> Result:
    """Solve twice, and time the second time."""
    solve()
    with team.timed():
        return solve()


def serial(problem: Problem, team: Team) -> Result:
    """Solve alone."""
    shape, steps = problem
    field = np.empty(shape, complex)

    def solve() -> Result:
        everything, sums = slice(0, shape[0]), np.empty(steps, complex)
        spectrum = fft.fftn(draw(shape, everything), overwrite_x=True)
        factors = decay(shape, slice(None))
        for step in range(steps):
            evolve(spectrum, factors, field)
            sums[step] = checksum(fft.ifftn(field, overwrite_x=True), 0, shape[0])
        return {"checksums": sums}

    return run(solve, team)


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """Transpose by exchanging blocks, and move the own one while the others travel.

    Where blocks are parts of planes they pass a buffer: to MPI as a vector type they took up to twice as long.
    """
    comm, (shape, steps) = team.comm, problem
    nz, ny, nx = shape
    all_z, all_y = ([dsm.split(n, team.size, rank) for rank in range(team.size)] for n in (nz, ny))
    z, y = all_z[team.rank], all_y[team.rank]
    by_z, by_y = np.empty((z.stop - z.start, ny, nx), complex), np.empty((nz, y.stop - y.start, nx), complex)
    others = [(team.rank + i) % team.size for i in range(1, team.size)]
    blocks = {rank: by_z[:, all_y[rank]].copy() for rank in others}
    to_y = [comm.Recv_init(by_y[all_z[rank]], rank) for rank in others]
    to_y += [comm.Send_init(blocks[rank], rank) for rank in others]
    to_z = [comm.Recv_init(blocks[rank], rank) for rank in others]
    to_z += [comm.Send_init(by_y[all_z[rank]], rank) for rank in others]

    def solve() -> Result:
        sums, all_sums = np.empty((2, steps), complex)
        by_z[:] = draw(shape, z)
        fft.fftn(by_z, axes=(1, 2), overwrite_x=True)
        for rank, block in blocks.items():
            block[:] = by_z[:, all_y[rank]]
        for request in to_y:
            request.Start()
        by_y[z] = by_z[:, y]
        MPI.Request.Waitall(to_y)
        spectrum = fft.fft(by_y, axis=0)
        factors = decay(shape, y)
        for step in range(steps):
            evolve(spectrum, factors, by_y)
            fft.ifft(by_y, axis=0, overwrite_x=True)
            for request in to_z:
                request.Start()
            by_z[:, y] = by_y[z]
            MPI.Request.Waitall(to_z)
            for rank, block in blocks.items():
                by_z[:, all_y[rank]] = block
            fft.ifftn(by_z, axes=(1, 2), overwrite_x=True)
            sums[step] = checksum(by_z, z.start, nz)
        comm.Reduce(sums, all_sums)
        return {"checksums": all_sums}

    result = run(solve, team)
    for request in to_y + to_z:
        request.Free()
    return result


def by_dsm(problem: Problem, team: Team) -> Result:
    """Transpose by writing planes of one direction of a shared field and reading those of the other."""
    shape, steps = problem
    field, sums = dsm.zeros(shape, complex), dsm.zeros((team.size, steps), complex)
    z, y = dsm.split(shape[0]), dsm.split(shape[1])
    by_z, by_y = field[z], field[:, y]
    planes = np.empty_like(by_z)

    def solve() -> Result:
        by_z[:] = fft.fftn(draw(shape, z), axes=(1, 2), overwrite_x=True)
        dsm.barrier()
        spectrum = fft.fft(by_y, axis=0)
        factors = decay(shape, y)
        dsm.barrier()  # all have read
        for step in range(steps):
            evolve(spectrum, factors, by_y)
            fft.ifft(by_y, axis=0, overwrite_x=True)
            dsm.barrier()
            planes[:] = by_z
            dsm.barrier()  # all have read
            fft.ifftn(planes, axes=(1, 2), overwrite_x=True)
            sums[team.rank, step] = checksum(planes, z.start, shape[0])
        dsm.barrier()
        return {"checksums": sums.sum(axis=0)}

    return run(solve, team)


def verify(problem: Problem, result: Result, reference: Result | None) -> None:
    """Checksums within 1e-12, in both parts, of those published, else of serial's."""
    if problem.shape in PUBLISHED:
        expected = np.array(PUBLISHED[problem.shape])
    else:
        assert reference is not None
        expected = np.array(reference["checksums"])
    error = (np.array(result["checksums"]).view(float) / expected.view(float) - 1).reshape(-1, 2)
    worst = float(np.abs(error).max())
    require(worst <= TOLERANCE, f"checksums {result['checksums']} are {worst:.1e} off {expected}")


APPS = (
    App(
        name="ft",
        title="NPB FT: 3-D FFT",
        pattern="3-D FFT, transpose",
        sizes={
            "tiny": Problem((6, 10, 12), 3),
            "small": Problem((64, 64, 64), 6),
            "paper": Problem((32, 128, 128), 6),
            "large": Problem((128, 256, 256), 6),
        },
        make=lambda size: size,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=by_dsm,
        verify=verify,
        memory=lambda size: 16 * size.shape[0] * size.shape[1] * size.shape[2],
        reach=0.95,
        paper_note="TreadMarks 10-30 % behind PVM",
    ),
)
