"""TSP: the shortest round trip through all cities, by branch and bound (Lu et al., SC'95).

Begun tours lie in a pool, the one with the lowest bound on top.  Who takes a task from it extends the top tours, city
by city, until one has so many cities that the rest is searched alone, depth first.  The bound in the pool is the
shortest tree through the cities that are left; the one in the search, which must be cheap, is half the sum of what
entering and leaving each of them costs at least.

The work of branch and bound depends on luck when a good tour comes late.  Here the search begins with the tour that
2-opt makes of the nearest neighbours, and the pool hands out the most promising tasks first.  With the seeds chosen
the best tour, which is a few per cent shorter, comes in the first tasks, and a search that begins with it takes at most
a tenth less time.  Cities are random points (19 in the paper) or an instance of TSPLIB, whose optimum is published.

The tour of all versions must be a permutation of the cities with the length that they say, and the length that of the
serial one, and of TSPLIB.
"""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks.app import App, Result, Team, kernel, require
from benchmarks.counting import CountedComm

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Size(NamedTuple):
    """Cities, how many of them a task has, and the seed of the others' places or the name of a TSPLIB instance."""

    cities: int
    begun: int
    source: int | str


class Problem(NamedTuple):
    """Distances, int64 of shape (n, n), the first tour and its length, cities of a task, and the optimum if published.

    `ends` has the two shortest ways from each city, int64 of shape (2, n).
    """

    distance: np.ndarray
    ends: np.ndarray
    tour: np.ndarray
    length: int
    begun: int
    optimum: int | None


@kernel
def bound(distance: np.ndarray, tour: np.ndarray, begun: int, length: int) -> int:
    """Return what any tour that begins with `begun` cities of `tour` is long at least: a shortest tree, by Prim."""
    here, home, left = tour[begun - 1], tour[0], tour[begun:].copy()
    to_here, to_home = distance[here, left[0]], distance[home, left[0]]
    near = np.empty(len(left), np.int64)
    for i in range(len(left)):
        to_here = min(to_here, distance[here, left[i]])
        to_home = min(to_home, distance[home, left[i]])
        near[i] = distance[left[0], left[i]]
    first = 1  # of those outside the tree
    while first < len(left):
        nearest = first + np.argmin(near[first:])
        city = left[nearest]
        length += near[nearest]
        left[nearest], near[nearest] = left[first], near[first]
        first += 1
        for i in range(first, len(left)):
            near[i] = min(near[i], distance[city, left[i]])
    return length + to_here + to_home


