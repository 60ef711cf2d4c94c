"""Programs with a data race, each in a function; `python racy.py` runs all of them in one job.

Each knows what the search for races must say: the kind, and the elements of the array that has the function's name.
Marks in the source say where the two accesses' stretches begin and end: `# <1` is the line where that of the first side
begins, `# >1` the one where it ends.  Of a read/write race the writer is the first side.  The start and the end of a
function are barriers.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from mpi4py import MPI

import dsm

PAGE = 512  # numbers of 8 bytes in a page of 4 KiB
COMM = MPI.COMM_WORLD


class Racy(NamedTuple):
    run: Callable[[int, int], None]
    kind: str
    where: Callable[[int], str]


PROGRAMS: dict[str, Racy] = {}


def racy(kind: str, where: str | Callable[[int], str]):
    """`where`: what the report says of the elements behind the array's name, perhaps by the number of ranks."""

    def keep(run):
        PROGRAMS[run.__name__] = Racy(run, kind, where if callable(where) else lambda ranks: where)
        return run

    return keep


WRITES, READ = "write/write", "read/write"


# ---- no barrier ---------------------------------------------------------------------------------------------------


@racy(READ, lambda ranks: f"[0:{ranks * PAGE}]")
def missing_barrier(rank, ranks):
    a = dsm.zeros(ranks * PAGE, name="missing_barrier")
    dsm.barrier()  # <1 <2
    a[rank * PAGE : (rank + 1) * PAGE] = rank + 1
    a[(rank + 1) % ranks * PAGE]  # of the neighbour
    dsm.barrier()  # >1 >2


@racy(READ, lambda ranks: f"[0:{ranks}]")
def missing_barrier_in_a_page(rank, ranks):
    a = dsm.zeros(ranks, name="missing_barrier_in_a_page")
    dsm.barrier()  # <1 <2
    a[rank] = rank + 1
    a.sum()
    dsm.barrier()  # >1 >2


@racy(READ, "[0:3]")
def message_instead_of_a_barrier(rank, ranks):
    a = dsm.zeros(PAGE, name="message_instead_of_a_barrier")
    dsm.barrier()  # <1 <2
    if rank == 0:
        a[:3] = 1
        COMM.send("ready", dest=1)
    elif rank == 1:
        COMM.recv(source=0)
        a.sum()
    dsm.barrier()  # >1 >2


@racy(WRITES, "[5:10]")
def barrier_of_mpi(rank, ranks):
    a = dsm.zeros(20, np.int64, name="barrier_of_mpi")
    dsm.barrier()  # <1 <2
    if rank == 0:
        a[0:10] = 1
    COMM.Barrier()
    if rank == 1:
        a[5:15] = 2
    dsm.barrier()  # >1 >2


@racy(READ, f"[0:{PAGE}]")
def counter_taken_for_publication(rank, ranks):
    a = dsm.zeros(PAGE, name="counter_taken_for_publication")
    done = dsm.Counter()
    dsm.barrier()  # <1 <2
    if rank == 0:
        a[:] = 1
        done.next()
    elif rank == 1:
        while done.value == 0:
            time.sleep(0.001)
        a.sum()
    dsm.barrier()  # >1 >2


@racy(READ, "[0:1]")
def flag_that_is_spun_on(rank, ranks):
    flag = dsm.zeros(1, name="flag_that_is_spun_on")
    dsm.barrier()  # <1 <2
    if rank == 0:
        flag[0] = 1
    for _ in range(100):  # for ever, in a program
        if flag[0] == 1:
            break
    dsm.barrier()  # >1 >2


@racy(WRITES, lambda ranks: ("[10:11]", "[[10, 20]]", "[10:31:10]")[ranks - 2])
def block_that_ends_one_too_late(rank, ranks):
    a = dsm.zeros(10 * ranks + 1, np.int64, name="block_that_ends_one_too_late")
    dsm.barrier()  # <1 <2
    a[10 * rank : 10 * rank + 11] = rank + 1
    dsm.barrier()  # >1 >2


# ---- locks --------------------------------------------------------------------------------------------------------


@racy(WRITES, "[0:1]")
def reduction_without_a_lock(rank, ranks):
    total = dsm.zeros(1, np.int64, name="reduction_without_a_lock")
    dsm.barrier()  # <1 <2
    total[0] += rank + 1
    dsm.barrier()  # >1 >2


@racy(WRITES, "[0:1]")
def wrong_lock(rank, ranks):
    total = dsm.zeros(1, np.int64, name="wrong_lock")
    one, other = dsm.Lock(), dsm.Lock()
    if rank % 2:
        with one:  # <1 >1
            total[0] += rank + 1
    else:
        with other:  # <2 >2
            total[0] += rank + 1
    dsm.barrier()


