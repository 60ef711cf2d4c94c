"""The sweep of page size x granularity: six ways to share, as small as they can be, by dsm and by mpi4py.

In each step a rank computes, writes data that all differ from those of the step before, synchronises, and sums what it
must read, which is verified.  `bytes` is the size of a message of the mpi4py program:

private            each rank rewrites and rereads `bytes` of its own; barrier
producer-consumer  rank 0 writes `bytes`, all others read them
migratory          each rank in turn reads and rewrites all of one block of `bytes`, under a lock
false-sharing      ranks write `bytes` each, in alternating pieces of a cache line; all read all
neighbour          each rank writes a block of twice `bytes`, whose halves its two neighbours read
all-to-all         each rank writes `bytes` for each rank, itself included, and reads what is for it

What is written depends on the computation, so no program may exchange it meanwhile.  The dsm programs write two buffers
in turn where others read them, as a program with two grids does: one barrier in a step is enough then.  A lock alone
keeps no order, and who takes it again before others ask would get the block for nothing: so migratory's lock is that of
a condition, by which ranks wait for their turns, as the ring of the mpi4py program makes them.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks.app import kernel, require

GRAINS = tuple(8 << power for power in range(0, 24, 3))  # 8 B to 16 MiB
PAGE_SIZES = tuple(4096 << power for power in range(0, 12, 2))  # 4 KiB to 4 MiB
COMPUTES_US = (0, 100, 1000, 10000)
# Where computation varies: beyond a page, and not so much that the exchange takes longer than the computation.
COMPUTED_GRAIN, COMPUTED_PAGE_SIZE = 32 << 10, 4096
TINY_GRAINS, TINY_PAGE_SIZES, TINY_COMPUTED_US = (8, 8192), (4096, 65536), 20
# All arrays of a point together; with more ranks the largest grains of all-to-all are left out.
MEMORY_BYTES_MAX = 1 << 30

WORD_BYTES, PIECE_BYTES = 8, 64
_SPREAD = -7046029254386353131  # odd, 2**64 over the golden ratio: products with it differ in all bytes
_OF_RANK = (1 << 44) + 0x5DEECE66D  # beyond what `compute` returns; odd, so that what ranks write differs in all bytes


class Point(NamedTuple):
    """A point of the sweep."""

    pattern: str
    bytes: int
    compute_us: int
    page_size: int


class Place(NamedTuple):
    """Where an exchange runs: this rank of how many, words of 8 bytes in a message, page size, rounds of `compute`."""

    rank: int
    size: int
    words: int
    page_size: int
    rounds: int


@kernel
def compute(step: int, rounds: int) -> int:
    """Work for `rounds` multiplications in a row; returns a number below 2**40 that differs in each step."""
    x = step + 1
    for _ in range(rounds):
        x = x * 6364136223846793005 + 1442695040888963407
    return (x & 0xFFFF) << 24 | (step + 1) & 0xFFFFFF


@kernel
def fill(a: np.ndarray, first: int) -> None:
    """Write the words that belong to `first`, `first` + 1, ... into `a`, int64 of shape (rows, words)."""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            a[i, j] = (first + i * a.shape[1] + j) * _SPREAD


@kernel
def total(a: np.ndarray) -> int:
    """Sum `a`, int64 of shape (rows, words), modulo 2**64."""
    sum_ = 0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            sum_ += a[i, j]
    return sum_


@kernel
def interleave(packed: np.ndarray, out: np.ndarray) -> None:
    """Put the pieces of all ranks, shape (ranks, pieces, words), into turns, shape (pieces, ranks, words)."""
    for piece in range(out.shape[0]):
        for rank in range(out.shape[1]):
            for word in range(out.shape[2]):
                out[piece, rank, word] = packed[rank, piece, word]


def wrapped(value: int) -> int:
    """Return a whole number as 64 bits with a sign hold it."""
    return (value + 2**63) % 2**64 - 2**63


def total_of(first: int, words: int) -> int:
    """Return the sum of what `fill` writes."""
    return wrapped((words * first + words * (words - 1) // 2) * _SPREAD)


class Exchange(abc.ABC):
    """A pattern in one of its programs, on this rank.  Each class says what `step` must return: `expected`."""

    # Blocks of `words` that the pattern's array has, by the number of ranks.
    blocks: Callable[[int], int]

    def __init__(self, place: Place) -> None:
        self.place = place
        self.rank, self.size, self.words = place.rank, place.size, place.words
        self.computed: list[int] = []  # of each step
        self.prepare()

    @abc.abstractmethod
    def prepare(self) -> None:
        """Make the arrays and what refers to them.  Collective."""

    @abc.abstractmethod
    def step(self, number: int) -> int:
        """Compute, write, synchronise and read; returns the sum of what was read."""

    @abc.abstractmethod
    def expected(self, number: int) -> int:
        """Return what the sum must be."""

    def finish(self, steps: int) -> None:  # noqa: B027  (most patterns have nothing left to do)
        """After the last of `steps`: receive what is under way, and verify what only the end shows.  Collective."""

    def compute(self, number: int) -> int:
        """Do the computation of a step; returns the first number of what this rank writes in it."""
        self.computed.append(compute(number, self.place.rounds))
        return self.written(number, self.rank)

    def written(self, number: int, rank: int) -> int:
        """Return the first number of what `rank` writes in a step that was computed."""
        return self.computed[number] + rank * _OF_RANK

    def two(self, *shape: int) -> list[np.ndarray]:
        """Make two shared arrays of int64, which the steps take in turn.  Collective."""
        return [dsm.zeros(shape, np.int64, page_size=self.place.page_size) for _ in range(2)]


# ---- private ----


class Private(Exchange):
    """Each rank's own block."""

    blocks = staticmethod(lambda ranks: ranks)

    def expected(self, number: int) -> int:
        return total_of(self.written(number, self.rank), self.words)