@kernel
def push(heap: np.ndarray, tours: np.ndarray, tour: np.ndarray, begun: int, length: int, lowest: int) -> None:
    """Put a begun tour into the pool."""
    heap[0, 0] += 1
    i = heap[0, 0]
    slot = heap[i, 1]
    tours[slot, 0], tours[slot, 1], tours[slot, 2:] = begun, length, tour
    while i > 1 and lowest < heap[i // 2, 0]:
        heap[i] = heap[i // 2]
        i //= 2
    heap[i, 0], heap[i, 1] = lowest, slot


@kernel
def pop(heap: np.ndarray) -> int:
    """Take the tour with the lowest bound off the pool, and return its slot, which is free now."""
    slot, last = heap[1, 1], heap[0, 0]
    lowest, moved = heap[last, 0], heap[last, 1]
    heap[0, 0] = last - 1
    i = 1
    while 2 * i < last:
        child = 2 * i
        if child + 1 < last and heap[child + 1, 0] < heap[child, 0]:
            child += 1
        if lowest <= heap[child, 0]:
            break
        heap[i] = heap[child]
        i = child
    heap[i, 0], heap[i, 1] = lowest, moved
    heap[last, 1] = slot
    return slot


@kernel
def take(distance: np.ndarray, heap: np.ndarray, tours: np.ndarray, begun: int, best: int, tour: np.ndarray) -> int:
    """Extend the top of the pool until it has `begun` cities; put it into `tour` and return its length, or -1.

    There is no task any more when nothing in the pool can be shorter than `best`.
    """
    while heap[0, 0] and heap[1, 0] < best:
        slot = pop(heap)
        cities, length = tours[slot, 0], tours[slot, 1]
        tour[:] = tours[slot, 2:]
        if cities == begun:
            return length
        here = tour[cities - 1]
        for k in range(cities, len(tour)):
            tour[cities], tour[k] = tour[k], tour[cities]
            longer = length + distance[here, tour[cities]]
            lowest = bound(distance, tour, cities + 1, longer)
            if lowest < best:
                push(heap, tours, tour, cities + 1, longer, lowest)
            tour[cities], tour[k] = tour[k], tour[cities]
    return -1


@kernel
def search(
    distance: np.ndarray,
    ends: np.ndarray,
    tour: np.ndarray,
    begun: int,
    length: int,
    rest: int,
    best: int,
    best_tour: np.ndarray,
) -> int:
    """Search all ends of a begun tour, `rest` being twice what they cost at least; return the length of the best.

    `best_tour` gets it if it is shorter than `best`; `tour` is as before.
    """
    here = tour[begun - 1]
    if begun == len(tour):
        length += distance[here, tour[0]]
        if length < best:
            best_tour[:] = tour
        return min(length, best)
    for k in range(begun, len(tour)):
        city = tour[k]
        longer = length + distance[here, city]
        if 2 * longer + rest - ends[1, city] < 2 * best:
            tour[begun], tour[k] = city, tour[begun]
            left = rest - ends[0, city] - ends[1, city]
            best = search(distance, ends, tour, begun + 1, longer, left, best, best_tour)
            tour[begun], tour[k] = tour[k], city
    return best


@kernel
def finish(
    distance: np.ndarray, ends: np.ndarray, tour: np.ndarray, begun: int, length: int, best: int, best_tour: np.ndarray
) -> int:
    """Search all ends of a task."""
    rest = ends[:, tour[begun:]].sum() + ends[0, tour[0]]
    return search(distance, ends, tour, begun, length, rest, best, best_tour)


def length_of(distance: np.ndarray, tour: np.ndarray) -> int:
    """Add up a round trip."""
    return int(distance[tour, np.roll(tour, -1)].sum())


def first_tour(distance: np.ndarray) -> np.ndarray:
    """Go to the nearest city each time, and turn pieces around as long as that makes the tour shorter."""
    tour = np.arange(len(distance))
    for i in range(1, len(tour)):
        nearest = i + distance[tour[i - 1], tour[i:]].argmin()
        tour[[i, nearest]] = tour[[nearest, i]]
    shorter = True
    while shorter:
        shorter = False
        for i in range(1, len(tour)):
            for j in range(i + 1, len(tour)):
                turned = np.concatenate([tour[:i], tour[i : j + 1][::-1], tour[j + 1 :]])
                if length_of(distance, turned) < length_of(distance, tour):
                    tour, shorter = turned, True
    return tour


def make(size: Size) -> Problem:
    """Read the instance, or draw places in a square of 1000 x 1000; distances are whole numbers."""
    optimum = None
    if isinstance(size.source, str):
        example = runpy.run_path(str(EXAMPLES / "tsp.py"))
        distance = example["read_tsplib"](EXAMPLES / "data" / f"{size.source}.tsp")
        optimum = example["OPTIMUM"][size.source]
    else:
        x, y = np.random.default_rng(size.source).integers(1000, size=(2, size.cities))
        distance = np.rint(np.hypot(x - x[:, None], y - y[:, None])).astype(np.int64)
    ends = np.sort(distance + np.diag(distance.max(axis=1)), axis=0)[:2]
    tour = first_tour(distance)
    return Problem(distance, ends, tour, length_of(distance, tour), size.begun, optimum)


def pool(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Begin: a heap and the tours that lie in it, int32.

    Row 0 of the heap counts its tours; the others are bounds and slots, first those in use.  A tour's row is its number
    of cities, their length, and all cities, those it has before the others.
    """
    n = len(problem.distance)
    slots = math.perm(n - 1, problem.begun - 1) + 1
    heap, tours = np.zeros((slots + 1, 2), np.int32), np.zeros((slots, 2 + n), np.int32)
    heap[1:, 1] = np.arange(slots)
    push(heap, tours, np.arange(n), 1, 0, 0)
    return heap, tours


def serial(problem: Problem, team: Team) -> Result:
    """Solve alone."""
    distance, ends, best_tour, best, begun, _ = problem
    heap, tours = pool(problem)
    tour, best_tour = best_tour.copy(), best_tour.copy()
    with team.timed():
        while (length := take(distance, heap, tours, begun, best, tour)) >= 0:
            best = finish(distance, ends, tour, begun, length, best, best_tour)
    return {"length": best, "tour": best_tour}


def list_tasks(problem: Problem) -> tuple[list[np.ndarray], list[int]]:
    """Return the tours of all tasks, and their lengths, the lowest bound first."""
    heap, tours = pool(problem)
    tour, tasks, lengths = np.empty_like(problem.tour), [], []
    while (length := take(problem.distance, heap, tours, problem.begun, problem.length, tour)) >= 0:
        tasks.append(tour.copy())
        lengths.append(length)
    return tasks, lengths


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """Every rank lists the tasks, which takes no message and little time, and they share out the list.

    A window on rank 0 holds the number of the next task and the best length.  A rank fetches both while it works on the
    task before, and so does not wait where rank 0, which computes, must answer.  A master would take a core.
    """
    distance, ends, best_tour, best, begun, _ = problem
    best_tour = best_tour.copy()
    window = MPI.Win.Allocate(16 if team.rank == 0 else 0, 8, comm=MPI.COMM_WORLD)
    window.Lock_all()
    if team.rank == 0:
        np.frombuffer(window, np.int64)[:] = 0, best
        window.Sync()
    team.comm.Barrier()
    one, own, ticket, lowest = (np.array([value], np.int64) for value in (1, best, 0, 0))

    def ask() -> list[MPI.Request]:
        if isinstance(team.comm, CountedComm) and team.rank:
            team.comm.add(4, 4 * 8)
        own[0] = best
        return [
            window.Rget_accumulate(one, ticket, 0, 0, MPI.SUM),
            window.Rget_accumulate(own, lowest, 0, 1, MPI.MIN),
        ]

    with team.timed():
        requests = ask()
        tasks, lengths = list_tasks(problem)
        while True:
            MPI.Request.Waitall(requests)
            task, best = int(ticket[0]), min(best, int(lowest[0]))
            if task >= len(tasks) or bound(distance, tasks[task], begun, lengths[task]) >= best:
                break  # the bounds of all later ones are as high
            requests = ask()
            best = finish(distance, ends, tasks[task], begun, lengths[task], best, best_tour)
    window.Unlock_all()
    window.Free()
    best, rank = team.comm.allreduce((length_of(distance, best_tour), team.rank), MPI.MINLOC)
    team.comm.Bcast(best_tour, rank)
    return {"length": best, "tour": best_tour}


def by_dsm(problem: Problem, team: Team) -> Result:
    """The serial program on a shared pool, with a lock around what is shared."""
    distance, ends, _, _, begun, _ = problem
    heap, tours = (dsm.array(part) for part in pool(problem))
    best, best_tour, lock = dsm.array([problem.length]), dsm.array(problem.tour), dsm.Lock()
    tour, found = np.empty_like(problem.tour), np.empty_like(problem.tour)
    dsm.barrier()
    with team.timed():
        while True:
            with lock:
                known = int(best[0])
                length = take(distance, heap, tours, begun, known, tour)
            if length < 0:
                break
            length = finish(distance, ends, tour, begun, length, known, found)
            if length < known:
                with lock:
                    if length < best[0]:
                        best[0], best_tour[:] = length, found
    dsm.barrier()
    return {"length": best[0], "tour": best_tour}


def verify(problem: Problem, result: Result, reference: Result | None) -> None:
    """The shortest tour may be another one than serial's."""
    assert reference is not None
    length, tour = int(result["length"]), result["tour"]
    require(sorted(tour) == list(range(len(problem.tour))), f"{tour} is not a permutation of the cities")
    real = length_of(problem.distance, tour)
    require(length == real, f"the tour's length is {real}, not {length}")
    require(length == reference["length"], f"length {length}, but serial found {reference['length']}")
    require(problem.optimum in (None, length), f"length {length}, but TSPLIB says {problem.optimum}")


APPS = (
    App(
        name="tsp",
        title="Travelling salesman by branch and bound",
        pattern="work queue and bound under locks",
        sizes={
            "tiny": Size(14, 3, "burma14"),
            "small": Size(18, 4, 6),
            "paper": Size(19, 3, 338),
            "large": Size(21, 4, 45),
        },
        make=make,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=by_dsm,
        verify=verify,
        memory=lambda size: 4 * math.perm(size.cities - 1, size.begun - 1) * (size.cities + 4),
        reach=0.90,
        paper_note="TSP 10-30 % behind PVM, the queue lies under a lock",
    ),
)