@racy(READ, "[0:2]")
def reader_without_the_lock(rank, ranks):
    pair = dsm.zeros(2, name="reader_without_the_lock")
    lock = dsm.Lock()
    dsm.barrier()  # <2
    if rank == 0:
        with lock:  # <1 >1
            pair[:] = 1
    elif rank == 1:
        pair.sum()
    dsm.barrier()  # >2


@racy(WRITES, "[1:2]")
def writer_without_the_lock(rank, ranks):
    pair = dsm.zeros(2, np.int64, name="writer_without_the_lock")
    lock = dsm.Lock()
    dsm.barrier()  # <2
    if rank == 0:
        with lock:  # <1 >1
            pair[:] = 1
    elif rank == 1:
        pair[1] = 2
    dsm.barrier()  # >2


@racy(WRITES, "[0:1]")
def lock_released_too_early(rank, ranks):
    total = dsm.zeros(1, np.int64, name="lock_released_too_early")
    lock = dsm.Lock()
    with lock:  # <1 <2
        before = total[0]
    COMM.Barrier()  # all have read it
    total[0] = before + rank + 1
    dsm.barrier()  # >1 >2


@racy(WRITES, "[3:4]")
def try_whose_answer_is_ignored(rank, ranks):
    a = dsm.zeros(8, np.int64, name="try_whose_answer_is_ignored")
    lock = dsm.Lock()
    dsm.barrier()  # <2
    if rank == 0:
        lock.acquire()  # <1
    COMM.Barrier()
    if rank == 1:
        lock.acquire(blocking=False)
        a[3] = 2
    COMM.Barrier()
    if rank == 0:
        a[3] = 1
        lock.release()  # >1
    dsm.barrier()  # >2


@racy(READ, "[0:1]")
def check_before_the_lock(rank, ranks):
    done = dsm.zeros(1, name="check_before_the_lock")
    lock = dsm.RLock()
    dsm.barrier()  # <2
    if rank == 0:
        with lock:  # <1 >1
            COMM.Barrier()  # the others have looked
            done[0] = 1
    else:
        seen = done[0]  # should be inside
        COMM.Barrier()
        if not seen:
            with lock:  # >2
                pass
    dsm.barrier()


@racy(WRITES, "[2:3]")
def lock_of_each_row(rank, ranks):
    rows = dsm.zeros(8, np.int64, name="lock_of_each_row")
    locks = [dsm.Lock() for _ in range(2)]
    if rank < 2:
        with locks[rank]:  # <1 <2 >1 >2
            rows[2 * rank : 2 * rank + 3] = rank + 1  # the row behind, too
    dsm.barrier()


# ---- events, conditions, semaphores ---------------------------------------------------------------------------


@racy(READ, f"[0:{PAGE}]")
def buffer_used_again_too_early(rank, ranks):
    buffer = dsm.zeros(PAGE, name="buffer_used_again_too_early")
    ready = dsm.Event()
    if rank == 0:
        buffer[:] = 1
        ready.set()  # <1
        buffer[:] = 2  # the reader may not have read it yet
    elif rank == 1:
        ready.wait()  # <2
        buffer.sum()
    dsm.barrier()  # >1 >2


@racy(WRITES, "[0:4]")
def event_set_too_early(rank, ranks):
    a = dsm.zeros(4, np.int64, name="event_set_too_early")
    ready = dsm.Event()
    if rank == 0:
        ready.set()  # <1
        a[:] = 1
    elif rank == 1:
        ready.wait()  # <2
        a[:] = 2
    dsm.barrier()  # >1 >2


@racy(READ, "[1:2]")
def event_of_another_task(rank, ranks):
    done = [dsm.Event() for _ in range(2)]
    a = dsm.zeros(2, name="event_of_another_task")
    if rank == 0:
        a[0] = 1
        done[0].set()  # <1
        a[1] = 1
        done[1].set()  # >1
    elif rank == 1:
        done[0].wait()  # <2
        a.sum()
    dsm.barrier()  # >2


@racy(WRITES, "[0:1]")
def condition_without_its_lock(rank, ranks):
    box = dsm.zeros(1, np.int64, name="condition_without_its_lock")
    changed = dsm.Condition()
    dsm.barrier()  # <2
    if rank == 0:
        with changed:  # <1 >1
            box[0] = 1
            changed.notify_all()
    elif rank == 1:
        box[0] = 2
    dsm.barrier()  # >2


