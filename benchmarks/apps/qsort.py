"""QSORT: quicksort with a queue of parts, bubble sort below 1,024 items (Lu et al., SC'95: 512 Ki integers of 4 bytes).

A worker takes a part from the queue and divides it around a pivot, puts the smaller side back, which another worker
may take, and goes on with the larger one, until what it has is small enough to be bubble-sorted.  The last part put
back is the first to be taken.  Neither parallel version shares all parts: mpi4py's ranks give away only large ones, to
who has none, and dsm's queue has those of more than 8,192 items.

The items are at rank 0 at first, and at the end with the ranks that sorted them: collecting them is not measured.  The
result must be that of numpy.sort.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from mpi4py import MPI

import dsm
from benchmarks.app import App, Result, Team, kernel, require

THRESHOLD = 1024
SHARED = 8 * THRESHOLD  # dsm: smaller parts are sorted where they are made
Part = tuple[int, int]  # first, end


@kernel
def divide(items: np.ndarray, first: int, end: int) -> int:
    """Move what is at most a pivot to the front and what is at least the pivot behind it; return where that begins.

    Neither side is empty if there are three items or more (Hoare 1961, with the median of three for a pivot).
    """
    a, b, c = items[first], items[(first + end) // 2], items[end - 1]
    pivot = max(min(a, b), min(max(a, b), c))
    i, j = first - 1, end
    while True:
        i += 1
        while items[i] < pivot:
            i += 1
        j -= 1
        while items[j] > pivot:
            j -= 1
        if i >= j:
            return j + 1
        items[i], items[j] = items[j], items[i]


@kernel
def bubble(items: np.ndarray, first: int, end: int) -> None:
    """Sort a small part."""
    while end > first:
        last = first
        for i in range(first + 1, end):
            if items[i - 1] > items[i]:
                items[i - 1], items[i] = items[i], items[i - 1]
                last = i
        end = last


def halves(items: np.ndarray, first: int, end: int) -> tuple[Part, Part]:
    """Divide a part; return the smaller and the larger side."""
    middle = divide(items, first, end)
    below, above = (first, middle), (middle, end)
    return (below, above) if middle - first < end - middle else (above, below)


def sort(items: np.ndarray, first: int, end: int) -> None:
    """Sort a part alone, with a stack for the queue."""
    parts = [(first, end)]
    while parts:
        first, end = parts.pop()
        while end - first > THRESHOLD:
            smaller, (first, end) = halves(items, first, end)
            parts.append(smaller)
        bubble(items, first, end)


def make(n: int) -> np.ndarray:
    """Draw `n` integers of 32 bits."""
    return np.random.default_rng(1).integers(-(2**31), 2**31, n, np.int32)


def serial(problem: np.ndarray, team: Team) -> Result:
    """Sort all of it alone."""
    items = problem.copy()
    with team.timed():
        sort(items, 0, len(items))
    return {"items": items}


ASK, ANSWER, ITEMS, SORTED, END = range(5)  # tags; messages but ITEMS are two numbers


class Worker:
    """A rank with its share of the queue: parts that lie in its own memory, from which it gives to ranks that ask."""

    def __init__(self, comm: Any, problem: np.ndarray) -> None:
        self.comm, self.status, self.requests = comm, MPI.Status(), []
        self.items = problem.copy() if comm.rank == 0 else np.empty_like(problem)
        self.parts: list[Part] = [(0, len(problem))] if comm.rank == 0 else []
        self.done: list[Part] = []
        self.untold, self.unsorted = 0, len(problem)  # sorted items that rank 0 was not told of; all, on rank 0
        self.others = itertools.cycle([*range(comm.rank + 1, comm.size), *range(comm.rank)])
        self.asked, self.ended = False, False

    def send(self, tag: int, rank: int, first: int = 0, end: int = 0) -> None:
        """Send two numbers without waiting."""
        self.requests.append(self.comm.Isend(np.array([first, end], np.int64), rank, tag))

    def step(self) -> None:
        """Divide or sort the last part, or ask another rank for one; then see to the messages."""
        if self.parts:
            first, end = self.parts.pop()
            if end - first > THRESHOLD:
                self.parts.extend(halves(self.items, first, end))
            else:
                bubble(self.items, first, end)
                self.done.append((first, end))
                self.untold += end - first
        elif not self.asked:
            self.tell()
            self.ask()
        self.receive()

    def tell(self) -> None:
        """Let rank 0 know how many items have been sorted here."""
        if self.comm.rank == 0:
            self.count(self.untold)
        elif self.untold:
            self.send(SORTED, 0, self.untold)
        self.untold = 0

    def count(self, items: int) -> None:
        """On rank 0: end it when all items are sorted."""
        self.unsorted -= items
        if self.unsorted == 0 and not self.ended:
            self.ended = True
            for rank in range(1, self.comm.size):
                self.send(END, rank)

    def ask(self) -> None:
        """Ask the rank after the one that was asked last."""
        if not self.ended:
            self.send(ASK, next(self.others))
            self.asked = True

    def receive(self) -> None:
        """Handle the messages that have come; wait for one if nothing else can be done."""
        if self.asked and not self.ended:
            self.comm.Probe()
        while self.comm.Iprobe(status=self.status):
            numbers, rank, tag = np.empty(2, np.int64), self.status.source, self.status.tag
            self.comm.Recv(numbers, rank, tag)
            first, end = numbers.tolist()
            if tag == ASK:
                self.give(rank)
            elif tag == SORTED:
                self.count(first)
            elif tag == END:
                self.ended = True
            else:  # an answer
                self.asked = False
                if first < end:
                    self.comm.Recv(self.items[first:end], rank, ITEMS)
                    self.parts.append((first, end))

    def give(self, rank: int) -> None:
        """Give the oldest part, the largest as a rule, but not the only one."""
        if len(self.parts) > 1:
            first, end = self.parts.pop(0)
            self.send(ANSWER, rank, first, end)
            self.comm.Send(self.items[first:end], rank, ITEMS)
        else:
            self.send(ANSWER, rank)

    def leave(self) -> None:
        """Answer until nobody asks any more.  Collective."""
        barrier = None
        while barrier is None or not barrier.Test():
            self.receive()
            if barrier is None and not self.asked:
                barrier = self.comm.Ibarrier()
        MPI.Request.Waitall(self.requests)


def by_mpi4py(problem: np.ndarray, team: Team) -> Result:
    """The queue is in pieces: each rank keeps the parts that it makes, and who has none asks one rank after the other.

    So items travel only where a rank would be idle, in large parts and straight into place, and few questions wait for
    the end of a piece of work.  The paper's PVM program has a master, to which every part goes and from which it comes
    again: more messages, and either a core that sorts nothing or a question that waits for each part.
    """
    worker = Worker(team.comm, problem)
    with team.timed():
        while not worker.ended:
            worker.step()
    worker.leave()
    items = np.zeros_like(problem)
    for first, end in worker.done:
        items[first:end] = worker.items[first:end]
    team.comm.Reduce(MPI.IN_PLACE if team.rank == 0 else items, items)
    return {"items": items}


class Queue:
    """Parts that wait, and how many ranks work on one: when both are none, all is sorted."""

    def __init__(self, n: int) -> None:
        self.changed = dsm.Condition()
        memory = dsm.zeros((2 + n // SHARED, 2), np.int64)
        self.state, self.parts = memory[0], memory[1:]
        if dsm.rank() == 0:
            self.state[:] = 1, dsm.size()  # parts, busy ranks: all are until they find that the queue is empty
            self.parts[0] = 0, n

    def put(self, part: Part) -> None:
        """Put a part on top."""
        with self.changed:
            self.parts[self.state[0]] = part
            self.state[0] += 1
            self.changed.notify()

    def take(self) -> list[int]:
        """Take the last part; nothing when all is sorted."""
        with self.changed:
            self.state[1] -= 1
            if not self.state.any():
                self.changed.notify_all()
            self.changed.wait_for(lambda: self.state[0] > 0 or self.state[1] == 0)
            if not self.state[0]:
                return []
            self.state += -1, 1
            return self.parts[self.state[0]].tolist()


def by_dsm(problem: np.ndarray, team: Team) -> Result:
    """The serial program with a shared queue of the large parts."""
    items, queue = dsm.array(problem), Queue(len(problem))
    dsm.barrier()
    with team.timed():
        while part := queue.take():
            first, end = part
            while end - first > SHARED:
                smaller, (first, end) = halves(items, first, end)
                if smaller[1] - smaller[0] > SHARED:
                    queue.put(smaller)
                else:
                    sort(items, *smaller)
            sort(items, first, end)
    return {"items": items}


def verify(problem: np.ndarray, result: Result, _: Result | None) -> None:
    """Item by item against numpy.sort."""
    wrong = int((result["items"] != np.sort(problem)).sum())
    require(wrong == 0, f"{wrong} of {len(problem)} items are not where numpy.sort has them")


APPS = (
    App(
        name="qsort",
        title="Quicksort with a queue of parts",
        pattern="work queue, migratory blocks",
        sizes={"tiny": 20_000, "small": 2**18, "paper": 2**19, "large": 2**23},
        make=make,
        serial=serial,
        mpi4py=by_mpi4py,
        dsm=by_dsm,
        verify=verify,
        memory=lambda n: 4 * n,
        reach=0.80,
        published=True,
        paper=(6.17, 4.46),
    ),
)
