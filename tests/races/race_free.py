"""Programs without a data race, each in a function; `python race_free.py` runs all of them in one job.

No write/write race may be reported.  Those without a page that two ranks share have no possible race either.
"""

import os
import tempfile
import threading
from collections.abc import Callable

import numpy as np
from mpi4py import MPI

import dsm

PAGE = 512
COMM = MPI.COMM_WORLD
PROGRAMS: dict[str, Callable[[int, int], None]] = {}
CLEAN: set[str] = set()  # no possible race, either


def clean(run):
    CLEAN.add(run.__name__)
    return race_free(run)


def race_free(run):
    PROGRAMS[run.__name__] = run
    return run


@clean
def blocks_of_whole_pages(rank, ranks):
    a = dsm.zeros((ranks, PAGE), name="blocks_of_whole_pages")
    for step in range(3):
        a[rank] = a[rank] + step
        dsm.barrier()
        a[(rank + 1) % ranks].sum()
        dsm.barrier()


@race_free
def false_sharing(rank, ranks):
    a = dsm.zeros(ranks * 8, np.uint8, name="false_sharing")
    for step in range(1, 4):
        a[rank::ranks] = step
        dsm.barrier()


@race_free
def false_sharing_of_one_word_under_locks(rank, ranks):
    a, lock = dsm.zeros(8, np.uint8, name="false_sharing_of_one_word_under_locks"), dsm.Lock()
    for _ in range(5):
        a[rank] += 1
        with lock:
            a[7] += 1
    dsm.barrier()


@clean
def lock_chain(rank, ranks):
    total, lock = dsm.zeros(1, name="lock_chain"), dsm.Lock()
    for _ in range(10):
        with lock:
            total[0] += 1
    dsm.barrier()
    assert total[0] == 10 * ranks


@clean
def two_locks_in_turn(rank, ranks):
    a, first, second = dsm.zeros(2, name="two_locks_in_turn"), dsm.Lock(), dsm.Lock()
    for _ in range(5):
        with first, second:
            a[:] += 1
    dsm.barrier()


@clean
def order_through_a_third_rank(rank, ranks):
    """Rank 0 writes; the others pass the right to write on, by locks of pairs of neighbours."""
    a, turn = dsm.zeros(1, name="order_through_a_third_rank"), dsm.zeros(ranks * PAGE)
    locks = [dsm.Lock() for _ in range(ranks)]
    if rank == 0:
        a[0] = 1
    while rank:
        with locks[rank]:
            if turn[rank * PAGE]:
                break
    a[0] += 1
    if rank + 1 < ranks:
        with locks[rank + 1]:
            turn[(rank + 1) * PAGE] = 1
    dsm.barrier()
    assert a[0] == ranks + 1


@clean
def reentrant_lock(rank, ranks):
    a, lock = dsm.zeros(1, name="reentrant_lock"), dsm.RLock()
    with lock:
        a[0] += 1
        with lock:
            a[0] += 1
        a[0] += 1
    dsm.barrier()


@clean
def tries(rank, ranks):
    a, lock = dsm.zeros(1, name="tries"), dsm.Lock()
    for _ in range(20):
        if lock.acquire(blocking=False) or lock.acquire(timeout=0.01):
            a[0] += 1
            lock.release()
    dsm.barrier()


@clean
def events_along_a_chain(rank, ranks):
    a, events = dsm.zeros(1, name="events_along_a_chain"), [dsm.Event() for _ in range(ranks)]
    if rank:
        events[rank - 1].wait()
    a[0] += 1
    events[rank].set()
    dsm.barrier()
    assert a[0] == ranks


@clean
def event_that_is_asked_again_and_again(rank, ranks):
    a, ready = dsm.zeros(1, name="event_that_is_asked_again_and_again"), dsm.Event()
    if rank == 0:
        a[0] = 1
        ready.set()
    elif rank == 1:
        while not ready.is_set():
            pass
        a[0] += 1
    dsm.barrier()


@clean
def event_that_is_cleared(rank, ranks):
    a, full, empty = dsm.zeros(4, name="event_that_is_cleared"), dsm.Event(), dsm.Event()
    for step in range(5):
        if rank == 0:
            a[:] = step + 1
            full.set()
            empty.wait()
            empty.clear()
        elif rank == 1:
            full.wait()
            full.clear()
            a[:] = -step - 1
            empty.set()
    dsm.barrier()


@clean
def condition(rank, ranks):
    a, changed = dsm.zeros(1, name="condition"), dsm.Condition()
    with changed:
        changed.wait_for(lambda: a[0] == rank)
        a[0] += 1
        changed.notify_all()
    dsm.barrier()
    assert a[0] == ranks


@clean
def semaphore_of_one(rank, ranks):
    a, mutex = dsm.zeros(1, name="semaphore_of_one"), dsm.Semaphore(1)
    for _ in range(5):
        with mutex:
            a[0] += 1
    dsm.barrier()
    assert a[0] == 5 * ranks


