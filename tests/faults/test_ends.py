"""One rank ends badly, in every phase: all end within seconds, and one line says which rank and why."""

import os
import re
import signal
import time

import pytest

# Rank 1 of three ends, at a signal from outside.  The others meanwhile wait for it in a barrier, for its lock, or
# exchange pages with it.
PROGRAM = """
import ctypes, faulthandler
how, phase = sys.argv[1:]
faulthandler.enable()
rank, lock, own_lock = dsm.rank(), dsm.Lock(), dsm.Lock()
a = dsm.zeros((64, 512), name="shuttle")
if rank == 1:
    lock.acquire()
dsm.barrier()

def end(signum, frame):
    if how == "raise":
        raise LookupError("no such galaxy")
    if how == "exit":
        sys.exit(3)
    if how == "exit with text":
        sys.exit("cannot go on")
    if how == "vanish":
        os._exit(7)
    crash_in_user_code()

def crash_in_user_code():
    ctypes.string_at(8)

def compute():
    while True:
        sum(range(1000))

def shuttle():
    while True:
        with own_lock:
            a[:, rank] += 1

signal.signal(signal.SIGUSR2, end)
if rank == 1:
    print(f"rank 1 is process {os.getpid()}", flush=True)
    {"computing": compute, "faulting": shuttle, "lock": lambda: time.sleep(100), "barrier": dsm.barrier}[phase]()
elif phase == "faulting":
    shuttle()
elif phase == "barrier" and rank == 0:
    time.sleep(100)
elif rank == 0:
    dsm.barrier()
else:
    lock.acquire()
"""

PHASES = ("computing", "faulting", "lock", "barrier")
TOLD_BY_DSM = r"dsm: rank 1 of 3: "

GONE = r"dsm: rank \d of 3: rank 1 ended without"
CRASHED = r"segmentation fault at address 0x8(.|\n)*Fatal Python error: Segmentation fault(.|\n)*in crash_in_user_code"

# How it ends: the signal that makes it, what must be said of it, the statuses that the job may have (none: any but 0).
# Who is killed says nothing.  Its neighbour names it, if it is not ended before it has noticed: MPICH's mpiexec does
# that within a millisecond, and tells the signal, with a process that may be another's; Open MPI's names the rank.
ENDS = {
    "raise": (signal.SIGUSR2, TOLD_BY_DSM + "uncaught LookupError: no such galaxy", {1}),
    "exit": (signal.SIGUSR2, TOLD_BY_DSM + r"sys\.exit\(3\)", {3}),
    "interrupt": (signal.SIGINT, TOLD_BY_DSM + ".*KeyboardInterrupt", set()),
    "crash": (signal.SIGUSR2, TOLD_BY_DSM + CRASHED, set()),
    "kill": (signal.SIGKILL, GONE + r"|Killed \(signal 9\)|rank 1 with PID \d+ (.|\n)*signal 9", set()),
    # What follows is tried in one phase: it differs from the above in words only.
    "exit with text": (signal.SIGUSR2, TOLD_BY_DSM + r"sys\.exit\('cannot go on'\)", {1}),
    "vanish": (signal.SIGUSR2, TOLD_BY_DSM + r"os\._exit\(7\)", {7}),
}


QUICK = {"raise": "computing", "exit": "faulting", "interrupt": "lock", "crash": "barrier", "kill": "faulting"}
SLOW = [(how, phase) for how in QUICK for phase in PHASES if phase != QUICK[how]]


@pytest.mark.node("rank")  # tests/faults/test_nodes.py does so with nodes of several ranks
@pytest.mark.parametrize(
    ("how", "phase"),
    [*QUICK.items(), ("exit with text", "lock"), ("vanish", "computing")]
    + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW],
)
def test_one_rank_ends(start, how, phase):
    by, words, statuses = ENDS[how]
    job = start(3, PROGRAM, how, phase)
    job.wait_for(r"rank 1 is process \d+")
    time.sleep(0.3)
    os.kill(int(re.search(r"rank 1 is process (\d+)", job.out).group(1)), by)
    job.wait(10)
    assert job.status != 0, job
    assert not statuses or job.status in statuses, job
    assert re.search(words, job.err + job.out), job
    if how == "raise":
        assert 'raise LookupError("no such galaxy")' in job.err
    if words.startswith(TOLD_BY_DSM) and how != "crash":
        assert len(re.findall(r"dsm: rank \d of 3: ", job.err)) == 1, job  # one message, of the rank that it is about


def test_the_status_is_that_of_the_rank_that_ends(start):
    """The launcher kills the others, and must have been told before: it would join the statuses otherwise (4 | 9)."""
    job = start(
        3,
        """
        dsm.barrier()
        print(f"rank {dsm.rank()} is process {os.getpid()}", flush=True)
        if dsm.rank() == 1:
            signal.signal(signal.SIGUSR2, lambda signum, frame: sys.exit(4))
        time.sleep(100)
        """,
    )
    job.wait_for(r"rank \d is process \d+", times=3)
    processes = dict(re.findall(r"rank (\d) is process (\d+)", job.out))
    for rank in "02":
        os.kill(int(processes[rank]), signal.SIGSTOP)  # it cannot even end by itself
    os.kill(int(processes["1"]), signal.SIGUSR2)
    job.wait(10)
    assert job.status == 4, job


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


def test_abort_before_the_start_of_dsm(run):
    """Rank 0 gives up before its first collective call, which the others are in."""
    job = run(
        3,
        """
        if MPI.COMM_WORLD.rank == 0:
            time.sleep(0.5)
            MPI.COMM_WORLD.Abort(4)
        dsm.barrier()
        print("passed", flush=True)
        """,
        seconds=10,
    )
    assert job.status == 4, job
    assert "passed" not in job.out


@pytest.mark.node("rank")
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


def test_leaving_at_once_with_0_is_no_good_end(run):
    """MPICH's mpiexec ends the other ranks, and takes it for a success."""
    job = run(2, "dsm.barrier()\nif dsm.rank() == 1: os._exit(0)\ndsm.barrier()", seconds=20)
    assert job.status == 1, job
    assert "dsm: rank 1 of 2: os._exit(0) before dsm.finalize()" in job.err, job