@racy(WRITES, "[0:1]")
def write_behind_the_notification(rank, ranks):
    box, go = dsm.zeros(1, np.int64, name="write_behind_the_notification"), dsm.zeros(1)
    changed = dsm.Condition()
    if rank == 0:
        with changed:  # <1
            go[0] = 1
            changed.notify_all()
        box[0] = 1
    elif rank == 1:
        with changed:  # <2, its end
            while not go[0]:
                changed.wait()
        box[0] = 2
    dsm.barrier()  # >1 >2


@racy(WRITES, "[0:1]")
def semaphore_of_many(rank, ranks):
    total = dsm.zeros(1, np.int64, name="semaphore_of_many")
    inside = dsm.Semaphore(ranks)
    with inside:  # <1 <2 >1 >2
        COMM.Barrier()  # all are inside
        total[0] += rank + 1
        COMM.Barrier()
    dsm.barrier()


# ---- ways to memory -----------------------------------------------------------------------------------------------


@racy(WRITES, "[2:5, 1:3]")
def block_of_a_view(rank, ranks):
    a = dsm.zeros((8, 6), np.int64, name="block_of_a_view")
    view = a[1:7][1:4, 1:3]
    dsm.barrier()  # <1 <2
    view[...] = rank + 1
    dsm.barrier()  # >1 >2


@racy(WRITES, "[0:8, 3:4]")
def column(rank, ranks):
    a = dsm.zeros((8, 6), np.float32, name="column")
    dsm.barrier()  # <1 <2
    a[:, 3] = rank + 1
    dsm.barrier()  # >1 >2


@racy(WRITES, "[1:3, 0:6]")
def rows_in_the_order_of_fortran(rank, ranks):
    a = dsm.zeros((8, 6), np.int64, order="F", name="rows_in_the_order_of_fortran")
    dsm.barrier()  # <1 <2
    a[1:3] = rank + 1
    dsm.barrier()  # >1 >2


@racy(WRITES, "[7:8]")
def one_byte_among_neighbours(rank, ranks):
    a = dsm.zeros(100, np.uint8, name="one_byte_among_neighbours")
    dsm.barrier()  # <1 <2
    a[20 + rank] = 1
    a[7] = rank + 1
    dsm.barrier()  # >1 >2


@racy(WRITES, "['x'][2:3]")
def field_of_a_structure(rank, ranks):
    a = dsm.zeros(5, [("x", np.int32), ("y", np.int16, 4)], name="field_of_a_structure")
    dsm.barrier()  # <1 <2
    a["x"][2] = rank + 1
    a["y"][2, rank] = 1
    dsm.barrier()  # >1 >2


@racy(WRITES, "[0:13:4]")
def every_fourth(rank, ranks):
    a = dsm.zeros(16, np.int64, name="every_fourth")
    dsm.barrier()  # <1 <2
    np.add.at(a, [0, 4, 8, 12], rank + 1)
    dsm.barrier()  # >1 >2


@racy(WRITES, "[0:4, 0:4]")
def result_of_blas(rank, ranks):
    a = dsm.zeros((4, 4), name="result_of_blas")
    x = np.full((4, 4), rank + 1.0)
    dsm.barrier()  # <1 <2
    np.dot(x, x, out=a)
    dsm.barrier()  # >1 >2


@racy(WRITES, "[0:2]")
def received_into_a_pin(rank, ranks):
    a = dsm.zeros(4, name="received_into_a_pin")
    dsm.barrier()  # <1 <2
    if rank == 0:
        with dsm.pinned(a, "w"):
            COMM.Recv(a, source=1)
    elif rank == 1:
        COMM.Send(np.full(4, 3.0), dest=0)
        a[:2] = 9
    dsm.barrier()  # >1 >2


@racy(WRITES, f"[{PAGE}:{3 * PAGE}]")
def pages_of_a_large_array(rank, ranks):
    a = dsm.zeros(64 * PAGE, np.int64, name="pages_of_a_large_array")
    dsm.barrier()  # <1 <2
    if rank == 0:
        a[: 3 * PAGE] = 1
    elif rank == 1:
        a[PAGE:] = 2
    dsm.barrier()  # >1 >2


@racy(WRITES, "[()]")
def scalar(rank, ranks):
    a = dsm.zeros((), np.int64, name="scalar")
    dsm.barrier()  # <1 <2
    a[()] = rank + 1
    dsm.barrier()  # >1 >2


if __name__ == "__main__":
    for program in PROGRAMS.values():
        dsm.barrier()
        program.run(dsm.rank(), dsm.size())
        dsm.barrier()
