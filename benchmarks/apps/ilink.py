"""ILINK: how likely a pedigree's genotypes are at several recombination fractions (Elston and Stewart 1971).

After ILINK of FASTLINK, an application of Lu et al. 1995, which gives no data to repeat it with: the sizes are ours.  A
family is a couple and its children; one of the couple, the heir, is a child of a family above or the ancestor of all,
and so families are worked off from the bottom up.  To work one off is to find, for each genotype that the heir may
have, the probability of all that was observed in the family and below.  This array is sparse: it holds only the
genotypes of probability above zero.  They are dealt out to the ranks in blocks, family by family; families of a
generation do not wait for each other.

A genotype is an ordered pair of haplotypes, from the father and from the mother; a haplotype is one of two alleles at
each locus, and a number with that many bits.  `make` draws the people, and what was observed.

An element is computed whole by one rank, so the likelihoods are bit-identical to the serial ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks.app import App, Result, Team, kernel, require

THETA = 0.1  # the recombination fraction between neighbouring loci that people are drawn with


class Size(NamedTuple):
    """Loci; generations of families, two at least; children of a family, and heirs among them; fractions to try."""

    loci: int
    generations: int
    children: int
    heirs: int
    fractions: int
    observed: float = 0.6  # share of the loci of each person


class Person(NamedTuple):
    """The genotypes that a person may have, int64 of shape (m, 2), and those of an heir in the array of all heirs."""

    genotypes: np.ndarray
    elements: slice | None = None


class Family(NamedTuple):
    """An heir, who is the mother or the father, the other parent and the children."""

    heir: Person
    is_mother: bool
    spouse: Person
    children: list[Person]


class Problem(NamedTuple):
    """Families by generations, the youngest first; the frequency of each haplotype; the fractions to try.

    The genotypes of all heirs have `elements` elements together.
    """

    generations: list[list[Family]]
    frequency: np.ndarray
    fractions: np.ndarray
    elements: int

    @property
    def ancestor(self) -> Person:
        """The heir of the first generation."""
        return self.generations[-1][0].heir


@kernel
def find_gametes(genotype: np.ndarray, theta: float, haplotypes: np.ndarray, probabilities: np.ndarray) -> int:
    """List the haplotypes that a person passes on and their probabilities, and return how many there are.

    Each locus with two different alleles doubles them: first come those with the father's allele there.
    """
    father, mother = genotype
    haplotypes[0] = father & mother
    probabilities[0] = 1.0
    count, before, locus = 1, -1, 0
    while (father ^ mother) >> locus > 0:
        if (father ^ mother) >> locus & 1:
            change = 0.5 if before < 0 else 0.5 - 0.5 * (1.0 - 2.0 * theta) ** (locus - before)
            for k in range(count):
                probability, is_mothers = probabilities[k], k >= count // 2
                probabilities[k] = probability * (change if is_mothers else 1.0 - change)
                probabilities[k + count] = probability * (1.0 - change if is_mothers else change)
                haplotypes[k + count] = haplotypes[k] | mother & 1 << locus
                haplotypes[k] |= father & 1 << locus
            count, before = 2 * count, locus
        locus += 1
    return count


@kernel
def find_probabilities(
    heir: np.ndarray,
    spouse: np.ndarray,
    frequency: np.ndarray,
    children: np.ndarray,
    theta: float,
    probabilities: np.ndarray,
) -> None:
    """Fill in the probability of a family's observations for each genotype in `heir`.

    `children` has shape (children, haplotypes, haplotypes): for each child, by the haplotypes from heir and spouse.
    """
    counts = np.empty(len(spouse), np.int64)
    haplotypes = np.empty((len(spouse) + 1, len(frequency)), np.int64)  # the heir's come last
    shares = np.empty(haplotypes.shape)
    for s in range(len(spouse)):
        counts[s] = find_gametes(spouse[s], theta, haplotypes[s], shares[s])
    given = np.empty(children.shape[:2])  # for each child and haplotype from the spouse
    for h in range(len(heir)):
        given[:] = 0.0
        for k in range(find_gametes(heir[h], theta, haplotypes[-1], shares[-1])):
            for child in range(len(children)):
                for other in range(len(frequency)):
                    given[child, other] += shares[-1, k] * children[child, haplotypes[-1, k], other]
        total = 0.0
        for s in range(len(spouse)):
            product = frequency[spouse[s, 0]] * frequency[spouse[s, 1]]
            for child in range(len(children)):
                probability = 0.0
                for k in range(counts[s]):
                    probability += shares[s, k] * given[child, haplotypes[s, k]]
                product *= probability
            total += product
        probabilities[h] = total


def work_off(family: Family, problem: Problem, theta: float, part: slice, heirs: np.ndarray) -> None:
    """Find the probabilities of a part of the genotypes of the family's heir, with those of its children at hand."""
    size = len(problem.frequency)
    children = np.zeros((len(family.children), size, size))
    for dense, child in zip(children, family.children, strict=True):
        from_father, from_mother = child.genotypes.T
        where = (from_mother, from_father) if family.is_mother else (from_father, from_mother)
        dense[where] = 1.0 if child.elements is None else heirs[child.elements]
    find_probabilities(
        family.heir.genotypes[part],
        family.spouse.genotypes,
        problem.frequency,
        children,
        theta,
        heirs[family.heir.elements][part],
    )


