"""Conditions, semaphores, events and barriers of threads: who is woken, what is seen, what a timeout leaves behind."""

import signal
import threading
import time

import pytest

import dsm

pytestmark = pytest.mark.mpi

PAGE = 4096
TURNS = max(10, 60 // dsm.size())
MINUTE = 60.0  # so long nothing here takes


@pytest.mark.parametrize("make", [dsm.Lock, dsm.RLock])
def test_turns_in_a_ring(shared, make):
    """Each rank waits until it is its turn; what all before it wrote is there."""
    condition = dsm.Condition(make())
    turn = shared.zeros(1, int)
    a = shared.zeros((dsm.size(), PAGE // 8), int, page_size=PAGE)
    for times in range(1, TURNS + 1):
        with condition:
            assert condition.wait_for(lambda: turn[0] % dsm.size() == dsm.rank(), MINUTE)
            assert (a[: dsm.rank()] == times).all()
            assert (a[dsm.rank() :] == times - 1).all()
            a[dsm.rank()] = times
            turn[0] += 1
            condition.notify_all()
    dsm.barrier()
    assert turn[0] == TURNS * dsm.size()


@pytest.fixture
def waiters(in_threads):
    """Let some threads of every rank wait on a condition, and tell when all of them do."""

    class Waiters:
        def __init__(self, condition, numbers, each):
            self.condition, self.numbers, self.each = condition, numbers, each  # numbers: waiting, woken
            self.answers = []

        def run(self, then, timeout=MINUTE):
            in_threads(*[lambda: self.wait(timeout)] * self.each, lambda: self.after_all_wait(then))

        def wait(self, timeout):
            with self.condition:
                self.numbers[0] += 1
                self.answers.append(self.condition.wait(timeout))
                self.numbers[1] += 1

        def after_all_wait(self, then):
            if dsm.rank() == 0:
                while True:
                    with self.condition:
                        if self.numbers[0] == self.each * dsm.size():
                            break
                    time.sleep(0.001)
                then()

    return Waiters


def test_notify_all_wakes_all_threads_of_all_ranks(shared, waiters):
    condition = dsm.Condition()
    numbers = shared.zeros(2, int)
    party = waiters(condition, numbers, 3)

    def wake():
        with condition:
            condition.notify_all()
            assert numbers[1] == 0  # they come when the lock is free

    party.run(wake)
    dsm.barrier()
    assert party.answers == [True] * 3
    assert numbers.tolist() == [3 * dsm.size()] * 2
    with condition:
        assert not condition.wait(0)  # nothing is left over
    dsm.barrier()


@pytest.mark.parametrize("n", [1, 2])
def test_notify_wakes_so_many(shared, waiters, n):
    condition = dsm.Condition(dsm.Lock())
    numbers = shared.zeros(2, int)
    party = waiters(condition, numbers, 2)

    def wake():
        total = 2 * dsm.size()
        for woken in range(n, total + n, n):
            with condition:
                condition.notify(n)
            while True:
                with condition:
                    assert numbers[1] <= woken
                    if numbers[1] == min(woken, total):
                        break
                time.sleep(0.001)

    party.run(wake)
    dsm.barrier()
    assert party.answers == [True] * 2


def test_a_queue_between_all_threads(shared, in_threads):
    """Bounded buffer: every item comes out once, with two conditions over one lock."""
    lock = dsm.Lock()
    not_empty, not_full = dsm.Condition(lock), dsm.Condition(lock)
    items, ends = shared.zeros(3, int), shared.zeros(2, int)  # ends: put in, taken out
    seen = shared.zeros(TURNS * dsm.size(), int)

    def put():
        for k in range(TURNS):
            with not_full:
                assert not_full.wait_for(lambda: ends[0] - ends[1] < len(items), MINUTE)
                items[ends[0] % len(items)] = TURNS * dsm.rank() + k
                ends[0] += 1
                not_empty.notify()

    def take():
        for _ in range(TURNS):
            with not_empty:
                assert not_empty.wait_for(lambda: ends[0] > ends[1], MINUTE)
                seen[items[ends[1] % len(items)]] += 1
                ends[1] += 1
                not_full.notify()

    in_threads(put, take)
    dsm.barrier()
    assert (seen == 1).all()


def test_timeouts_leave_nothing_behind(shared, waiters):
    """Some waiters lose patience just when others are notified: a notification reaches whoever still waits."""
    condition = dsm.Condition()
    for _ in range(5):
        with condition:
            assert condition.wait(0) is False
            assert condition.wait(-1) is False
            assert condition.wait(0.001) is False
            assert condition.wait_for(lambda: False, 0.001) is False
            assert condition.wait_for(lambda: 7) == 7
    dsm.barrier()
    numbers = shared.zeros(2, int)
    party = waiters(condition, numbers, 2)

    def wake():
        with condition:
            condition.notify_all()

    party.run(wake)
    assert party.answers == [True] * 2
    dsm.barrier()


def test_notified_or_out_of_time_but_never_both(shared, in_threads):
    """As many waits succeed as notifications were given, whatever the timeouts do."""
    condition = dsm.Condition(dsm.Lock())
    numbers = shared.zeros(3, int)  # waiting, given, taken

    def wait():
        for k in range(TURNS):
            with condition:
                numbers[0] += 1
                taken = condition.wait(0.0005 * (k % 4))
                numbers[0] -= 1
                numbers[2] += taken

    def notify():
        for _ in range(TURNS):
            with condition:
                given = min(1, numbers[0] - (numbers[1] - numbers[2]))
                condition.notify()
                numbers[1] += given

    in_threads(wait, wait, notify)
    dsm.barrier()
    assert numbers[0] == 0
    assert numbers[1] == numbers[2]


def test_a_wait_sends_nothing(undisturbed):
    condition = dsm.Condition()
    for rank in range(dsm.size()):
        if rank == dsm.rank():
            with condition:
                assert not condition.wait(0)  # the pages and the token are here now
                before = dsm.stats()["messages_sent"]
                assert not condition.wait(0.25)
                if undisturbed:
                    assert dsm.stats()["messages_sent"] == before
        dsm.barrier()


def test_recursive_lock_is_let_go_and_taken_again(shared):
    lock = dsm.RLock()
    condition = dsm.Condition(lock)
    flag = shared.zeros(1, int)
    if dsm.rank() == 0:
        with condition, lock, lock:
            assert condition.wait_for(lambda: dsm.size() == 1 or flag[0] == dsm.size() - 1, MINUTE)
            assert "3 times" in repr(lock)
    else:
        with condition:
            flag[0] += 1
            condition.notify()
    dsm.barrier()
    assert not lock.locked()


def test_what_a_condition_refuses():
    for lock in (dsm.Lock(), dsm.RLock()):
        condition = dsm.Condition(lock)
        for call in (condition.wait, condition.notify, condition.notify_all, lambda c=condition: c.wait_for(bool)):
            with pytest.raises(RuntimeError, match="acquire its lock first"):
                call()
        with condition:
            with pytest.raises(ValueError, match="NaN"):
                condition.wait(float("nan"))
            with pytest.raises(OverflowError):
                condition.wait(1e300)
            with pytest.raises(TypeError):
                condition.notify(0.5)
        assert not lock.locked()
    with pytest.raises(TypeError, match=r"dsm\.Lock"):
        dsm.Condition(threading.Lock())
    dsm.barrier()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "make",
    [
        lambda first: dsm.Semaphore(1 if first else 2),
        lambda first: dsm.Barrier(1 if first else 2),
        lambda first: dsm.Semaphore() if first else dsm.BoundedSemaphore(),
    ],
)
def test_ranks_that_differ(make):
    with pytest.raises(ValueError, match="rank"):
        make(dsm.rank() > 0)
    dsm.barrier()


@pytest.mark.mpi(min_size=2)
def test_conditions_over_different_locks():
    locks = dsm.Lock(), dsm.Lock()
    with pytest.raises(ValueError, match="rank"):
        dsm.Condition(locks[dsm.rank() > 0])
    dsm.barrier()


def test_an_exception_in_a_wait_passes_the_notification_on(shared):
    """A signal handler that raises ends the wait within a slice; the lock is held, and who waits besides is woken."""

    class Alarm(Exception):
        pass

    def ring(number, frame):
        raise Alarm

    condition = dsm.Condition()
    before = signal.signal(signal.SIGALRM, ring)
    try:
        with condition:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Alarm):
                condition.wait()
            assert condition._lock._is_mine()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    dsm.barrier()
    flag = shared.zeros(1, int)
    with condition:
        flag[0] += 1
        condition.notify_all()
        assert condition.wait_for(lambda: flag[0] == dsm.size(), MINUTE)
    dsm.barrier()


# ---- semaphores ------------------------------------------------------------------------------------------------------


def test_semaphore_lets_so_many_in(shared, in_threads):
    semaphore, lock = dsm.Semaphore(2), dsm.Lock()
    inside = shared.zeros(2, int)  # now, most

    def work():
        for _ in range(TURNS):
            with semaphore:
                with lock:
                    inside[0] += 1
                    inside[1] = max(inside)
                with lock:
                    inside[0] -= 1

    in_threads(work, work)
    dsm.barrier()
    assert inside[0] == 0
    assert inside[1] <= 2


def test_semaphore_carries_what_was_written(shared):
    full = dsm.Semaphore(0)
    a = shared.zeros(1000, int)
    if dsm.rank() == 0:
        a[:] = 5
        full.release(dsm.size())
    assert full.acquire(timeout=MINUTE)
    assert (a == 5).all()
    dsm.barrier()
    assert not full.acquire(blocking=False)
    assert not full.acquire(timeout=0.001)
    dsm.barrier()


def test_what_a_semaphore_refuses():
    with pytest.raises(ValueError, match=">= 0"):
        dsm.Semaphore(-1)
    with pytest.raises(TypeError):
        dsm.Semaphore(1.5)
    semaphore = dsm.Semaphore()
    with pytest.raises(ValueError, match="timeout"):
        semaphore.acquire(blocking=False, timeout=1)
    with pytest.raises(ValueError, match="one or more"):
        semaphore.release(0)
    bounded = dsm.BoundedSemaphore(dsm.size())
    with bounded:
        dsm.barrier()
    dsm.barrier()
    with pytest.raises(ValueError, match="too many times"):
        bounded.release()
    dsm.barrier()


# ---- events ----------------------------------------------------------------------------------------------------------


def test_event_is_seen_with_what_was_written_before(shared, in_threads):
    event = dsm.Event()
    a = shared.zeros(1000, int)
    for setter in range(dsm.size()):
        assert event.wait(0.001) is False or setter == dsm.rank()
        dsm.barrier()

        def look(setter=setter):
            assert event.wait(MINUTE) is True
            assert (a == setter + 1).all()

        def write(setter=setter):
            if dsm.rank() == setter:
                a[:] = setter + 1
                event.set()

        in_threads(look, write, look)
        assert event.is_set()
        assert event.wait(0) is True
        dsm.barrier()
        event.clear()
        dsm.barrier()
        assert not event.is_set()


# ---- barriers of threads ---------------------------------------------------------------------------------------------


def test_barrier_of_all_threads(shared, in_threads):
    calls = shared.zeros(1, int)

    def count():
        calls[0] += 1

    barrier = dsm.Barrier(2 * dsm.size(), count)
    assert barrier.parties == 2 * dsm.size()
    a = shared.zeros((2 * dsm.size(), PAGE // 8), int, page_size=PAGE)
    indices = []

    def work(row):
        for turn in range(1, 8):
            a[row] = turn
            indices.append(barrier.wait(MINUTE))
            assert (a == turn).all()
            assert calls[0] == 2 * turn - 1
            barrier.wait(MINUTE)

    in_threads(lambda: work(2 * dsm.rank()), lambda: work(2 * dsm.rank() + 1))
    dsm.barrier()
    assert set(indices) <= set(range(2 * dsm.size()))
    assert barrier.n_waiting == 0
    assert not barrier.broken
    dsm.barrier()


def test_barrier_that_breaks(shared):
    barrier = dsm.Barrier(dsm.size() + 1)
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(0.01)
    assert barrier.broken
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    dsm.barrier()
    assert barrier.n_waiting == 0
    if dsm.rank() == 0:
        barrier.reset()
    dsm.barrier()
    assert not barrier.broken
    dsm.barrier()
    barrier.abort()
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    dsm.barrier()


def test_barrier_that_is_reset_while_all_but_one_wait(shared, in_threads):
    barrier = dsm.Barrier(2 * dsm.size() + 1, timeout=MINUTE)

    def wait():
        for _ in range(3):
            with pytest.raises(threading.BrokenBarrierError):
                barrier.wait()

    def reset():
        if dsm.rank() == 0:
            for _ in range(3):
                while barrier.n_waiting < 2 * dsm.size():
                    time.sleep(0.001)
                barrier.reset()

    in_threads(wait, wait, reset)
    dsm.barrier()
    assert barrier.n_waiting == 0
    assert not barrier.broken
    dsm.barrier()


def test_barrier_whose_action_fails():
    def fail():
        raise KeyError

    barrier = dsm.Barrier(action=fail)
    with pytest.raises((KeyError, threading.BrokenBarrierError)):
        barrier.wait(MINUTE)
    assert barrier.broken
    dsm.barrier()
    with pytest.raises(ValueError, match="parties"):
        dsm.Barrier(0)
    with pytest.raises(TypeError, match="action"):
        dsm.Barrier(action=3)
