"""Shortest round trip through the cities of a TSPLIB instance, by branch and bound.

A task is a tour that has been begun.  The tasks lie on a stack in shared memory; any rank takes any of them, and either
extends it by one city, which makes new tasks, or, when it is long enough, finishes it alone.  The best tour so far is
shared too, and cuts off tasks that cannot beat it.  A lock each guards the stack and the best tour, and who takes the
lock sees all that was written under it before.  A rank that finds the stack empty waits on a condition.

    mpiexec -n 4 python tsp.py                      # or: python -m dsm run -n 4 tsp.py
    mpiexec -n 4 python tsp.py gr17 --depth 4
"""

import argparse
import math
import time
from functools import cache
from pathlib import Path

import numpy as np

import dsm

DATA = Path(__file__).parent / "data"
OPTIMUM = {"burma14": 3323, "ulysses16": 6859, "gr17": 2085}  # as published with TSPLIB


def read_tsplib(path):
    """Distances between the cities of a TSPLIB file with GEO coordinates or a LOWER_DIAG_ROW matrix."""
    header, _, body = path.read_text().partition("_SECTION\n")
    fields = dict(line.split(":", 1) for line in header.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    n, numbers = int(fields["DIMENSION"]), body.replace("EOF", "").split()
    if fields["EDGE_WEIGHT_TYPE"] == "GEO":
        return geo_distances(np.array(numbers, float).reshape(n, 3)[:, 1:])
    if fields.get("EDGE_WEIGHT_FORMAT") != "LOWER_DIAG_ROW":
        raise ValueError(f"{path.name}: only GEO and LOWER_DIAG_ROW are understood")
    distance = np.zeros((n, n), int)
    distance[np.tril_indices(n)] = [int(x) for x in numbers]
    return distance + distance.T


def geo_distances(coordinates):
    """Kilometres between points given as DDD.MM, rounded as TSPLIB prescribes (Reinelt 1995, section 2.4)."""
    degrees = np.trunc(coordinates)
    radians = 3.141592 * (degrees + 5 * (coordinates - degrees) / 3) / 180
    latitude, longitude = radians.T
    q1 = np.cos(longitude[:, None] - longitude)
    q2 = np.cos(latitude[:, None] - latitude)
    q3 = np.cos(latitude[:, None] + latitude)
    cosine = np.clip(0.5 * ((1 + q1) * q2 - (1 - q1) * q3), -1, 1)
    distance = (6378.388 * np.arccos(cosine) + 1).astype(int)
    np.fill_diagonal(distance, 0)
    return distance


def held_karp(distance):
    """Length of the shortest tour by dynamic programming over sets of cities: the serial reference."""
    n = len(distance) - 1  # city n is where the tour starts and ends
    shortest = np.full((1 << n, n), np.inf)  # to visit a set and end in a city of it
    shortest[1 << np.arange(n), np.arange(n)] = distance[n, :n]
    for cities in range(1, 1 << n):
        reach = (shortest[cities][:, None] + distance[:n, :n]).min(axis=0)
        for city in range(n):
            if not cities >> city & 1:
                shortest[cities | 1 << city, city] = min(shortest[cities | 1 << city, city], reach[city])
    return int((shortest[-1] + distance[n, :n]).min())


def spanning_tree(distance, cities):
    """Length of the shortest tree over `cities`, and each city's number of branches, by Prim's method."""
    length, degree = 0, [0] * len(distance)
    near = {city: (distance[cities[0]][city], cities[0]) for city in cities[1:]}
    while near:
        city = min(near, key=near.get)
        step, branch = near.pop(city)
        length, degree[city], degree[branch] = length + step, degree[city] + 1, degree[branch] + 1
        for other in near:
            near[other] = min(near[other], (distance[city][other], city))
    return length, degree


def charge_cities(distance, rounds=100):
    """A charge for entering or leaving each city, so that shortest trees look like tours (Held and Karp 1971).

    It makes every tour longer by twice the sum of the charges, and the search far shorter.
    """
    charge = np.zeros(len(distance), int)
    for step in np.linspace(distance.mean() / 2, 0, rounds):
        charged = (distance + charge + charge[:, None]).tolist()
        degree = np.array(spanning_tree(charged, range(len(distance)))[1])
        charge += np.rint(step * (degree - degree.mean())).astype(int)
    return charge - charge.min()


class Search:
    """Depth-first search below a begun tour; a spanning tree of the cities left tells what the rest costs at least."""

    def __init__(self, distance):
        self.distance = distance.tolist()  # plain lists: scalars are what the inner loop handles
        self.by_distance = [sorted(range(len(distance)), key=row.__getitem__) for row in self.distance]
        self.tree_length = cache(self.tree_length)

    def tree_length(self, left):
        return spanning_tree(self.distance, [city for city in range(len(self.distance)) if left >> city & 1])[0]

    def children(self, tour, length, best):
        """The tours that are one city longer and may still beat `best`, nearest city first."""
        here, home = self.distance[tour[-1]], self.distance[tour[0]]
        left = (1 << len(home)) - 1
        for city in tour:
            left &= ~(1 << city)
        tree = self.tree_length(left)
        to_home = min(home[city] for city in range(len(home)) if left >> city & 1)
        for city in self.by_distance[tour[-1]]:
            if left >> city & 1:
                if length + here[city] + tree + to_home >= best:
                    return
                yield [*tour, city], length + here[city]

    def finish(self, tour, length, best):
        """Best way to end the tour: (tour, length), or (None, best) when none is shorter than `best`."""
        if len(tour) == len(self.distance):
            length += self.distance[tour[-1]][tour[0]]
            return (tour, length) if length < best else (None, best)
        found = None
        for child, child_length in self.children(tour, length, best):
            if child_length < best:
                better, best = self.finish(child, child_length, best)
                found = better or found
        return found, best


class SharedStack:
    """Tasks of all ranks, and how many ranks work on one: when both are zero, all is done."""

    def __init__(self, cities, capacity):
        self.changed = dsm.Condition()
        self.tasks = dsm.zeros((capacity, cities), np.int8, name="tasks")
        self.sizes = dsm.zeros((capacity, 2), np.int64, name="task sizes")  # cities and length of each task
        self.state = dsm.zeros(2, np.int64, name="stack height, busy ranks")

    def exchange(self, tasks):
        """Put new tasks on the stack and take one off; None when no rank can make any more."""
        with self.changed:
            height, busy = self.state.tolist()
            for tour, length in tasks:
                self.tasks[height, : len(tour)] = tour
                self.sizes[height] = len(tour), length
                height += 1
            self.state[:] = height, busy - 1
            if busy == 1:  # no other rank can make any
                self.changed.notify_all()
            else:
                self.changed.notify(len(tasks))
            self.changed.wait_for(lambda: self.state[0] > 0 or self.state[1] == 0)
            height, busy = self.state.tolist()
            if not height:
                return None
            self.state[:] = height - 1, busy + 1
            cities, length = self.sizes[height - 1].tolist()
            return self.tasks[height - 1, :cities].tolist(), length


def solve(distance, depth, capacity, charge):
    """Length of the shortest tour, the tour, and how many tasks this rank worked on.  Collective."""
    n = len(distance)
    charges = (charge_cities(distance) * charge).astype(int)
    search = Search(distance + charges + charges[:, None])
    stack = SharedStack(n, capacity)
    best_lock = dsm.Lock()
    best = dsm.full(1, math.inf, name="best length")
    best_tour = dsm.zeros(n, np.int8, name="best tour")
    new_tasks, tasks = [], 0
    if dsm.rank() == 0:
        stack.state[1] = dsm.size()  # all ranks are busy until they find the stack empty
        new_tasks = [([0], 0)]
    dsm.barrier()
    while task := stack.exchange(new_tasks):
        tasks, new_tasks = tasks + 1, []
        with best_lock:
            bound = float(best[0])
        if len(task[0]) < depth:
            new_tasks = list(search.children(*task, bound))[::-1]
            continue
        tour, length = search.finish(*task, bound)
        if tour:
            with best_lock:
                if length < best[0]:
                    best[0], best_tour[:] = length, tour
    dsm.barrier()
    return int(best[0]) - 2 * int(charges.sum()), best_tour.tolist(), tasks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instances", nargs="*", default=list(OPTIMUM), help="names in examples/data, or files")
    parser.add_argument("--depth", type=int, default=3, help="cities of a task that a rank finishes alone")
    parser.add_argument(
        "--charge", type=float, default=0.5, help="share of the charges on cities: 0 searches long, 1 not"
    )
    parser.add_argument("--capacity", type=int, default=20_000, help="tasks that fit the stack")
    options = parser.parse_args()
    dsm.init()
    for name in options.instances:
        path = Path(name) if name.endswith(".tsp") else DATA / f"{name}.tsp"
        distance = read_tsplib(path)
        dsm.stats(reset=True)
        start = time.perf_counter()
        length, tour, tasks = solve(distance, min(options.depth, len(distance)), options.capacity, options.charge)
        seconds = time.perf_counter() - start
        per_rank = dsm.zeros(dsm.size(), int)
        per_rank[dsm.rank()] = tasks
        dsm.barrier()
        assert sorted(tour) == list(range(len(distance)))
        assert length == sum(distance[a, b] for a, b in zip(tour, tour[1:] + tour[:1], strict=True))
        if dsm.rank() == 0:
            assert length == held_karp(distance)
            assert length == OPTIMUM.get(path.stem, length)
            print(f"{path.stem}: shortest tour {length}, as by dynamic programming: {'-'.join(map(str, tour))}")
            print(f"  {dsm.size()} ranks worked on {per_rank.tolist()} tasks in {seconds:.2f} s")
            print(f"  {dsm.stats()}")


if __name__ == "__main__":
    main()
