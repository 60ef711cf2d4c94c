"""Barnes-Hut: gravitation between bodies, with distant groups of them taken as one (Barnes and Hut 1986).

The tree is built anew in each step, from all bodies, by every rank for itself, into private memory; a rank computes
the forces on its own block of bodies and moves them.  The bodies are a Plummer model (Aarseth, Henon and Wielen 1974)
with the parameters of Barnes of SPLASH.  They are in random order, so blocks of equal size take about equally long.

Every version builds the same tree from the same positions: the result is bit-identical to the serial one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks.app import App, Result, Team, kernel, require

THETA = 1.0  # a cell that looks smaller than this, edge over distance, is taken as one
SOFTENING = 0.05
DT = 0.025
EMPTY = -1
STACK = 512  # nodes left to look at: a tree of distinct doubles is less than 64 deep, and a level leaves at most 7


class Size(NamedTuple):
    """Bodies and steps."""

    n: int
    steps: int


class Problem(NamedTuple):
    """Positions and velocities at first, shape (n, 3), of bodies of mass 1/n; steps."""

    position: np.ndarray
    velocity: np.ndarray
    steps: int


class Tree(NamedTuple):
    """The memory of a tree: node k < n is body k, and cell c is node n + c; cell 0 is the root.

    Attributes
    ----------
    children : array of int32, shape (cells, 8)
        Nodes, or EMPTY.
    middle : array of float, shape (cells, 3)
        Of the cell.
    edge : array of float, shape (cells,)
        Of the cell.
    center : array of float, shape (n + cells, 4)
        Centre of mass, and mass, of each node.
    """

    children: np.ndarray
    middle: np.ndarray
    edge: np.ndarray
    center: np.ndarray


def new_tree(n: int) -> Tree:
    """Return memory for a tree of `n` bodies with as many cells, which Plummer models do not use up."""
    return Tree(np.empty((n, 8), np.int32), np.empty((n, 3)), np.empty(n), np.empty((2 * n, 4)))


@kernel
def octant(middle: np.ndarray, place: np.ndarray) -> int:
    """Tell in which of the eight parts of a cell a place lies."""
    return 4 * (place[0] >= middle[0]) + 2 * (place[1] >= middle[1]) + (place[2] >= middle[2])


@kernel
def add_cell(tree: Tree, cells: int, parent: int, part: int) -> None:
    """Make cell number `cells` of one of the eight parts of cell `parent`."""
    if cells == len(tree.children):
        raise RuntimeError("the tree has no room for another cell")
    quarter = 0.25 * tree.edge[parent]
    for k in range(3):
        tree.middle[cells, k] = tree.middle[parent, k] + (quarter if part >> (2 - k) & 1 else -quarter)
    tree.edge[cells] = 0.5 * tree.edge[parent]
    tree.children[cells] = EMPTY


@kernel
def insert_bodies(position: np.ndarray, tree: Tree) -> int:
    """Hang each body into a cell part of its own, and return the number of cells."""
    n = len(position)
    tree.children[0] = EMPTY
    tree.middle[0] = 0.0
    tree.edge[0] = 2.0 * np.abs(position).max()
    cells = 1
    for body in range(n):
        cell = 0
        part = octant(tree.middle[0], position[body])
        while tree.children[cell, part] != EMPTY:
            child = tree.children[cell, part]
            if child < n:  # a body, which moves into a new cell
                add_cell(tree, cells, cell, part)
                tree.children[cells, octant(tree.middle[cells], position[child])] = child
                child = n + cells
                tree.children[cell, part] = child
                cells += 1
            cell = child - n
            part = octant(tree.middle[cell], position[body])
        tree.children[cell, part] = body
    return cells


@kernel
def build_tree(position: np.ndarray, tree: Tree) -> None:
    """Make the tree of all bodies, with the centres of mass."""
    n = len(position)
    center = tree.center
    for body in range(n):
        center[body, :3] = position[body]
        center[body, 3] = 1.0 / n
    for cell in range(insert_bodies(position, tree) - 1, -1, -1):  # a cell comes before its children
        node = n + cell
        center[node] = 0.0
        for child in tree.children[cell]:
            if child != EMPTY:
                for k in range(3):
                    center[node, k] += center[child, 3] * center[child, k]
                center[node, 3] += center[child, 3]
        center[node, :3] /= center[node, 3]


@kernel
def pull(tree: Tree, n: int, body: int, stack: np.ndarray) -> tuple[float, float, float]:
    """Return the acceleration of a body; `stack` is memory for nodes to look at."""
    x, y, z = tree.center[body, 0], tree.center[body, 1], tree.center[body, 2]
    ax = ay = az = 0.0
    stack[0] = n
    height = 1
    while height > 0:
        height -= 1
        node = stack[height]
        dx, dy, dz = tree.center[node, 0] - x, tree.center[node, 1] - y, tree.center[node, 2] - z
        square = dx * dx + dy * dy + dz * dz
        if node < n or tree.edge[node - n] ** 2 < THETA**2 * square:
            square += SOFTENING**2
            f = tree.center[node, 3] / (square * np.sqrt(square))  # times 0 for the body itself
            ax += f * dx
            ay += f * dy
            az += f * dz
        else:
            for child in tree.children[node - n]:
                if child != EMPTY:
                    stack[height] = child
                    height += 1
    return ax, ay, az


@kernel
def step(old: np.ndarray, tree: Tree, first: int, new: np.ndarray, velocity: np.ndarray) -> None:
    """Build the tree of all bodies, and move those from `first` on into `new`, with their velocities.

    `old` has shape (n, 3); `new` and `velocity` are the rows of one block.
    """
    build_tree(old, tree)
    stack = np.empty(STACK, np.int32)
    for i in range(len(new)):
        acceleration = pull(tree, len(old), first + i, stack)
        for k in range(3):
            velocity[i, k] += DT * acceleration[k]
            new[i, k] = old[first + i, k] + DT * velocity[i, k]


def directions(draw: np.random.Generator, length: np.ndarray) -> np.ndarray:
    """Draw vectors of given lengths that point anywhere."""
    vectors = draw.normal(size=(len(length), 3))
    return vectors * (length / np.sqrt((vectors**2).sum(axis=1)))[:, None]


def make(size: Size) -> Problem:
    """Draw a Plummer model of total mass 1 and energy -1/4, as Aarseth, Henon and Wielen prescribe."""
    draw = np.random.default_rng(1)
    radius = 1 / np.sqrt(draw.uniform(1e-8, 0.99, size.n) ** (-2 / 3) - 1)  # without the one percent furthest out
    share = draw.beta(1.5, 4.5, size.n) ** 0.5  # of the speed of escape: density share^2 (1 - share^2)^(7/2)
    speed = share * np.sqrt(2) * (1 + radius**2) ** -0.25
    scale = 3 * np.pi / 16
    position = directions(draw, scale * radius)
    velocity = directions(draw, speed / np.sqrt(scale))
    return Problem(position - position.mean(axis=0), velocity - velocity.mean(axis=0), size.steps)


def serial(problem: Problem, team: Team) -> Result:
    """Solve alone."""
    old, velocity = problem.position.copy(), problem.velocity.copy()
    new, tree = np.empty_like(old), new_tree(len(old))
    with team.timed():
        for _ in range(problem.steps):
            step(old, tree, 0, new, velocity)
            old, new = new, old
    return {"position": old}


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """Gather all positions on all ranks after each step; velocities stay where they are."""
    n = len(problem.position)
    blocks = [dsm.split(n, team.size, rank) for rank in range(team.size)]
    mine, counts = blocks[team.rank], [3 * (block.stop - block.start) for block in blocks]
    position, velocity = problem.position.copy(), problem.velocity[mine].copy()
    tree = new_tree(n)
    with team.timed():
        for _ in range(problem.steps):
            step(position, tree, mine.start, position[mine], velocity)
            team.comm.Allgatherv(MPI.IN_PLACE, [position, counts])
    return {"position": position}


def by_dsm(problem: Problem, team: Team) -> Result:
    """The serial program on this rank's bodies, with a barrier after each step."""
    n = len(problem.position)
    old, new = dsm.array(problem.position), dsm.zeros((n, 3))
    mine = dsm.split(n)
    velocity, tree = problem.velocity[mine].copy(), new_tree(n)
    dsm.barrier()
    with team.timed():
        for _ in range(problem.steps):
            step(old, tree, mine.start, new[mine], velocity)
            dsm.barrier()
            old, new = new, old
    return {"position": old}


def verify(problem: Problem, result: Result, reference: Result | None) -> None:
    """Positions bit by bit against serial."""
    assert reference is not None
    wrong = int((result["position"] != reference["position"]).sum())
    require(wrong == 0, f"{wrong} of {problem.position.size} coordinates differ from serial")


APPS = (
    App(
        name="barnes",
        title="Barnes-Hut",
        pattern="Barnes-Hut, tree rebuilt each step",
        sizes={"tiny": Size(250, 4), "small": Size(4096, 30), "paper": Size(4096, 6), "large": Size(32768, 40)},
        make=make,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=by_dsm,
        verify=verify,
        memory=lambda size: 2 * 8 * 3 * size.n,
        reach=0.90,
        paper=(3.04, 2.70),
    ),
)
