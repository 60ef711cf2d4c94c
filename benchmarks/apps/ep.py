"""EP: pairs of normally distributed numbers, made from uniform ones by rejection, counted in square rings.

NAS Parallel Benchmarks, kernel EP (Bailey et al., RNR-94-007, section 2.2.1): of 2^m pairs in a square those in the
unit circle become pairs of Gaussian deviates (X, Y), and ring l counts those with l <= max(|X|, |Y|) < l + 1.  Pairs
come in batches of 2^16; a rank finds its first by jumping ahead.  The sums of X and Y are compared with those that NPB
3.0 to 3.4.2 verify, within 1e-8 as there, because their rounding depends on the order; the counts, which are exact,
with those that these programs print.  Where the size has no class, serial takes the place of both.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

import dsm
from benchmarks import npb
from benchmarks.app import App, Result, Team, kernel, require

SEED = 271828183
BATCH = 2**16
TOLERANCE = 1e-8
RINGS = 10

# Classes S, W and A by m: sum of X, sum of Y, counts of the rings that are not empty.
PUBLISHED = {
    24: (-3.247834652034740e3, -6.958407078382297e3, 6140517, 5865300, 1100361, 68546, 1648, 17),
    25: (-2.863319731645753e3, -6.320053679109499e3, 12281576, 11729692, 2202726, 137368, 3371, 36),
    28: (-4.295875165629892e3, -1.580732573678431e4, 98257395, 93827014, 17611549, 1110028, 26536, 245),
}


class Problem(NamedTuple):
    """2^m pairs are drawn."""

    m: int

    @property
    def batches(self) -> int:
        return 2**self.m // BATCH


@kernel
def draw(first: int, end: int, totals: np.ndarray) -> None:
    """Add batches `first` to `end` to `totals`: sum of X, sum of Y, counts of ten rings, float64."""
    factor, mask = np.uint64(npb.FACTOR), np.uint64(npb.MASK)
    x = npb.after(SEED, npb.FACTOR, 2 * BATCH * first)
    for _ in range((end - first) * BATCH):
        x = x * factor & mask
        u = 2 * npb.UNIT * np.float64(x) - 1
        x = x * factor & mask
        v = 2 * npb.UNIT * np.float64(x) - 1
        t = u * u + v * v
        if t <= 1:
            scale = math.sqrt(-2 * math.log(t) / t)
            u, v = u * scale, v * scale
            totals[2 + int(max(abs(u), abs(v)))] += 1
            totals[0] += u
            totals[1] += v


def serial(problem: Problem, team: Team) -> Result:
    """Draw alone."""
    totals = np.zeros(2 + RINGS)
    with team.timed():
        draw(0, problem.batches, totals)
    return {"totals": totals}


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """Draw a block of the batches and reduce."""
    mine = dsm.split(problem.batches, team.size, team.rank)
    part, totals = np.zeros(2 + RINGS), np.zeros(2 + RINGS)
    with team.timed():
        draw(mine.start, mine.stop, part)
        team.comm.Reduce(part, totals)
    return {"totals": totals}


def by_dsm(problem: Problem, team: Team) -> Result:
    """Draw a block of the batches and add up under a lock."""
    mine = dsm.split(problem.batches)
    part, totals, lock = np.zeros(2 + RINGS), dsm.zeros(2 + RINGS), dsm.Lock()
    with team.timed():
        draw(mine.start, mine.stop, part)
        with lock:
            totals += part
        dsm.barrier()
    return {"totals": totals}


def verify(problem: Problem, result: Result, reference: Result | None) -> None:
    """Sums within 1e-8, counts exactly: of the published values, else of serial."""
    expected = np.zeros(2 + RINGS)
    if problem.m in PUBLISHED:
        expected[: len(PUBLISHED[problem.m])] = PUBLISHED[problem.m]
    else:
        assert reference is not None
        expected[:] = reference["totals"]
    totals = result["totals"]
    error = float(np.abs(totals[:2] / expected[:2] - 1).max())
    require(error <= TOLERANCE, f"sums {totals[:2]} are {error:.1e} off {expected[:2]}")
    require(np.array_equal(totals[2:], expected[2:]), f"counts {totals[2:]} instead of {expected[2:]}")


APPS = (
    App(
        name="ep",
        title="NPB EP: Gaussian deviates in rings",
        pattern="none, one reduction",
        sizes={"tiny": 18, "small": 24, "paper": 25, "large": 28},
        make=Problem,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=by_dsm,
        verify=verify,
        memory=lambda m: 8 * (2 + RINGS),
        reach=0.95,
        grow=lambda m, ranks: m + (ranks - 1).bit_length(),  # to the next power of two
        paper=(7.9, 7.9),
    ),
)
