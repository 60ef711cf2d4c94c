"""Programs with an invariant that one stale page, one lost write or a second holder of a lock breaks.

They are short, and at home under ``DSM_CHAOS`` (tests/faults/test_chaos.py), with any number of ranks and any page
size (``DSM_PAGE_SIZE``).
"""

import random
import threading
import time

import numpy as np
import pytest

import dsm

pytestmark = pytest.mark.mpi

LOCKS = 5
TURNS = 20


@pytest.fixture(scope="module")
def locks():
    return [dsm.Lock() for _ in range(LOCKS)]


@pytest.fixture
def rng(request):
    return random.Random(f"{request.node.name} {dsm.rank()}")


def close_places(array, count):
    """Indices of an array of two pages around the border of its pages, where neighbours share a page or just do not."""
    border = dsm.info(array).page_size // array.itemsize
    return range(border - count // 2, border - count // 2 + count)


@pytest.fixture
def two_pages(shared):
    """Make an array of two pages of the default size."""

    def make(dtype):
        probe = shared.zeros(1, dtype)
        return shared.zeros(2 * dsm.info(probe).page_size // probe.itemsize, dtype)

    return make


def test_money_is_moved_and_never_made(two_pages, locks, comm, rng, in_threads):
    """Transfers take the locks of two accounts in order; auditors take all of them and count."""
    accounts = two_pages(np.int64)
    places = close_places(accounts, 4 * LOCKS)
    total = 100 * len(places)
    if dsm.rank() == 0:
        accounts[places.start : places.stop] = 100
    dsm.barrier()

    def transfers(dice):
        for _ in range(TURNS):
            source, target = dice.sample(places, 2)
            for lock in sorted({source % LOCKS, target % LOCKS}):
                locks[lock].acquire()
            amount = dice.randrange(50)
            accounts[source] -= amount
            accounts[target] += amount
            for lock in {source % LOCKS, target % LOCKS}:
                locks[lock].release()

    def audits():
        for _ in range(TURNS // 10):
            for lock in locks:
                lock.acquire()
            found = int(accounts[places.start : places.stop].sum())
            for lock in locks:
                lock.release()
            assert found == total, f"{found} instead of {total} in {accounts[places.start : places.stop].tolist()}"

    in_threads(lambda: transfers(rng), lambda: transfers(random.Random(f"second {dsm.rank()}")), audits)
    dsm.barrier()
    assert comm.allgather(int(accounts.sum())) == [total] * dsm.size()


def test_no_ticket_is_given_twice(shared, locks, comm):
    """From a counter, and from a number in shared memory under a lock; who draws it signs for it."""
    counter = dsm.Counter()
    next_ticket, signed = shared.zeros(1, np.int64), shared.full(TURNS * dsm.size(), -1, np.int16)
    drawn, counted = [], []
    for _ in range(TURNS):
        counted.append(counter.next())
        with locks[0]:
            ticket = int(next_ticket[0])
            next_ticket[0] = ticket + 1
            signed[ticket] = dsm.rank()
        drawn.append(ticket)
    dsm.barrier()
    assert sorted(ticket for part in comm.allgather(counted) for ticket in part) == list(range(TURNS * dsm.size()))
    by_rank = comm.allgather(drawn)
    assert sorted(ticket for part in by_rank for ticket in part) == list(range(TURNS * dsm.size()))
    assert all(part == sorted(part) for part in by_rank)
    for rank, part in enumerate(by_rank):
        assert (signed[part] == rank).all()


def test_counters_are_exact(two_pages, locks, comm, rng, in_threads):
    """Many of them on two pages: some under locks, some of one thread each, one byte apart."""
    numbers = two_pages(np.uint8)
    places = close_places(numbers, 3 * LOCKS + 2 * dsm.size())
    guarded, own = places[: 3 * LOCKS], places[3 * LOCKS :]
    added = np.zeros((2, len(places)), np.int64)

    def count(thread, dice):
        mine = own[2 * dsm.rank() + thread]
        for _ in range(TURNS):
            place = dice.choice(guarded)
            with locks[place % LOCKS]:
                numbers[place] += 1
            added[thread, place - places.start] += 1
            numbers[mine] += 1
            added[thread, mine - places.start] += 1

    in_threads(lambda: count(0, rng), lambda: count(1, random.Random(f"second {dsm.rank()}")))
    dsm.barrier()
    expected = sum(comm.allgather(added.sum(axis=0))) % 256
    assert numbers[places.start : places.stop].tolist() == expected.tolist()
    assert int(np.count_nonzero(numbers)) == np.count_nonzero(expected)


def test_what_goes_into_a_queue_comes_out_once(shared, locks, comm, in_threads):
    """A ring of a few places under one lock; every rank puts in and takes out at the same time."""
    room, length, total = 3, 700, TURNS * dsm.size()
    ring, ends = shared.zeros((room, length), np.int32), shared.zeros(2, np.int64)
    taken = []

    def put():
        number = 0
        while number < TURNS:
            with locks[0]:
                free = ends[1] - ends[0] < room
                if free:
                    ring[ends[1] % room] = dsm.rank() * TURNS + number
                    ends[1] += 1
                    number += 1
            if not free:
                time.sleep(0.002)

    def take():
        while True:
            item = None
            with locks[0]:
                if ends[0] == total:
                    return
                if ends[0] < ends[1]:
                    item = ring[ends[0] % room].copy()
                    ends[0] += 1
            if item is None:
                time.sleep(0.002)
            else:
                assert (item == item[0]).all(), f"parts of several items: {sorted(set(item.tolist()))}"
                taken.append(int(item[0]))

    in_threads(put, take)
    dsm.barrier()
    everything = comm.allgather(taken)
    assert sorted(item for part in everything for item in part) == list(range(total))
    for part in everything:  # who puts in items in order sees them leave in order
        for rank in range(dsm.size()):
            of_rank = [item for item in part if item // TURNS == rank]
            assert of_rank == sorted(of_rank)


def test_pages_whose_protection_is_taken_away(two_pages, in_threads):
    """A thread computes on data of its own while others of its rank synchronise: no access is lost or torn."""
    numbers = two_pages(np.int64)
    mine = close_places(numbers, 2 * dsm.size())[dsm.rank() :: dsm.size()]
    done = threading.Event()
    turns = 0

    def compute():
        nonlocal turns
        while not done.is_set():
            for place in mine:
                numbers[place] += 1
            turns += 1

    def meet():
        try:
            for _ in range(TURNS // 5):
                dsm.barrier()
                time.sleep(0.002)
        finally:
            done.set()

    in_threads(compute, meet)
    assert turns > 0
    assert numbers[list(mine)].tolist() == [turns] * len(mine)
