"""IS: rank integer keys, that is tell for each key how many of all keys are smaller; ten times.

Keys are those of the NAS Parallel Benchmarks, kernel IS (Bailey et al., RNR-94-007, section 2.2.5), two of which change
in each iteration.  The first iteration runs once more before the timing, as in NPB, so that all memory is there.

- `is-small` and `is-large` rank as the programs of Lu et al. 1995: ranks add up their counts of 2^7 or 2^15 values.
  With dsm each reads those of all; adding to shared ones, block by block under a lock each, took one and a half times
  as long on 2 ranks.  The ranks of all keys after the last iteration, and those of five keys after each, are the same
  as serial's.
- `is-npb` ranks classes S, W, A and B as NPB's own parallel program: keys go, grouped in 1,024 buckets, to the rank
  that owns the bucket.  The ranks of five keys after each iteration are those published (is.c of NPB), and the keys,
  laid out by their ranks after the timing, are sorted.

Each iteration puts the counts elsewhere, and begins elsewhere in a rank's keys: dsm would not send what stays the same
from one to the next, and MPI does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks import npb
from benchmarks.app import App, Result, Team, kernel, require

ITERATIONS = 10
BUCKETS_LOG2 = 10


class Size(NamedTuple):
    """Logarithms to base 2 of the number of keys, and of the number that they are below."""

    keys_log2: int
    limit_log2: int


class Problem(NamedTuple):
    """The keys, int32; the number that they are below; the places of the five keys whose ranks are looked at."""

    keys: np.ndarray
    limit: int
    tests: np.ndarray


# Classes S, W, A and B: places of five keys, and their ranks, from which each iteration moves those of the lower half
# up by one and the others down: a small and a large key take the places of two others.
PUBLISHED = {
    Size(16, 11): ((48427, 17148, 23627, 62548, 4431), (0, 18, 346, 64917, 65463)),
    Size(20, 16): ((357773, 934767, 875723, 898999, 404505), (1247, 11696, 1039987, 1043896, 1048018)),
    Size(23, 19): ((2112377, 662041, 5336171, 3642833, 4250760), (103, 17522, 123927, 8288933, 8388265)),
    Size(25, 21): ((41869, 812306, 5102857, 18232239, 26860214), (33422937, 10244, 59149, 33135281, 99)),
}


@kernel
def draw_keys(keys_log2: int, limit: int) -> np.ndarray:
    """Draw keys as sums of four uniform numbers."""
    keys = np.empty(1 << keys_log2, np.int32)
    x, factor, mask = np.uint64(npb.SEED), np.uint64(npb.FACTOR), np.uint64(npb.MASK)
    for i in range(len(keys)):
        total = 0.0
        for _ in range(4):
            x = x * factor & mask
            total += npb.UNIT * np.float64(x)
        keys[i] = int(limit / 4 * total)
    return keys


@kernel
def change(keys: np.ndarray, first: int, iteration: int, limit: int) -> None:
    """Change the two keys of an iteration, where `keys`, which begin with number `first`, contain them."""
    if first <= iteration < first + len(keys):
        keys[iteration - first] = iteration
    if first <= iteration + ITERATIONS < first + len(keys):
        keys[iteration + ITERATIONS - first] = limit - iteration


@kernel
def count(keys: np.ndarray, low: int, counts: np.ndarray) -> None:
    """Add to `counts` how often each number from `low` on is among the keys."""
    for key in keys:
        counts[key - low] += 1


@kernel
def rank_keys(keys: np.ndarray, smaller: np.ndarray, ranks: np.ndarray) -> None:
    """Look up the rank of each key."""
    for i in range(len(keys)):
        ranks[i] = smaller[keys[i]]


@kernel
def group(keys: np.ndarray, first: int, shift: int, sizes: np.ndarray, grouped: np.ndarray) -> None:
    """Group keys by their upper bits, taking them from key `first` on round to it, and count the groups in `sizes`."""
    sizes[:] = 0
    for key in keys:
        sizes[key >> shift] += 1
    place = np.cumsum(sizes) - sizes
    for part in (keys[first:], keys[:first]):
        for key in part:
            grouped[place[key >> shift]] = key
            place[key >> shift] += 1


def below(counts: np.ndarray) -> np.ndarray:
    """Return how many come before each of the things counted, and at the end how many there are."""
    sums = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=sums[1:])
    return sums


def run(iterate: Callable[[int], Any], team: Team) -> Any:
    """Time the iterations, after a first one that is not timed, and return what the last one returned."""
    last = iterate(1)
    with team.timed():
        for iteration in range(1, ITERATIONS + 1):
            last = iterate(iteration)
    return last


def make(size: Size) -> Problem:
    """Draw the keys."""
    places = PUBLISHED[size][0] if size in PUBLISHED else np.linspace(100, 2**size.keys_log2 - 1, 5).astype(int)
    return Problem(draw_keys(size.keys_log2, 2**size.limit_log2), 2**size.limit_log2, np.array(places))


# ---- small and large: every rank gets all counts ----


def serial(problem: Problem, team: Team) -> Result:
    """Rank all keys alone."""
    keys, ranks = problem.keys.copy(), np.empty_like(problem.keys)
    counts, test_ranks = np.empty(problem.limit, np.int32), np.empty((ITERATIONS, 5), np.int64)

    def iterate(iteration: int) -> None:
        change(keys, 0, iteration, problem.limit)
        counts[:] = 0
        count(keys, 0, counts)
        smaller = below(counts)
        rank_keys(keys, smaller, ranks)
        test_ranks[iteration - 1] = smaller[keys[problem.tests]]

    run(iterate, team)
    return {"ranks": ranks, "test_ranks": test_ranks}


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """Rank a block of the keys by the counts of all."""
    comm, n = team.comm, len(problem.keys)
    mine = dsm.split(n, team.size, team.rank)
    keys, test_keys = problem.keys[mine].copy(), problem.keys[problem.tests]
    ranks, counts = np.empty_like(keys), np.empty(problem.limit, np.int32)
    test_ranks = np.empty((ITERATIONS, 5), np.int64)

    def iterate(iteration: int) -> None:
        change(keys, mine.start, iteration, problem.limit)
        counts[:] = 0
        count(keys, 0, counts)
        comm.Allreduce(MPI.IN_PLACE, counts)
        smaller = below(counts)
        rank_keys(keys, smaller, ranks)
        test_ranks[iteration - 1] = smaller[test_keys]

    run(iterate, team)
    lengths = [part.stop - part.start for part in (dsm.split(n, team.size, rank) for rank in range(team.size))]
    all_ranks = np.empty_like(problem.keys) if team.rank == 0 else None
    comm.Gatherv(ranks, [all_ranks, lengths])
    return {"ranks": all_ranks, "test_ranks": test_ranks}


def by_dsm(problem: Problem, team: Team) -> Result:
    """Rank a block of the keys by the counts of all, of which each rank writes its own into an array that all read."""
    mine = dsm.split(len(problem.keys))
    keys, test_keys = problem.keys[mine].copy(), problem.keys[problem.tests]
    ranks, counts = dsm.zeros(problem.keys.shape, np.int32), np.empty(problem.limit, np.int32)
    test_ranks = np.empty((ITERATIONS, 5), np.int64)
    # Those of the last iteration may still be read.
    shared, last = ([dsm.zeros(problem.limit + ITERATIONS, np.int32) for _ in range(team.size)] for _ in range(2))

    def iterate(iteration: int) -> None:
        nonlocal shared, last
        change(keys, mine.start, iteration, problem.limit)
        counts[:] = 0
        count(keys, 0, counts)
        shared, last = last, shared
        place = slice(iteration - 1, iteration - 1 + problem.limit)
        shared[team.rank][place] = counts
        dsm.barrier()
        smaller = below(sum(part[place] for part in shared))
        rank_keys(keys, smaller, ranks[mine])
        test_ranks[iteration - 1] = smaller[test_keys]

    run(iterate, team)
    dsm.barrier()
    return {"ranks": ranks, "test_ranks": test_ranks}


def verify(problem: Problem, result: Result, reference: Result | None) -> None:
    """Rank by rank against serial."""
    assert reference is not None
    for name in ("ranks", "test_ranks"):
        wrong = int((result[name] != reference[name]).sum())
        require(wrong == 0, f"{wrong} of {reference[name].size} {name} differ from serial")


# ---- NPB: every rank gets the keys of some buckets ----


def in_order(low: int, counts: np.ndarray) -> np.ndarray:
    """Return as many keys of each number from `low` on as `counts` says."""
    return np.repeat(np.arange(len(counts), dtype=np.int32) + np.int32(low), counts)


def serial_npb(problem: Problem, team: Team) -> Result:
    """Count all keys alone."""
    keys = problem.keys.copy()
    counts, test_ranks = np.empty(problem.limit, np.int32), np.empty((ITERATIONS, 5), np.int64)

    def iterate(iteration: int) -> None:
        change(keys, 0, iteration, problem.limit)
        counts[:] = 0
        count(keys, 0, counts)
        test_ranks[iteration - 1] = below(counts)[keys[problem.tests]]

    run(iterate, team)
    return {"sorted": in_order(0, counts), "test_ranks": test_ranks}


def share(smaller: np.ndarray, parts: int) -> np.ndarray:
    """Deal out buckets so that each of `parts` ranks gets about as many keys: the first bucket of each, and the end."""
    firsts = np.searchsorted(smaller, smaller[-1] * np.arange(parts + 1) // parts)
    firsts[-1] = len(smaller) - 1
    return firsts


def note(ranks: np.ndarray, keys: np.ndarray, low: int, smaller: np.ndarray) -> None:
    """Set the ranks of those of the keys that are in the range from `low` on whose ranks `smaller` tells."""
    inside = (keys >= low) & (keys < low + len(smaller) - 1)
    ranks[inside] = smaller[keys[inside] - low]


def npb_by_mpi4py(problem: Problem, team: Team) -> Result:
    """Send keys to the rank that owns their bucket."""
    comm, shift = team.comm, problem.limit.bit_length() - 1 - BUCKETS_LOG2
    mine = dsm.split(len(problem.keys), team.size, team.rank)
    keys, test_keys = problem.keys[mine].copy(), problem.keys[problem.tests]
    grouped, received = np.empty_like(keys), np.empty_like(problem.keys)
    sizes = np.empty((team.size, 1 << BUCKETS_LOG2), np.int32)
    test_ranks = np.zeros((ITERATIONS, 5), np.int64)

    def iterate(iteration: int) -> tuple[int, np.ndarray, np.ndarray]:
        change(keys, mine.start, iteration, problem.limit)
        group(keys, iteration * len(keys) // 16, shift, sizes[team.rank], grouped)
        comm.Allgather(MPI.IN_PLACE, sizes)
        smaller = below(sizes.sum(axis=0))
        firsts = share(smaller, team.size)
        first, end = firsts[team.rank : team.rank + 2]
        receive = sizes[:, first:end].sum(axis=1)
        comm.Alltoallv([grouped, np.diff(below(sizes[team.rank])[firsts])], [received, receive])
        low, counts = first << shift, np.zeros((end - first) << shift, np.int32)
        count(received[: receive.sum()], low, counts)
        note(test_ranks[iteration - 1], test_keys, low, smaller[first] + below(counts))
        return low, counts, np.diff(smaller[firsts])

    low, counts, lengths = run(iterate, team)
    sorted_keys = np.empty_like(problem.keys) if team.rank == 0 else None
    comm.Gatherv(in_order(low, counts), [sorted_keys, lengths])
    all_ranks = np.empty_like(test_ranks)
    comm.Reduce(test_ranks, all_ranks)
    return {"sorted": sorted_keys, "test_ranks": all_ranks}


def npb_by_dsm(problem: Problem, team: Team) -> Result:
    """Group a block of the keys, and read those of the buckets that this rank owns from all blocks."""
    shift = problem.limit.bit_length() - 1 - BUCKETS_LOG2
    mine = dsm.split(len(problem.keys))
    keys, test_keys = problem.keys[mine].copy(), problem.keys[problem.tests]
    part, grouped = np.empty_like(keys), dsm.zeros(problem.keys.shape, np.int32)
    sizes = dsm.zeros((team.size, 1 << BUCKETS_LOG2), np.int32)
    test_ranks = np.zeros((ITERATIONS, 5), np.int64)

    def iterate(iteration: int) -> tuple[int, np.ndarray, int]:
        change(keys, mine.start, iteration, problem.limit)
        group(keys, iteration * len(keys) // 16, shift, sizes[team.rank], part)
        grouped[mine] = part
        dsm.barrier()
        smaller = below(sizes.sum(axis=0))
        first, end = share(smaller, team.size)[team.rank : team.rank + 2]
        low, counts = first << shift, np.zeros((end - first) << shift, np.int32)
        for rank in range(team.size):
            block, starts = grouped[dsm.split(len(grouped), team.size, rank)], below(sizes[rank])
            count(block[starts[first] : starts[end]], low, counts)
        dsm.barrier()  # all have read
        note(test_ranks[iteration - 1], test_keys, low, smaller[first] + below(counts))
        return low, counts, smaller[first]

    low, counts, place = run(iterate, team)
    sorted_keys, all_ranks = dsm.zeros_like(grouped), dsm.zeros((team.size, *test_ranks.shape), np.int64)
    sorted_keys[place : place + counts.sum()] = in_order(low, counts)
    all_ranks[team.rank] = test_ranks
    dsm.barrier()
    return {"sorted": sorted_keys, "test_ranks": all_ranks.sum(axis=0)}


def verify_npb(problem: Problem, result: Result, reference: Result | None) -> None:
    """Five ranks as published after each iteration, and the keys of the last one sorted."""
    n, keys = len(problem.keys), problem.keys.copy()
    published = np.array(PUBLISHED[Size(n.bit_length() - 1, problem.limit.bit_length() - 1)][1])
    for iteration in range(1, ITERATIONS + 1):
        change(keys, 0, iteration, problem.limit)
        ranks = result["test_ranks"][iteration - 1]
        expected = published + np.where(published < n / 2, 1, -1) * iteration
        require(np.array_equal(ranks, expected), f"iteration {iteration}: ranks {ranks} instead of {expected}")
    wrong = int((result["sorted"] != in_order(0, np.bincount(keys, minlength=problem.limit))).sum())
    require(wrong == 0, f"{wrong} of {n} keys are not where they belong")


def as_in_1995(name: str, limit_log2: int, reach: float, paper_note: str) -> App:
    """Make the application of a size of Lu et al. 1995."""
    logs = {"tiny": 14, "small": 22, "paper": 20, "large": 25}
    return App(
        name=name,
        title=f"integer sort, keys below 2^{limit_log2}",
        pattern="histogram by blocks under locks",
        sizes={size: Size(keys_log2, limit_log2) for size, keys_log2 in logs.items()},
        make=make,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=by_dsm,
        verify=verify,
        memory=lambda size: 2 * 4 * 2**size.keys_log2 + 4 * 2**size.limit_log2,
        reach=reach,
        paper_note=paper_note,
    )


APPS = (
    as_in_1995("is-small", 7, 0.90, "TreadMarks 10-30 % behind PVM"),
    as_in_1995("is-large", 15, 0.80, "TreadMarks 2 x behind PVM"),
    App(
        name="is-npb",
        title="NPB IS: integer sort by buckets",
        pattern="all-to-all of keys",
        sizes={"tiny": Size(16, 11), "small": Size(20, 16), "paper": Size(23, 19), "large": Size(25, 21)},
        make=make,
        serial=serial_npb,
        mpi4py=npb_by_mpi4py,
        dsm=npb_by_dsm,
        verify=verify_npb,
        memory=lambda size: 2 * 4 * 2**size.keys_log2,
        reach=0.80,
        published=True,
    ),
)