@clean
def semaphores_hand_over(rank, ranks):
    a, items, places = dsm.zeros(1, name="semaphores_hand_over"), dsm.Semaphore(0), dsm.Semaphore(1)
    for step in range(5):
        if rank == 0:
            places.acquire()
            a[0] = step + 1
            items.release()
        elif rank == 1:
            items.acquire()
            a[0] = -step
            places.release()
    dsm.barrier()


@clean
def barrier_among_threads(rank, ranks):
    a, together = dsm.zeros(1, name="barrier_among_threads"), dsm.Barrier()
    for turn in range(ranks):
        if turn == rank:
            a[0] += 1
        together.wait()
    assert a[0] == ranks
    dsm.barrier()


@clean
def threads_of_a_rank(rank, ranks):
    a, lock = dsm.zeros((ranks, PAGE), name="threads_of_a_rank"), dsm.Lock()
    total = dsm.zeros(1, name="total of threads_of_a_rank")

    def work(k):
        for _ in range(10):
            a[rank, k] += 1
            with lock:
                total[0] += 1

    threads = [threading.Thread(target=work, args=[k]) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    dsm.barrier()
    assert total[0] == 30 * ranks
    assert (a[:, :3] == 10).all()


@clean
def barrier_while_threads_work(rank, ranks):
    total, lock = dsm.zeros(1, name="barrier_while_threads_work"), dsm.Lock()

    def work():
        for _ in range(50):
            with lock:
                total[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(20):
        dsm.barrier()
    thread.join()
    dsm.barrier()
    assert total[0] == 50 * ranks


@race_free
def work_by_a_counter(rank, ranks):
    a, tasks = dsm.zeros(40, name="work_by_a_counter"), dsm.Counter()
    while (task := tasks.next()) < len(a):
        a[task] = task + 1
    dsm.barrier()
    assert a.sum() == 820


@clean
def broadcast(rank, ranks):
    a = dsm.zeros(PAGE, name="broadcast")
    for root in range(ranks):
        if rank == root:
            a[:] = root + 1
        dsm.broadcast(a, root)
        assert (a == root + 1).all()
        dsm.barrier()


@clean
def sent_by_the_kernel(rank, ranks):
    a = dsm.zeros((ranks, PAGE), name="sent_by_the_kernel")
    with dsm.pinned(a[rank], "w"):
        COMM.Sendrecv(np.full(PAGE, rank + 1.0), (rank + 1) % ranks, 0, a[rank], (rank - 1) % ranks)
    dsm.barrier()
    with dsm.pinned(a, "r"):
        COMM.Sendrecv(a, (rank + 1) % ranks, 1, np.empty_like(a), (rank - 1) % ranks)
    dsm.barrier()


@clean
def pinned_over_barriers(rank, ranks):
    a = dsm.zeros((ranks, PAGE), name="pinned_over_barriers")
    with dsm.pinned(a[rank], "rw"):
        for step in range(3):
            a[rank] = step
            dsm.barrier()
            assert a[rank].sum() == step * PAGE
            dsm.barrier()


@clean
def saved_and_loaded(rank, ranks):
    folder = COMM.bcast(tempfile.mkdtemp() if rank == 0 else None)
    file = os.path.join(folder, "a.npy")
    a = dsm.zeros((4 * ranks, PAGE), name="saved_and_loaded")
    dsm.local(a)[...] = rank
    dsm.barrier()
    dsm.save(file, a)
    b = dsm.load(file, name="loaded")
    assert (b == a).all()
    dsm.barrier()


@clean
def arrays_that_come_and_go(rank, ranks):
    for step in range(5):
        a = dsm.zeros((ranks, PAGE), name="arrays_that_come_and_go")
        a[(rank + step) % ranks] = 1
        dsm.barrier()
        assert a.all()
        dsm.free(a)


@clean
def prefetched(rank, ranks):
    a = dsm.zeros((ranks, 16, PAGE), name="prefetched")
    for step in range(4):
        a[rank] = step + 1
        dsm.barrier()
        dsm.prefetch(a)  # no read
        a[rank] += 1
        dsm.barrier()


@clean
def streams(rank, ranks):
    """Reads ahead come to the next writer's pages, and are no reads."""
    a = dsm.zeros((ranks, 64, PAGE), name="streams")
    for step in range(1, 4):
        for row in a[rank]:
            row[:] = step
        dsm.barrier()
        for row in a[rank]:
            assert row.sum() == step * PAGE
    dsm.barrier()


@clean
def constants(rank, ranks):
    a = dsm.full((ranks, PAGE), 7, name="constants")
    assert (a == 7).all()
    dsm.barrier()
    a[rank] += rank
    dsm.barrier()


@race_free
def interleaved_rows(rank, ranks):
    a = dsm.zeros((8 * ranks, 16), name="interleaved_rows")
    for _ in range(3):
        a[rank::ranks] += 1
        dsm.barrier()
        assert a.min() == a.max()
        dsm.barrier()


if __name__ == "__main__":
    for program in PROGRAMS.values():
        dsm.barrier()
        program(dsm.rank(), dsm.size())
        dsm.barrier()
