"""Water: molecular dynamics with forces between all pairs of molecules, after Water of SPLASH.

A rank owns a block of molecules.  It computes the forces between each of them and the n/2 molecules that follow it
in a circle, adds them up in private, and then adds its sums to each owner's block, once per step: the version with
few locks of Lu et al. 1995.  Then each rank moves its own molecules.

Molecules are flexible: point charges and a Lennard-Jones sphere on the oxygen as in SPC (Berendsen et al. 1981), and
springs O-H and H-H about as stiff as SPC/Fw (Wu et al. 2006).  As in SPLASH pairs further apart than half of the box
are left out.  The leapfrog method takes the place of SPLASH's predictor-corrector.  Units are nm, ps, u and kJ/mol.

Forces and energies of pairs are rounded to multiples of 2^-32, so that their sums are exact in any order: positions
and potential energies are bit-identical to the serial ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks.app import App, Result, Team, kernel, require

MASS = np.array([15.9994, 1.008, 1.008])  # oxygen first, here and in all arrays
CHARGE = np.array([-0.82, 0.41, 0.41])
PAIR_CHARGE = 138.935458 * np.outer(CHARGE, CHARGE)  # times 1 / (4 pi epsilon_0)
SIGMA, EPSILON = 0.3166, 0.650
LENGTH = np.array([0.1, 0.1, 0.1633])  # of the springs O-H, O-H and H-H
STIFFNESS = np.array([443_000.0, 443_000.0, 95_000.0])
VOLUME = 0.02992  # of a molecule at 1 g/cm^3
KT = 2.494  # at 300 K
DT = 0.0005
ROUND = 1.5 * 2.0 ** (52 - 32)  # a number below 2^19 that is added to this loses all below 2^-32


class Size(NamedTuple):
    """Molecules and steps."""

    n: int
    steps: int


class Problem(NamedTuple):
    """Positions and velocities at first, shape (n, 3, 3): molecule, atom, direction; edge of the box; steps."""

    position: np.ndarray
    velocity: np.ndarray
    box: float
    steps: int


@kernel
def rounded(x: float) -> float:
    """Return the nearest multiple of 2^-32."""
    return (x + ROUND) - ROUND


@kernel
def add_springs(molecule: np.ndarray, force: np.ndarray) -> float:
    """Add the forces of a molecule's springs to `force`, both of shape (3, 3), and return their energy."""
    energy = 0.0
    for spring, (a, b) in enumerate(((0, 1), (0, 2), (1, 2))):
        d = molecule[a] - molecule[b]
        r = np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
        stretch = r - LENGTH[spring]
        energy += rounded(0.5 * STIFFNESS[spring] * stretch * stretch)
        for k in range(3):
            f = rounded(-STIFFNESS[spring] * stretch / r * d[k])
            force[a, k] += f
            force[b, k] -= f
    return energy


@kernel
def add_pair(one: np.ndarray, two: np.ndarray, box: float, force_one: np.ndarray, force_two: np.ndarray) -> float:
    """Add the forces between two molecules to theirs, all of shape (3, 3), and return the energy."""
    sx = box * np.rint((one[0, 0] - two[0, 0]) / box)  # to the nearest image of `two`
    sy = box * np.rint((one[0, 1] - two[0, 1]) / box)
    sz = box * np.rint((one[0, 2] - two[0, 2]) / box)
    dx, dy, dz = one[0, 0] - two[0, 0] - sx, one[0, 1] - two[0, 1] - sy, one[0, 2] - two[0, 2] - sz
    if dx * dx + dy * dy + dz * dz > 0.25 * box * box:
        return 0.0
    energy = 0.0
    for a in range(3):
        for b in range(3):
            dx, dy, dz = one[a, 0] - two[b, 0] - sx, one[a, 1] - two[b, 1] - sy, one[a, 2] - two[b, 2] - sz
            inverse = 1.0 / (dx * dx + dy * dy + dz * dz)
            potential = PAIR_CHARGE[a, b] * np.sqrt(inverse)
            f = potential * inverse
            if a == 0 and b == 0:
                sixth = (SIGMA * SIGMA * inverse) ** 3
                potential += 4.0 * EPSILON * sixth * (sixth - 1.0)
                f += 24.0 * EPSILON * sixth * (2.0 * sixth - 1.0) * inverse
            energy += potential
            fx, fy, fz = rounded(f * dx), rounded(f * dy), rounded(f * dz)
            force_one[a, 0] += fx
            force_one[a, 1] += fy
            force_one[a, 2] += fz
            force_two[b, 0] -= fx
            force_two[b, 1] -= fy
            force_two[b, 2] -= fz
    return rounded(energy)