class PrivateByDsm(Private):
    def prepare(self) -> None:
        blocks = dsm.zeros((self.size, self.words), np.int64, page_size=self.place.page_size)
        self.mine = blocks[self.rank : self.rank + 1]

    def step(self, number: int) -> int:
        fill(self.mine, self.compute(number))
        dsm.barrier()
        return total(self.mine)


class PrivateByMpi4py(Private):
    def prepare(self) -> None:
        self.mine = np.zeros((1, self.words), np.int64)

    def step(self, number: int) -> int:
        fill(self.mine, self.compute(number))
        MPI.COMM_WORLD.Barrier()
        return total(self.mine)


# ---- producer-consumer ----


class Producer(Exchange):
    """Rank 0's block, which it does not read itself."""

    blocks = staticmethod(lambda ranks: 1)

    def expected(self, number: int) -> int:
        return total_of(self.written(number, 0), self.words) if self.rank else 0


class ProducerByDsm(Producer):
    def prepare(self) -> None:
        self.buffers = self.two(1, self.words)

    def step(self, number: int) -> int:
        block = self.buffers[number % 2]
        first = self.compute(number)
        if self.rank == 0:
            fill(block, first)
        dsm.barrier()
        return total(block) if self.rank else 0


class ProducerByMpi4py(Producer):
    def prepare(self) -> None:
        self.block = np.zeros((1, self.words), np.int64)

    def step(self, number: int) -> int:
        first = self.compute(number)
        if self.rank == 0:
            fill(self.block, first)
        MPI.COMM_WORLD.Bcast(self.block)
        return total(self.block) if self.rank else 0


# ---- migratory ----


class Migratory(Exchange):
    """One block, whose first word counts the visits and says whose turn it is."""

    blocks = staticmethod(lambda ranks: 1)
    block: np.ndarray

    def visit(self, first: int) -> int:
        """Read and rewrite the whole block, at this rank's turn."""
        count, data = int(self.block[0, 0]), self.block[:, 1:]
        sum_ = count + total(data)
        fill(data, first)
        self.block[0, 0] = count + 1
        return sum_

    def expected(self, number: int) -> int:
        visits = number * self.size + self.rank
        last = self.written(*divmod(visits - 1, self.size)) if visits else 0
        return wrapped(visits + (total_of(last, self.words - 1) if visits else 0))

    def verify_end(self, steps: int) -> None:
        """No visit was lost."""
        count = int(self.block[0, 0])
        require(count == steps * self.size, f"{type(self).__name__}: {count} visits, not {steps * self.size}")