def log_likelihood(problem: Problem, heirs: np.ndarray) -> float:
    """Add up over the genotypes of the ancestor."""
    frequency = problem.frequency[problem.ancestor.genotypes].prod(axis=1)
    return float(np.log((frequency * heirs[problem.ancestor.elements]).sum()))


def pass_on(draw: np.random.Generator, parent: np.ndarray, loci: int) -> int:
    """Draw a gamete of a genotype."""
    changes = draw.random(loci) < np.where(np.arange(loci) == 0, 0.5, THETA)
    mothers = int((np.cumsum(changes) % 2 << np.arange(loci)).sum())
    return int(parent[0] & ~mothers | parent[1] & mothers)


def observe(draw: np.random.Generator, genotype: np.ndarray, size: Size) -> np.ndarray:
    """Draw at which loci a person's alleles are observed, and return the genotypes that show the same ones there."""
    seen = int(((draw.random(size.loci) < size.observed) << np.arange(size.loci)).sum())
    one, two = np.indices((2**size.loci, 2**size.loci))
    same = ((one & two ^ genotype[0] & genotype[1]) | ((one | two) ^ (genotype[0] | genotype[1]))) & seen == 0
    return np.argwhere(same)


def draw_family(
    draw: np.random.Generator, own: np.ndarray, frequency: np.ndarray, size: Size
) -> tuple[bool, Person, list[np.ndarray]]:
    """Draw for an heir: whether it is the mother, what is known of the spouse, and the children's genotypes."""
    spouse, is_mother = draw.choice(len(frequency), 2, p=frequency), bool(draw.integers(2))
    father, mother = (spouse, own) if is_mother else (own, spouse)
    children = [
        np.array([pass_on(draw, parent, size.loci) for parent in (father, mother)]) for _ in range(size.children)
    ]
    return is_mother, Person(observe(draw, spouse, size)), children


def without_impossible(problem: Problem) -> Problem:
    """Drop the genotypes that an heir cannot have because of a descendant: they are the same at every fraction."""
    heirs = np.zeros(problem.elements)
    for generation in problem.generations:
        for family in generation:
            work_off(family, problem, THETA, slice(None), heirs)
    before = np.append(0, np.cumsum(heirs > 0)).tolist()

    def shrink(person: Person) -> Person:
        if person.elements is None:
            return person
        first, end = person.elements.start, person.elements.stop
        return Person(person.genotypes[heirs[first:end] > 0], slice(before[first], before[end]))

    def shrink_all(family: Family) -> Family:
        return family._replace(heir=shrink(family.heir), children=[shrink(child) for child in family.children])

    generations = [[shrink_all(family) for family in generation] for generation in problem.generations]
    return problem._replace(generations=generations, elements=before[-1])