@kernel
def add_forces(position: np.ndarray, box: float, first: int, end: int, force: np.ndarray) -> float:
    """Add the forces in and from molecules `first` to `end` to `force`, shape (n, 3, 3), and return the energy."""
    n = len(position)
    energy = 0.0
    for i in range(first, end):
        energy += add_springs(position[i], force[i])
        ahead = (n - 1) // 2 + (n % 2 == 0 and i < n // 2)  # of two molecules that are opposite, one does the work
        for j in range(i + 1, i + ahead + 1):
            energy += add_pair(position[i], position[j % n], box, force[i], force[j % n])
    return energy


@kernel
def move(position: np.ndarray, velocity: np.ndarray, force: np.ndarray) -> None:
    """Move molecules by a step, and set their forces back to zero."""
    for i in range(len(position)):
        for a in range(3):
            for k in range(3):
                velocity[i, a, k] += DT / MASS[a] * force[i, a, k]
                position[i, a, k] += DT * velocity[i, a, k]
                force[i, a, k] = 0.0


def make(size: Size) -> Problem:
    """Put molecules on a cubic lattice, turned at random, with the velocities of 300 K."""
    draw = np.random.default_rng(1)
    edge = int(np.ceil(np.cbrt(size.n)))
    box = float(np.cbrt(size.n * VOLUME))
    sites = np.argwhere(np.ones((edge, edge, edge), bool))
    centers = sites[np.sort(draw.permutation(len(sites))[: size.n])] * (box / edge)
    half, height = LENGTH[2] / 2, np.sqrt(LENGTH[0] ** 2 - LENGTH[2] ** 2 / 4)
    molecule = np.array([[0, 0, 0], [half, height, 0], [-half, height, 0]])
    turns = np.linalg.qr(draw.normal(size=(size.n, 3, 3)))[0]
    velocity = draw.normal(size=(size.n, 3, 3)) * np.sqrt(KT / MASS)[:, None]
    return Problem(centers[:, None] + molecule @ turns, velocity, box, size.steps)


def owners_ahead(n: int, ranks: int, rank: int) -> list[int]:
    """Return the other ranks that own the n/2 molecules that follow those of `rank`, nearest first."""
    mine = dsm.split(n, ranks, rank)
    end = mine.stop + n // 2
    circle = [(rank + k) % ranks for k in range(1, ranks)]
    blocks = [dsm.split(n, ranks, owner) for owner in circle]
    return [
        owner
        for owner, block in zip(circle, blocks, strict=True)
        if mine.start < mine.stop and block.start < block.stop and mine.start + (block.start - mine.start) % n < end
    ]


