"""One rank ends badly, in every phase: all end within seconds, and one line says which rank and why."""

import re

import pytest

# Rank 1 of three ends.  The others meanwhile wait for it in a barrier, for its lock, or exchange pages with it.
PROGRAM = """
how, phase = sys.argv[1:]
rank, lock, own_lock = dsm.rank(), dsm.Lock(), dsm.Lock()
a = dsm.zeros((64, 512), name="shuttle")
if rank == 1:
    lock.acquire()
dsm.barrier()

def end():
    print(f"ending at {time.time()}", flush=True)
    if how == "raise":
        raise LookupError("no such galaxy")
    if how == "exit":
        sys.exit(3)
    if how == "exit with text":
        sys.exit("cannot go on")
    if how == "vanish":
        os._exit(7)
    os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGINT)

def shuttle(seconds):
    stop = time.time() + seconds
    while time.time() < stop:
        with own_lock:
            a[:, rank] += 1

if rank == 1:
    if how in ("kill", "interrupt"):
        threading.Timer(0.7, end).start()
    if phase == "computing":
        stop = time.time() + (100 if how in ("kill", "interrupt") else 0.7)
        while time.time() < stop:
            sum(range(1000))
    elif phase == "faulting":
        shuttle(100 if how in ("kill", "interrupt") else 0.7)
    elif phase == "lock":
        time.sleep(0.7)
    elif phase == "barrier":
        dsm.barrier()
    end()
    time.sleep(100)
elif phase == "barrier" and rank == 0:
    time.sleep(100)
elif phase == "faulting":
    shuttle(100)
elif rank == 0:
    dsm.barrier()
else:
    lock.acquire()
"""
REASONS = {
    "raise": r"dsm: rank 1 of 3: uncaught LookupError: no such galaxy",
    "exit": r"dsm: rank 1 of 3: sys\.exit\(3\)",
    "exit with text": r"dsm: rank 1 of 3: sys\.exit\('cannot go on'\)",
    "interrupt": r"dsm: rank 1 of 3: .*KeyboardInterrupt",
    "kill": r"(?i)signal:? 9|signal 9|\bkilled\b",  # what mpiexec says of it
    "vanish": r"",  # os._exit: nothing of ours runs any more; the launcher hands the status on, not always with words
}


@pytest.mark.parametrize(
    ("how", "phase"),
    [(how, phase) for how in ("kill", "interrupt") for phase in ("computing", "faulting", "lock", "barrier")]
    + [(how, phase) for how in ("raise", "exit") for phase in ("computing", "faulting", "lock")]
    + [("exit with text", "lock"), ("vanish", "computing")],
)
def test_one_rank_ends(run, how, phase):
    job = run(3, PROGRAM, how, phase)
    began = float(re.search(r"ending at ([\d.]+)", job.out).group(1))
    assert job.ended_at - began < 10
    assert job.status != 0, job
    assert re.search(REASONS[how], job.err + job.out), job
    if how == "raise":
        assert "Traceback" in job.err
        assert 'raise LookupError("no such galaxy")' in job.err
    if how == "exit":
        assert job.status == 3
    if how == "exit with text":
        assert "cannot go on" in job.err
    if how not in ("kill", "vanish"):
        assert len(re.findall(r"dsm: rank \d of 3: ", job.err)) == 1, job  # one message, of the rank that it is about


def test_exit_that_is_caught_ends_nothing(run):
    job = run(
        2,
        """
        dsm.init()
        try:
            sys.exit(3)
        except SystemExit as end:
            assert end.code == 3
        dsm.barrier()
        print("went on", flush=True)
        sys.exit(0)
        """,
    )
    assert job.status == 0, job
    assert job.out.count("went on") == 2


def test_exception_before_the_start_of_dsm_is_told_too(run):
    """Rank 0 fails before its first collective call; the others are in it."""
    job = run(
        3,
        """
        if MPI.COMM_WORLD.rank == 0:
            time.sleep(0.5)
            MPI.COMM_WORLD.Abort(4)
        dsm.barrier()
        """,
    )
    assert job.status != 0


def test_one_rank_comes_to_its_end_early(run):
    """It waits in finalize and answers: its pages, its lock and its counter stay reachable."""
    job = run(
        3,
        """
        a, guarded = dsm.zeros((3, 5000), name="results"), dsm.zeros(5000)
        lock, counter = dsm.Lock(), dsm.Counter()
        a[dsm.rank()] = dsm.rank() + 1
        if dsm.rank() == 0:
            with lock:
                guarded += 1
        dsm.barrier()
        if dsm.rank() > 0:
            time.sleep(1)
            assert (a.sum(axis=1) == [5000, 10000, 15000]).all()
            with lock:
                assert guarded.min() == guarded.max() >= 1
                guarded += 1
            counter.next()
            print("fetched from a rank that is done", flush=True)
        """,
    )
    assert job.status == 0, job
    assert job.out.count("fetched from a rank that is done") == 2


def test_barrier_of_others_when_one_is_at_its_end(run):
    job = run(3, "dsm.init()\nif dsm.rank() != 1:\n    dsm.barrier()\n    print('passed')")
    assert job.status != 0, job
    assert "passed" not in job.out
    assert re.search(r"ranks met in different collective calls.*", job.err), job
    text = re.search(r"ranks met in different collective calls.*", job.err).group()
    assert "barrier" in text
    assert "finalize" in text
    assert "rank" in text


def test_different_collective_calls(run):
    """An error that can be caught: on every rank, with the same text, and nothing is broken."""
    job = run(
        3,
        """
        dsm.init()
        try:
            if dsm.rank() == 1:
                dsm.zeros((7, 7))
            else:
                dsm.barrier()
        except dsm.DSMError as error:
            assert "barrier" in str(error) and "zeros((7, 7)" in str(error).replace("shape=", ""), error
            print("told", flush=True)
        dsm.barrier()
        """,
    )
    assert job.status == 0, job
    assert job.out.count("told") == 3


TWICE = """
import os
import signal
import sys
import time

import dsm

class Slow:
    def write(self, text):
        os.kill(os.getpid(), signal.SIGINT)  # the second one comes while the first is printed
        time.sleep(0.01)
        return len(text)

    def flush(self):
        pass

dsm.init()
if dsm.rank() == 1:
    sys.stderr = Slow()
    raise KeyboardInterrupt
dsm.barrier()
"""


def test_second_interrupt_while_the_first_is_printed(run):
    job = run(3, TWICE)
    assert job.status != 0
    assert "dsm: rank 1 of 3: interrupted (KeyboardInterrupt)" in job.err