class MigratoryByDsm(Migratory):
    def prepare(self) -> None:
        self.block = dsm.zeros((1, self.words), np.int64, page_size=self.place.page_size)
        self.turns = dsm.Condition()

    def step(self, number: int) -> int:
        first = self.compute(number)
        with self.turns:
            self.turns.wait_for(lambda: self.block[0, 0] % self.size == self.rank)
            sum_ = self.visit(first)
            self.turns.notify_all()
            return sum_

    def finish(self, steps: int) -> None:
        dsm.barrier()
        self.verify_end(steps)


class MigratoryByMpi4py(Migratory):
    """A ring.  Rank 0 computes while the block comes home."""

    def prepare(self) -> None:
        self.block = np.zeros((1, self.words), np.int64)
        self.left, self.right = (self.rank - 1) % self.size, (self.rank + 1) % self.size
        self.home = MPI.REQUEST_NULL

    def step(self, number: int) -> int:
        first = self.compute(number)
        if self.rank:
            MPI.COMM_WORLD.Recv(self.block, self.left)
        else:
            self.home.Wait()
        sum_ = self.visit(first)
        if self.size > 1:
            MPI.COMM_WORLD.Send(self.block, self.right)
            if self.rank == 0:
                self.home = MPI.COMM_WORLD.Irecv(self.block, self.left)
        return sum_

    def finish(self, steps: int) -> None:
        if self.rank == 0:
            self.home.Wait()
            self.verify_end(steps)


# ---- false-sharing ----