def serial(problem: Problem, team: Team) -> Result:
    """Solve alone."""
    position, velocity = problem.position.copy(), problem.velocity.copy()
    force, energy = np.zeros_like(position), np.zeros(problem.steps)
    with team.timed():
        for step in range(problem.steps):
            energy[step] = add_forces(position, problem.box, 0, len(position), force)
            move(position, velocity, force)
    return {"position": position, "energy": energy}


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """Send positions to those who need them, and forces back: to half of the ranks and not to all."""
    comm, n, rank = team.comm, len(problem.position), team.rank
    blocks = [dsm.split(n, team.size, owner) for owner in range(team.size)]
    mine = blocks[rank]
    ahead = owners_ahead(n, team.size, rank)
    behind = [other for other in range(team.size) if rank in owners_ahead(n, team.size, other)]
    position, velocity = problem.position.copy(), problem.velocity[mine].copy()
    force, energy = np.zeros_like(position), np.zeros(problem.steps)
    parts = np.empty((len(behind), *velocity.shape))  # forces on this rank's molecules, from ranks behind
    positions = [comm.Recv_init(position[blocks[owner]], owner) for owner in ahead]
    positions += [comm.Send_init(position[mine], other) for other in behind]
    forces = [comm.Recv_init(part, other) for part, other in zip(parts, behind, strict=True)]
    forces += [comm.Send_init(force[blocks[owner]], owner) for owner in ahead]
    with team.timed():
        for step in range(problem.steps):
            if step > 0:
                for request in positions:
                    request.Start()
                MPI.Request.Waitall(positions)
            part_energy = np.array(add_forces(position, problem.box, mine.start, mine.stop, force))
            for request in forces:
                request.Start()
            comm.Reduce(part_energy, energy[step : step + 1])
            MPI.Request.Waitall(forces)
            for part in parts:
                force[mine] += part
            for owner in ahead:
                force[blocks[owner]] = 0
            move(position[mine], velocity, force[mine])
    for request in positions + forces:
        request.Free()
    counts = [9 * (block.stop - block.start) for block in blocks]
    comm.Gatherv(MPI.IN_PLACE if rank == 0 else position[mine], [position, counts])
    return {"position": position, "energy": energy}


def by_dsm(problem: Problem, team: Team) -> Result:
    """Add up in private, then add to the forces of each other owner under its lock."""
    n = len(problem.position)
    position, force, energy = dsm.array(problem.position), dsm.zeros((n, 3, 3)), dsm.zeros(problem.steps)
    force_locks, energy_lock = [dsm.Lock() for _ in range(team.size)], dsm.Lock()
    mine = dsm.split(n)
    velocity, part = problem.velocity[mine].copy(), np.zeros((n, 3, 3))
    ahead = owners_ahead(n, team.size, team.rank)
    dsm.barrier()
    with team.timed():
        for step in range(problem.steps):
            part_energy = add_forces(position, problem.box, mine.start, mine.stop, part)
            for owner in ahead:
                block = dsm.split(n, index=owner)
                with force_locks[owner]:
                    force[block] += part[block]
                part[block] = 0
            with energy_lock:
                energy[step] += part_energy
            dsm.barrier()
            part[mine] += force[mine]
            force[mine] = 0
            move(position[mine], velocity, part[mine])
            dsm.barrier()
    return {"position": position, "energy": energy}


def verify(problem: Problem, result: Result, reference: Result | None) -> None:
    """Positions and potential energies bit by bit against serial."""
    assert reference is not None
    wrong = int((result["position"] != reference["position"]).sum())
    require(wrong == 0, f"{wrong} of {problem.position.size} coordinates differ from serial")
    for step, (energy, right) in enumerate(zip(result["energy"], reference["energy"], strict=True)):
        require(energy == right, f"step {step} has a potential energy of {energy} and not {right} kJ/mol")


def app(n: int, sizes: dict[str, Size], reach: float, paper_note: str) -> App:
    """Return the application with `n` molecules, as published."""
    return App(
        name=f"water-{n}",
        title=f"Water, {n} molecules",
        pattern="n-squared molecular dynamics, locks per block of molecules",
        sizes=sizes,
        make=make,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=by_dsm,
        verify=verify,
        memory=lambda size: 3 * 8 * 9 * size.n,
        reach=reach,
        paper_note=paper_note,
    )


APPS = (
    app(
        288,
        {"tiny": Size(27, 4), "small": Size(288, 120), "paper": Size(288, 5), "large": Size(288, 1000)},
        reach=0.90,
        paper_note="10-30 % behind (water-288)",
    ),
    app(
        1728,
        {"tiny": Size(30, 4), "small": Size(1728, 3), "paper": Size(1728, 5), "large": Size(4096, 10)},
        reach=0.95,
        paper_note="within 10 % (water-1728)",
    ),
)
