"""Random programs without data races, and every single read of them compared with what release consistency promises.

In each phase, which ends with a barrier, an address has one writer, or one lock, or readers only; second threads use
addresses and locks of their own and know nothing of the phases.  Addresses lie close around the borders of pages.
Reads under a lock are checked afterwards: each critical section draws a number from a shared array under its lock, and
the sections are replayed in the order of these numbers.
"""

import os
import random
import threading
from collections import defaultdict

import numpy as np
import pytest

import dsm

pytestmark = pytest.mark.mpi

PAGE = int(os.environ.get("DSM_PAGE_SIZE") or 4096)
PAGES = 4
LOCKS = 3
SECOND_LOCKS = 2
PROGRAMS = int(os.environ.get("DSM_TEST_PROGRAMS", max(12, 80 // dsm.size())))


class Program:
    """What all ranks do; made from a seed, so every rank knows it."""

    def __init__(self, seed):
        rng = random.Random(seed)
        border = [k * PAGE + d for k in range(1, PAGES) for d in range(-5, 5)]
        self.initial = rng.choice([0, 0, 7])
        self.page_size = PAGE << rng.choice([0, 0, 0, 1])
        addresses = sorted(rng.sample(border, 20) + rng.sample(range(PAGES * PAGE), 4))
        self.guarded = defaultdict(list)  # of the second threads: lock -> addresses
        if rng.random() < 0.7:
            for address in rng.sample(addresses, 6):
                self.guarded[rng.randrange(SECOND_LOCKS)].append(address)
                addresses = [a for a in addresses if a != address]
        self.phases = [self.phase(rng, addresses) for _ in range(rng.randrange(2, 7))]

    def phase(self, rng, addresses):
        """For each rank a list of (kind, address or addresses, lock)."""
        roles = {a: rng.choice(["lock", "read", "own", "own"]) for a in addresses}
        writer = {a: rng.randrange(dsm.size()) for a in addresses}
        by_lock = defaultdict(list)
        for a in addresses:
            if roles[a] == "lock":
                by_lock[rng.randrange(LOCKS)].append(a)
        operations = [[] for _ in range(dsm.size())]
        for mine in operations:
            for _ in range(rng.randrange(1, 25)):
                a = rng.choice(addresses)
                if roles[a] == "read":
                    mine.append(("read", a, None))
                elif roles[a] == "own":
                    own = [b for b in addresses if roles[b] == "own" and writer[b] == len(mine) % dsm.size()]
                    mine.extend((rng.choice(["write", "write", "read"]), b, None) for b in own[:2])
                elif by_lock:
                    lock = rng.choice(sorted(by_lock))
                    mine.append(("lock", by_lock[lock], lock))
        for rank, mine in enumerate(operations):
            mine[:] = [o for o in mine if o[0] == "lock" or roles[o[1]] == "read" or writer[o[1]] == rank]
        return operations


class Runner:
    """Carries out one thread's part and notes all that it reads and writes."""

    def __init__(self, memory, numbers, locks, rng):
        self.memory, self.numbers, self.locks, self.rng = memory, numbers, locks, rng
        self.log = []  # (lock or None, number of the critical section, "read" or "write", address, value)

    def read(self, lock, number, address):
        self.log.append((lock, number, "read", address, int(self.memory[address])))

    def write(self, lock, number, address):
        value = self.rng.randrange(256)
        self.memory[address] = value
        self.log.append((lock, number, "write", address, value))

    def critical_section(self, lock, addresses):
        timeout = self.rng.choice([-1, -1, -1, 0.001])
        if not self.locks[lock].acquire(timeout=timeout):
            return
        number = int(self.numbers[lock])
        self.numbers[lock] = number + 1
        for _ in range(self.rng.randrange(1, 4)):
            address = self.rng.choice(addresses)
            self.read(lock, number, address)
            if self.rng.random() < 0.7:
                self.write(lock, number, address)
        self.locks[lock].release()

    def carry_out(self, operations):
        for kind, what, lock in operations:
            if kind == "read":
                self.read(None, None, what)
            elif kind == "write":
                self.write(None, None, what)
            else:
                self.critical_section(lock, what)

    def second_thread(self, guarded):
        for _ in range(self.rng.randrange(3, 25)):
            lock = self.rng.choice(sorted(guarded))
            self.critical_section(LOCKS + lock, guarded[lock])


def replay(logs, values, sections):
    """Check all reads of all ranks, in an order that release consistency allows, and bring `values` up to date."""
    under_locks = []
    for rank, log in enumerate(logs):
        for position, (lock, number, kind, address, value) in enumerate(log):
            if lock is None:
                check(values, kind, address, value, f"rank {rank}, operation {position}")
            else:
                under_locks.append((lock, number, rank, position, kind, address, value))
    under_locks.sort()
    for lock in {entry[0] for entry in under_locks}:
        holders = sorted({(number, rank) for which, number, rank, *_ in under_locks if which == lock})
        numbers = [number for number, _ in holders]
        assert numbers == list(range(sections[lock], sections[lock] + len(numbers))), f"lock {lock}: holders {holders}"
        sections[lock] += len(numbers)
    for lock, number, rank, _, kind, address, value in under_locks:
        check(values, kind, address, value, f"rank {rank}, critical section {number} of lock {lock}")


def check(values, kind, address, value, where):
    if kind == "write":
        values[address] = value
    else:
        assert value == values[address], f"{where} read {value} at {address}, expected {values[address]}"


@pytest.fixture(scope="module")
def locks():
    return [dsm.Lock() for _ in range(LOCKS + SECOND_LOCKS)]


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_random_program(shared, comm, locks, seed):
    program = Program(seed)
    memory = shared.full(PAGES * PAGE, program.initial, np.uint8, page_size=program.page_size)
    numbers = shared.zeros(len(locks), int, page_size=PAGE)
    values, sections = np.full(memory.size, program.initial), [0] * len(locks)
    second = Runner(memory, numbers, locks, random.Random(f"second {seed} {dsm.rank()}"))
    thread = threading.Thread(target=second.second_thread, args=[program.guarded])
    if program.guarded:
        thread.start()
    rng = random.Random(f"main {seed} {dsm.rank()}")
    for operations in program.phases:
        runner = Runner(memory, numbers, locks, rng)
        runner.carry_out(operations[dsm.rank()])
        dsm.barrier()
        replay(comm.allgather(runner.log), values, sections)
    if program.guarded:
        thread.join()
        dsm.barrier()
        replay(comm.allgather(second.log), values, sections)
    assert np.array_equal(memory, values), f"differ at {np.flatnonzero(memory != values)}"