class FalseSharing(Exchange):
    """Pieces of a cache line, dealt out to the ranks in turn."""

    blocks = staticmethod(lambda ranks: ranks)

    def shape(self) -> tuple[int, int, int]:
        """Pieces of each rank, ranks, words of a piece."""
        piece = min(self.words, PIECE_BYTES // WORD_BYTES)
        return self.words // piece, self.size, piece

    def expected(self, number: int) -> int:
        return wrapped(sum(total_of(self.written(number, rank), self.words) for rank in range(self.size)))


class FalseSharingByDsm(FalseSharing):
    def prepare(self) -> None:
        buffers = self.two(*self.shape())
        self.mine = [a[:, self.rank] for a in buffers]
        self.rows = [a.reshape(len(a), -1) for a in buffers]

    def step(self, number: int) -> int:
        fill(self.mine[number % 2], self.compute(number))
        dsm.barrier()
        return total(self.rows[number % 2])


class FalseSharingByMpi4py(FalseSharing):
    def prepare(self) -> None:
        pieces, ranks, words = self.shape()
        self.packed = np.zeros((ranks, pieces, words), np.int64)
        self.all = np.zeros((pieces, ranks, words), np.int64)
        self.rows = self.all.reshape(pieces, -1)

    def step(self, number: int) -> int:
        fill(self.packed[self.rank], self.compute(number))
        MPI.COMM_WORLD.Allgather(MPI.IN_PLACE, self.packed)
        interleave(self.packed, self.all)
        return total(self.rows)


# ---- neighbour ----


class Neighbour(Exchange):
    """A block in two halves for each rank; those at the ends have one neighbour."""

    blocks = staticmethod(lambda ranks: 2 * ranks)

    def expected(self, number: int) -> int:
        left = total_of(self.written(number, self.rank - 1) + self.words, self.words) if self.rank else 0
        right = total_of(self.written(number, self.rank + 1), self.words) if self.rank + 1 < self.size else 0
        return wrapped(left + right)


class NeighbourByDsm(Neighbour):
    def prepare(self) -> None:
        buffers = self.two(self.size, 2, self.words)
        self.mine = [a[self.rank] for a in buffers]
        self.left = [a[self.rank - 1, 1:] if self.rank else a[0, :0] for a in buffers]
        self.right = [a[self.rank + 1, :1] if self.rank + 1 < self.size else a[0, :0] for a in buffers]

    def step(self, number: int) -> int:
        turn = number % 2
        fill(self.mine[turn], self.compute(number))
        dsm.barrier()
        return wrapped(total(self.left[turn]) + total(self.right[turn]))


class NeighbourByMpi4py(Neighbour):
    def prepare(self) -> None:
        comm = MPI.COMM_WORLD
        left = self.rank - 1 if self.rank else MPI.PROC_NULL
        right = self.rank + 1 if self.rank + 1 < self.size else MPI.PROC_NULL
        self.mine, self.halo = np.zeros((2, 2, self.words), np.int64)
        self.receives = [comm.Recv_init(self.halo[0], left), comm.Recv_init(self.halo[1], right)]
        self.sends = [comm.Send_init(self.mine[0], left), comm.Send_init(self.mine[1], right)]

    def step(self, number: int) -> int:
        MPI.Prequest.Startall(self.receives)
        fill(self.mine, self.compute(number))
        MPI.Prequest.Startall(self.sends)
        MPI.Request.Waitall(self.receives + self.sends)
        return total(self.halo)

    def finish(self, steps: int) -> None:
        for request in self.receives + self.sends:
            request.Free()


# ---- all-to-all ----


class AllToAll(Exchange):
    """A block from each rank to each."""

    blocks = staticmethod(lambda ranks: ranks * ranks)

    def expected(self, number: int) -> int:
        firsts = (self.written(number, rank) + self.rank * self.words for rank in range(self.size))
        return wrapped(sum(total_of(first, self.words) for first in firsts))


class AllToAllByDsm(AllToAll):
    def prepare(self) -> None:
        buffers = self.two(self.size, self.size, self.words)
        self.from_me = [a[self.rank] for a in buffers]
        self.to_me = [a[:, self.rank] for a in buffers]

    def step(self, number: int) -> int:
        fill(self.from_me[number % 2], self.compute(number))
        dsm.barrier()
        return total(self.to_me[number % 2])


class AllToAllByMpi4py(AllToAll):
    def prepare(self) -> None:
        self.from_me, self.to_me = np.zeros((2, self.size, self.words), np.int64)

    def step(self, number: int) -> int:
        fill(self.from_me, self.compute(number))
        MPI.COMM_WORLD.Alltoall(self.from_me, self.to_me)
        return total(self.to_me)


# ---- the sweep ----

PATTERNS: dict[str, dict[str, type[Exchange]]] = {
    "private": {"dsm": PrivateByDsm, "mpi4py": PrivateByMpi4py},
    "producer-consumer": {"dsm": ProducerByDsm, "mpi4py": ProducerByMpi4py},
    "migratory": {"dsm": MigratoryByDsm, "mpi4py": MigratoryByMpi4py},
    "false-sharing": {"dsm": FalseSharingByDsm, "mpi4py": FalseSharingByMpi4py},
    "neighbour": {"dsm": NeighbourByDsm, "mpi4py": NeighbourByMpi4py},
    "all-to-all": {"dsm": AllToAllByDsm, "mpi4py": AllToAllByMpi4py},
}


def points(
    tiny: bool = False,
    patterns: Sequence[str] = tuple(PATTERNS),
    grains: Sequence[int] = (),
    page_sizes: Sequence[int] = (),
    computes_us: Sequence[int] = (),
) -> list[Point]:
    """List the points of a sweep: all grains with all page sizes, and a slice where computation varies.

    Parameters
    ----------
    tiny : bool
        Few and small ones, which only show that everything works.
    patterns, grains, page_sizes, computes_us : sequences
        What to vary in place of the defaults.  With `computes_us` given there is no slice, but all combinations.
    """
    grains = grains or (TINY_GRAINS if tiny else GRAINS)
    page_sizes = page_sizes or (TINY_PAGE_SIZES if tiny else PAGE_SIZES)
    made = [Point(*of) for of in itertools.product(patterns, grains, computes_us or (0,), page_sizes)]
    if not computes_us:
        times = (TINY_COMPUTED_US,) if tiny else COMPUTES_US[1:]
        made += [Point(pattern, COMPUTED_GRAIN, us, COMPUTED_PAGE_SIZE) for pattern in patterns for us in times]
    return made


def memory_bytes(point: Point, ranks: int) -> int:
    """Return the bytes of a point's shared arrays."""
    return 2 * point.bytes * PATTERNS[point.pattern]["dsm"].blocks(ranks)
