"""What a lock promises: one holder at a time, who sees what all holders before it have written or seen."""

import os
import threading
import time

import numpy as np
import pytest

import dsm

pytestmark = pytest.mark.mpi

PAGE = 4096
RANKS, CORES = dsm.size(), len(os.sched_getaffinity(0))
# Of one lock; the long run has a million.  A hand-over takes milliseconds where more ranks than cores take turns.
HANDOVERS = int(os.environ.get("DSM_TEST_HANDOVERS", "20000" if RANKS <= CORES else "2000"))
EACH = max(20, 400 // RANKS)  # times that each rank does something


def test_every_increment_counts(shared):
    lock = dsm.Lock()
    a = shared.zeros(3 * PAGE // 8, int, page_size=PAGE)
    for _ in range(EACH):
        with lock:
            a[::100] += 1
    dsm.barrier()
    assert (a[::100] == EACH * dsm.size()).all()
    assert a.sum() == EACH * dsm.size() * len(a[::100])


def test_data_migrates_along_a_chain_of_locks(shared, comm):
    """Rank r + 1 never holds the lock under which rank r - 1 wrote, and sees what was written all the same."""
    locks = [dsm.Lock() for _ in range(dsm.size())]
    a = shared.zeros((dsm.size(), PAGE // 8), int, page_size=PAGE)
    b = shared.zeros(dsm.size(), int)
    for turn in range(1, 8):
        for rank in range(dsm.size()):
            if dsm.rank() == rank:
                if rank > 0:
                    with locks[rank - 1]:  # the hand-over from the rank before, and nothing but that
                        assert (a[:rank] == turn).all()
                        assert (b[:rank] == turn * np.arange(1, rank + 1)).all()
                a[rank] = turn
                with locks[rank]:
                    b[rank] = turn * (rank + 1)
            comm.Barrier()
        dsm.barrier()


def test_data_migrates_among_three_locks_and_all_ranks(shared):
    """Random hand-overs; each lock guards words in pages that the other locks' words are in too."""
    random = np.random.default_rng(dsm.rank())
    locks = [dsm.Lock() for _ in range(3)]
    a = shared.zeros((3, PAGE // 8), int, page_size=PAGE)
    times = np.zeros(3, int)
    for which in random.integers(3, size=EACH):
        with locks[which]:
            own = a[:, which::3]
            assert (own == own[0, 0]).all()
            own += 1
        times[which] += 1
    dsm.barrier()
    total = shared.zeros((dsm.size(), 3), int)
    total[dsm.rank()] = times
    dsm.barrier()
    for which in range(3):
        assert (a[:, which::3] == total[:, which].sum()).all()


def test_locks_and_barriers_mixed(shared):
    lock = dsm.Lock()
    total = shared.zeros(1, int)
    parts = shared.zeros((dsm.size(), 1000), int, page_size=PAGE)
    for turn in range(1, 15):
        parts[dsm.rank()] = turn + dsm.rank()
        with lock:
            total[0] += turn
        dsm.barrier()
        assert total[0] == dsm.size() * turn * (turn + 1) // 2
        assert (parts == turn + np.arange(dsm.size())[:, None]).all()
        dsm.barrier()


def test_what_was_written_before_acquiring_is_published_too(shared, comm):
    lock = dsm.Lock()
    a = shared.zeros(5 * PAGE, np.uint8, page_size=PAGE)
    if dsm.rank() == 0:
        a[:] = 3
        with lock:
            pass
    comm.Barrier()
    with lock:
        pass
    assert (a == 3).all()


def test_arrays_of_different_page_sizes_under_one_lock(shared):
    lock = dsm.Lock()
    arrays = [shared.zeros(20_000, int, page_size=PAGE << shift) for shift in (0, 1, 4, 8)]
    for turn in range(EACH // 4):
        with lock:
            for a in arrays:
                assert (a[:: 1000 + turn] >= 0).all()
                a[dsm.rank() :: 997] += 1
                a[5] += 1
    dsm.barrier()
    expected = np.zeros(20_000, int)
    for rank in range(dsm.size()):
        expected[rank::997] += EACH // 4
        expected[5] += EACH // 4
    for a in arrays:
        assert np.array_equal(a, expected)


def test_lock_that_stays_here_costs_no_message(shared, counted, undisturbed):
    locks = [dsm.Lock() for _ in range(dsm.size())]
    mine = locks[dsm.rank()]
    a = shared.zeros((dsm.size(), PAGE // 8), int, page_size=PAGE)
    with mine:
        a[dsm.rank()] += 1
    dsm.barrier()
    with mine:
        a[dsm.rank()] += 1
    with counted() as growth:
        for _ in range(1000):
            with mine:
                a[dsm.rank()] += 1
    assert growth["lock_acquires"] == growth["lock_acquires_local"] == 1000
    if undisturbed:
        assert growth["messages_sent"] == growth["messages_received"] == 0
        assert growth["faults_read"] == growth["faults_write"] == 0
    dsm.barrier()
    assert (a == 1002).all()


def test_not_blocking(comm):
    lock = dsm.Lock()
    for holder in range(dsm.size()):
        if dsm.rank() == holder:
            assert lock.acquire(blocking=False)
            assert lock.locked()
        comm.Barrier()
        if dsm.rank() != holder:
            assert not lock.acquire(blocking=False)
            assert not lock.locked()  # as far as this rank is concerned
        comm.Barrier()
        if dsm.rank() == holder:
            assert not lock.acquire(blocking=False)
            lock.release()
            assert not lock.locked()
        comm.Barrier()


def test_not_blocking_publishes_like_any_acquire(shared):
    lock = dsm.Lock()
    a = shared.zeros(1, int)
    for _ in range(EACH // 4):
        while not lock.acquire(blocking=False):
            time.sleep(0.0005)
        a[0] += 1
        lock.release()
    dsm.barrier()
    assert a[0] == EACH // 4 * dsm.size()


def test_timeout(comm):
    lock = dsm.Lock()
    if dsm.rank() == 0:
        assert lock.acquire(timeout=5)
    comm.Barrier()
    if dsm.rank() != 0:
        start = time.monotonic()
        assert not lock.acquire(timeout=0.3)
        assert 0.25 < time.monotonic() - start < 5
        assert not lock.locked()
    comm.Barrier()
    if dsm.rank() == 0:
        lock.release()
    comm.Barrier()
    with lock:  # those who gave up do not stand in anybody's way
        assert lock.locked()
    comm.Barrier()
    assert lock.acquire(timeout=30)
    lock.release()


def test_timeouts_and_waits_at_random(shared):
    """Requests that were given up keep travelling; no increment is lost and nobody waits for ever."""
    random = np.random.default_rng(100 + dsm.rank())
    lock = dsm.Lock()
    a = shared.zeros(2, int)
    times = 0
    for turn in range(EACH // 2):
        if lock.acquire(timeout=float(random.choice([-1, 0.0, 0.0002, 0.002]))):
            a[0] += 1
            if turn % 7 == 0:
                time.sleep(0.001)
            lock.release()
            times += 1
    with lock:
        a[1] += times
    dsm.barrier()
    assert a[0] == a[1] > 0


@pytest.mark.parametrize("arguments", [{"blocking": False, "timeout": 1}, {"timeout": -2}, {"timeout": float("nan")}])
def test_arguments_that_threading_refuses(arguments):
    lock = dsm.Lock()
    with pytest.raises(ValueError, match="timeout"):
        lock.acquire(**arguments)
    assert not lock.locked()


def test_release_of_a_lock_that_is_not_held(comm):
    lock = dsm.Lock()
    if dsm.rank() == 0:
        lock.acquire()
    comm.Barrier()
    if dsm.rank() != 0:
        with pytest.raises(RuntimeError):
            lock.release()
    comm.Barrier()
    if dsm.rank() == 0:
        lock.release()
    with pytest.raises(RuntimeError):
        lock.release()
    comm.Barrier()
    with lock:
        assert lock.locked()


def test_two_threads_of_every_rank_on_one_lock(shared, in_threads):
    lock = dsm.Lock()
    a = shared.zeros(PAGE // 8, int, page_size=PAGE)
    inside = []

    def work():
        for _ in range(EACH // 2):
            with lock:
                inside.append(threading.get_ident())
                assert len(inside) == 1
                a[::50] = a[::50] + 1
                inside.pop()

    in_threads(work, work)
    dsm.barrier()
    assert (a[::50] == 2 * (EACH // 2) * dsm.size()).all()


def test_another_thread_of_the_rank_waits_and_times_out(comm, in_threads):
    lock = dsm.Lock()
    locks_of_ranks = [dsm.Lock() for _ in range(dsm.size())]
    for one in (locks_of_ranks[dsm.rank()], lock):
        with one:
            took = []
            in_threads(lambda one=one, took=took: took.append(one.acquire(timeout=0.2)))
            in_threads(lambda one=one, took=took: took.append(one.acquire(blocking=False)))
            assert took == [False, False]
            assert one.locked()
        comm.Barrier()


def test_a_lock_may_be_released_by_another_thread(comm, in_threads):
    lock = dsm.Lock()
    lock.acquire()
    in_threads(lock.release)
    assert not lock.locked()
    comm.Barrier()
    with lock:
        assert lock.locked()


def test_rlock(shared, in_threads):
    lock = dsm.RLock()
    a = shared.zeros(1, int)

    def work():
        for _ in range(EACH // 8):
            with lock:
                a[0] += 1
                with lock:
                    assert lock.acquire(blocking=False)
                    a[0] += 1
                    lock.release()

    in_threads(work, work)
    dsm.barrier()
    assert a[0] == 2 * (EACH // 8) * 2 * dsm.size()
    refused = []

    def release_of_another_thread():
        with pytest.raises(RuntimeError):
            lock.release()
        refused.append(True)

    with lock:
        in_threads(release_of_another_thread)
    assert refused


def test_thread_works_under_locks_while_another_sits_in_barrier(shared, comm):
    """Rank 0 comes to the barrier only when it has seen the last increment that the others' threads make."""
    lock = dsm.Lock()
    a = shared.zeros(PAGE // 8, int, page_size=PAGE)
    others = dsm.size() - 1

    def work():
        for _ in range(EACH):
            with lock:
                a[0] += 1
                a[100 + dsm.rank()] += 1

    if dsm.rank() > 0:
        thread = threading.Thread(target=work)
        thread.start()
        dsm.barrier()
        thread.join()
    else:
        seen = -1
        while seen < EACH * others:
            with lock:
                assert a[0] >= seen
                seen = a[0]
            time.sleep(0.001)
        dsm.barrier()
    assert a[0] == EACH * others
    assert (a[101 : 100 + dsm.size()] == EACH).all()


def test_threads_under_locks_and_main_threads_in_many_barriers(shared):
    lock = dsm.Lock()
    guarded = shared.zeros(4 * PAGE // 8, int, page_size=PAGE)
    phased = shared.zeros(4 * PAGE // 8, int, page_size=PAGE)
    neighbours = guarded[1::2]  # written by the main threads, in the pages that the lock's words are in

    def work():
        for _ in range(EACH):
            with lock:
                guarded[::2] += 1

    thread = threading.Thread(target=work)
    thread.start()
    for turn in range(20):
        phased[dsm.rank() :: dsm.size()] = turn
        neighbours[dsm.rank() :: dsm.size()] = turn
        dsm.barrier()
        assert (phased == turn).all()
        assert (neighbours == turn).all()
        dsm.barrier()
    thread.join()
    dsm.barrier()
    assert (guarded[::2] == EACH * dsm.size()).all()


def test_bank_transfers_keep_the_sum(shared):
    """Every transfer holds two locks, and an audit all of them; money is neither made nor lost."""
    banks, accounts = 4, 300
    locks = [dsm.Lock() for _ in range(banks)]
    money = shared.full((banks, accounts), 100, int, page_size=PAGE)
    random = np.random.default_rng(dsm.rank())

    def audit():
        for lock in locks:
            lock.acquire()
        total = money.sum()
        for lock in reversed(locks):
            lock.release()
        return total

    for turn in range(EACH // 2):
        giver, taker = random.choice(banks, 2, replace=False)
        from_account, to_account = random.integers(accounts, size=2)
        with locks[min(giver, taker)], locks[max(giver, taker)]:
            amount = min(int(random.integers(1, 60)), money[giver, from_account])
            money[giver, from_account] -= amount
            money[taker, to_account] += amount
        if turn % 30 == 9:
            assert audit() == 100 * money.size
    dsm.barrier()
    assert money.sum() == 100 * money.size
    assert (money >= 0).all()
    assert (money != 100).any()


def test_tickets_are_unique(comm, in_threads):
    counter = dsm.Counter(start=-5)
    tickets = [], []

    def take(mine):
        while (ticket := counter.next()) < 400:
            mine.append(ticket)

    in_threads(*[lambda mine=mine: take(mine) for mine in tickets])
    for mine in tickets:
        assert mine == sorted(mine)
    everybody = comm.allgather(tickets[0] + tickets[1])
    assert sorted(ticket for theirs in everybody for ticket in theirs) == list(range(-5, 400))
    assert counter.value == 400 + 2 * dsm.size()  # each thread took one too many
    comm.Barrier()


@pytest.mark.timeout(120 + HANDOVERS / 200)
def test_memory_of_a_program_with_locks_only_is_bounded(shared, comm):
    """No barrier ever trims the logs: only a collection does."""
    lock = dsm.Lock()
    a = shared.zeros(4 * PAGE // 8, int, page_size=PAGE)
    turns = HANDOVERS // dsm.size()
    dsm.stats(reset=True)
    comm.Barrier()
    for turn in range(turns):
        with lock:
            a[turn % len(a)] += 1
            a[-1] += 1
    used = dsm.stats()
    dsm.barrier()
    assert a.sum() == 2 * turns * dsm.size()
    assert used["lock_acquires"] == turns
    assert 0 < used["memory_bytes_max"] < 128 << 20
