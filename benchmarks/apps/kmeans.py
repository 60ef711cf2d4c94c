"""K-means by Lloyd's iterations: each point joins the nearest centre, and each centre moves to the mean of its points.

Coordinates are whole numbers, so the sums of points are exact in any order, and centres and labels are the serial ones
bit by bit.  Each rank has its block of the points from the start; the centres are the first points.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks.app import App, Result, Team, kernel, require

DIMENSIONS = 16


class Size(NamedTuple):
    """Numbers of points and of groups, and iterations."""

    points: int
    groups: int
    iterations: int


class Problem(NamedTuple):
    """The points, shape (points, 16), whole numbers as float64; groups and iterations."""

    points: np.ndarray
    groups: int
    iterations: int


@kernel
def assign(points: np.ndarray, centers: np.ndarray, labels: np.ndarray, sums: np.ndarray) -> None:
    """Label points with the nearest centre, and add each, with a one behind it, to the sums of its group.

    Shapes: points (n, d), centers (k, d), labels (n,), sums (k, d + 1).
    """
    d = points.shape[1]
    for i in range(len(points)):
        nearest, least = 0, np.inf
        for group in range(len(centers)):
            distance = 0.0
            for j in range(d):
                distance += (points[i, j] - centers[group, j]) ** 2
            if distance < least:
                nearest, least = group, distance
        labels[i] = nearest
        for j in range(d):
            sums[nearest, j] += points[i, j]
        sums[nearest, d] += 1


def renew(centers: np.ndarray, sums: np.ndarray) -> None:
    """Move each centre to the mean of its group; the centre of an empty group stays."""
    used = sums[:, -1] > 0
    centers[used] = sums[used, :-1] / sums[used, -1:]


def make(size: Size) -> Problem:
    """Draw points around as many places as there are groups, which overlap."""
    random = np.random.default_rng(1)
    places = random.integers(-500, 500, (size.groups, DIMENSIONS), np.int16)
    points = places[random.integers(size.groups, size=size.points)]
    points += random.integers(-300, 300, points.shape, np.int16)
    return Problem(points.astype(float), size.groups, size.iterations)


def serial(problem: Problem, team: Team) -> Result:
    """Solve alone."""
    centers = problem.points[: problem.groups].copy()
    sums = np.zeros((problem.groups, DIMENSIONS + 1))
    labels = np.zeros(len(problem.points), np.int32)
    with team.timed():
        for _ in range(problem.iterations):
            sums[:] = 0
            assign(problem.points, centers, labels, sums)
            renew(centers, sums)
    return {"centers": centers, "labels": labels}


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """Reduce the sums, with which each rank renews its copy of the centres."""
    comm, n = team.comm, len(problem.points)
    points = problem.points[dsm.split(n, team.size, team.rank)].copy()
    centers = problem.points[: problem.groups].copy()
    sums = np.zeros((problem.groups, DIMENSIONS + 1))
    labels = np.zeros(len(points), np.int32)
    with team.timed():
        for _ in range(problem.iterations):
            sums[:] = 0
            assign(points, centers, labels, sums)
            comm.Allreduce(MPI.IN_PLACE, sums)
            renew(centers, sums)
    blocks = [dsm.split(n, team.size, rank) for rank in range(team.size)]
    everybody = np.empty(n, np.int32) if team.rank == 0 else None
    comm.Gatherv(labels, [everybody, [block.stop - block.start for block in blocks]])
    return {"centers": centers, "labels": everybody}


def by_dsm(problem: Problem, team: Team) -> Result:
    """Add to shared sums under a lock, which are new ones in each iteration; a barrier, and all renew their centres."""
    n, shape = len(problem.points), (problem.groups, DIMENSIONS + 1)
    mine = dsm.split(n)
    points = dsm.zeros(problem.points.shape)
    points[mine] = problem.points[mine]
    labels = dsm.zeros(n, np.int32)
    sums, lock = dsm.zeros((problem.iterations, *shape)), dsm.Lock()
    centers = problem.points[: problem.groups].copy()
    dsm.barrier()
    with team.timed():
        for step in range(problem.iterations):
            part = np.zeros(shape)
            assign(points[mine], centers, labels[mine], part)
            with lock:
                sums[step] += part
            dsm.barrier()
            renew(centers, sums[step])
    return {"centers": centers, "labels": labels}


def verify(problem: Problem, result: Result, reference: Result | None) -> None:
    """Bit by bit against serial."""
    assert reference is not None
    for name in "labels", "centers":
        wrong = int((result[name] != reference[name]).sum())
        require(wrong == 0, f"{wrong} of {reference[name].size} {name} differ from serial")


APPS = (
    App(
        name="kmeans",
        title="K-means by Lloyd's iterations",
        pattern="read-mostly points, shared sums under a lock",
        sizes={
            "tiny": Size(300, 5, 6),
            "small": Size(100_000, 16, 10),
            "paper": Size(1_000_000, 16, 10),
            "large": Size(2_000_000, 32, 10),
        },
        make=make,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=by_dsm,
        verify=verify,
        memory=lambda size: size.points * (8 * DIMENSIONS + 4),
        reach=0.95,
        grow=lambda size, ranks: size._replace(points=size.points * ranks),
    ),
)
