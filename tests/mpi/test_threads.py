"""Several threads of one process fault at the same time, on the same page too."""

import resource
import threading
import time

import numpy as np
import pytest

import dsm

pytestmark = pytest.mark.mpi

PAGE = 4096
THREADS = 4


def test_threads_read_the_same_fresh_pages(shared, in_threads):
    """np.copyto releases the GIL, so that the threads are in the fault handler at the same time."""
    a = shared.zeros((300, PAGE // 8), page_size=PAGE)
    for turn in range(1, 4):
        if dsm.rank() == turn % dsm.size():
            a[:] = turn * np.arange(300)[:, None]
        dsm.barrier()
        copies = np.zeros((THREADS, *a.shape))
        start = threading.Barrier(THREADS)

        def read(copy, start=start):
            start.wait()
            np.copyto(copy, a)

        in_threads(*[lambda copy=copy: read(copy) for copy in copies])
        assert (copies == turn * np.arange(300)[:, None]).all()
        dsm.barrier()


def test_threads_write_the_same_pages(shared, in_threads):
    """Each thread of each rank has every so-many-th byte."""
    a = shared.zeros((200, PAGE), np.uint8, page_size=PAGE)
    for turn in range(3):
        start = threading.Barrier(THREADS)

        def write(thread, start=start, turn=turn):
            first = THREADS * dsm.rank() + thread
            start.wait()
            a[:, first :: THREADS * dsm.size()] = first + turn

        in_threads(*[lambda thread=thread: write(thread) for thread in range(THREADS)])
        dsm.barrier()
        assert (a == np.arange(PAGE) % (THREADS * dsm.size()) + turn).all()
        dsm.barrier()


def test_threads_read_and_write_stale_pages(shared, in_threads):
    """Some threads fetch what another rank wrote while others write neighbouring bytes of the same pages."""
    a = shared.zeros((200, PAGE // 8), int, page_size=PAGE)
    for turn in range(1, 4):
        a[:, dsm.rank()] = turn
        dsm.barrier()
        seen = []

        def read(seen=seen):
            seen.append(a[:, : dsm.size()].copy())

        def write(turn=turn):
            a[:, 100 + dsm.rank()] = -turn

        in_threads(read, write, read)
        for copy in seen:
            assert (copy == turn).all()
        dsm.barrier()
        assert (a[:, 100 : 100 + dsm.size()] == -turn).all()
        assert (a[:, : dsm.size()] == turn).all()
        dsm.barrier()


def test_numba_prange(shared):
    """Threads that know nothing of Python.  One rank compiles; all of them would take a minute on two cores."""
    a = shared.zeros((256, PAGE // 8), page_size=PAGE)
    if dsm.rank() == dsm.size() - 1:
        a[:, ::2] = np.arange(256)[:, None]
    dsm.barrier()
    if dsm.rank() == 0:
        import numba

        @numba.njit(parallel=True)
        def work(array):
            total = 0.0
            for j in numba.prange(array.shape[1] // 2):
                for i in range(array.shape[0]):  # every thread goes through all pages
                    total += array[i, 2 * j]
                    array[i, 2 * j + 1] = j
            return total

        total = work(a)
        assert total == 255 * 256 / 2 * (PAGE // 16)
        assert numba.get_num_threads() > 1
    dsm.barrier()
    assert (a[:, 1::2] == np.arange(PAGE // 16)).all()
    assert (a[:, ::2] == np.arange(256)[:, None]).all()


def switches():
    """Times that threads of this rank went to sleep."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


@pytest.mark.parametrize("make", [dsm.Lock, lambda: dsm.Semaphore(1), dsm.Condition])
def test_many_threads_at_one_lock_cost_per_turn_what_few_do(make, in_threads, exact_counts):
    """Each rank has one of its own.  A thread whose turn it is not sleeps, and is not woken by the turns of others."""
    mine = [make() for _ in range(dsm.size())][dsm.rank()]
    start, turns = threading.Barrier(100), []

    def work():
        start.wait()
        for _ in range(3):
            with mine:
                turns.append(1)
                time.sleep(0)  # so that others come

    before = switches()
    in_threads(*[work] * 100)
    assert len(turns) == 300
    if exact_counts:
        assert switches() - before < 40 * len(turns)
    dsm.barrier()


def test_threads_that_wait_to_be_notified_sleep(in_threads, exact_counts):
    """And each of them is woken for its own notification only."""
    event, condition = dsm.Event(), dsm.Condition()
    started, woken = [], []

    def wait():
        started.append(1)
        assert event.wait(60)
        with condition:
            started.append(2)
            assert condition.wait(60)
            woken.append(switches())

    def tell():
        while len(started) < 50:
            time.sleep(0.01)
        time.sleep(0.5)  # they are asleep by now
        before, began = switches(), time.monotonic()
        time.sleep(2)
        while_asleep = (switches() - before) / (time.monotonic() - began)
        event.set()
        while len(started) < 100:
            time.sleep(0.01)
        while len(woken) < 50:
            with condition:
                condition.notify()
            time.sleep(0.002)
        if exact_counts:
            assert while_asleep < 2500, "switches a second; each thread looks for signals ten times in one"

    if dsm.rank() == 0:
        in_threads(tell, *[wait] * 50)
    dsm.barrier()


def test_a_thread_faults_while_another_waits_for_a_lock(shared, comm, in_threads):
    lock = dsm.Lock()
    a = shared.zeros(100 * PAGE // 8, page_size=PAGE)
    if dsm.rank() == 0:
        a[:] = 6
        lock.acquire()
    dsm.barrier()
    if dsm.rank() > 0:
        sums = []

        def read_and_tell():
            sums.append(a.sum())
            comm.send("read", dest=0)

        def wait_for_lock():
            with lock:
                pass

        in_threads(wait_for_lock, read_and_tell)
        assert sums == [6 * a.size]
    else:
        for rank in range(1, dsm.size()):
            assert comm.recv(source=rank) == "read"
        lock.release()
    dsm.barrier()