def make(size: Size) -> Problem:
    """Draw the people from the ancestor on, and what is known of them."""
    draw = np.random.default_rng(1)
    allele = draw.uniform(0.3, 0.7, size.loci)
    bits = np.arange(2**size.loci)[:, None] >> np.arange(size.loci) & 1
    frequency = np.where(bits == 1, allele, 1 - allele).prod(axis=1)
    ancestor = draw.choice(len(frequency), 2, p=frequency)
    genotypes = observe(draw, ancestor, size)
    heirs, end = [(ancestor, Person(genotypes, slice(0, len(genotypes))))], len(genotypes)
    generations: list[list[Family]] = []
    for generation in range(size.generations):
        families, next_heirs = [], []
        for own, heir in heirs:
            is_mother, spouse, drawn = draw_family(draw, own, frequency, size)
            children = [Person(observe(draw, child, size)) for child in drawn]
            if generation + 1 < size.generations:
                for k in range(size.heirs):
                    first, end = end, end + len(children[k].genotypes)
                    children[k] = children[k]._replace(elements=slice(first, end))
                    next_heirs.append((drawn[k], children[k]))
            families.append(Family(heir, is_mother, spouse, children))
        generations.insert(0, families)
        heirs = next_heirs
    fractions = np.linspace(0, 0.5, size.fractions + 1)[1:]
    return without_impossible(Problem(generations, frequency, fractions, end))


def serial(problem: Problem, team: Team) -> Result:
    """Solve alone."""
    heirs, likelihoods = np.zeros(problem.elements), np.zeros(len(problem.fractions))
    with team.timed():
        for i, theta in enumerate(problem.fractions):
            for generation in problem.generations:
                for family in generation:
                    work_off(family, problem, theta, slice(None), heirs)
            likelihoods[i] = log_likelihood(problem, heirs)
    return {"log_likelihoods": likelihoods}


def by_mpi4py(problem: Problem, team: Team) -> Result:
    """Gather each family's part everywhere while the next families of the generation are worked off."""
    heirs, likelihoods = np.zeros(problem.elements), np.zeros(len(problem.fractions))
    gathers = []
    for generation in problem.generations:
        gathers.append([])
        for heir in (family.heir for family in generation):
            parts = [dsm.split(len(heir.genotypes), team.size, rank) for rank in range(team.size)]
            counts = [part.stop - part.start for part in parts]
            gathers[-1].append(team.comm.Allgatherv_init(MPI.IN_PLACE, [heirs[heir.elements], counts]))
    with team.timed():
        for i, theta in enumerate(problem.fractions):
            for generation, requests in zip(problem.generations, gathers, strict=True):
                for family, request in zip(generation, requests, strict=True):
                    work_off(family, problem, theta, dsm.split(len(family.heir.genotypes)), heirs)
                    request.Start()
                MPI.Request.Waitall(requests)
            likelihoods[i] = log_likelihood(problem, heirs)
    for requests in gathers:
        for request in requests:
            request.Free()
    return {"log_likelihoods": likelihoods}


def by_dsm(problem: Problem, team: Team) -> Result:
    """The serial program on this rank's part of each family, with a barrier after each generation."""
    heirs, likelihoods = dsm.zeros(problem.elements), np.zeros(len(problem.fractions))
    with team.timed():
        for i, theta in enumerate(problem.fractions):
            for generation in problem.generations:
                for family in generation:
                    work_off(family, problem, theta, dsm.split(len(family.heir.genotypes)), heirs)
                dsm.barrier()
            likelihoods[i] = log_likelihood(problem, heirs)
    return {"log_likelihoods": likelihoods}


def verify(problem: Problem, result: Result, reference: Result | None) -> None:
    """Bit by bit against serial."""
    assert reference is not None
    pairs = zip(problem.fractions, result["log_likelihoods"], reference["log_likelihoods"], strict=True)
    for theta, likelihood, right in pairs:
        require(likelihood == right, f"the log-likelihood at {theta:.3f} is {likelihood} and not {right}")


APPS = (
    App(
        name="ilink",
        title="ILINK, likelihood of a pedigree",
        pattern="sparse array of genotype probabilities, farm-out and sum",
        sizes={
            "tiny": Size(3, 3, 3, 2, 3),
            "small": Size(6, 4, 3, 2, 20),
            "paper": Size(7, 4, 3, 2, 8),
            "large": Size(7, 5, 4, 2, 12),
        },
        make=make,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=by_dsm,
        verify=verify,
        memory=lambda size: 8 * size.children * 4**size.loci,  # of the children of a family
        reach=0.95,
        paper_note="within 10 %",
    ),
)
