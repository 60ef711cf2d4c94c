"""Starts and ends as programs have them: ranks that come late or never, ends of every kind, threads that still wait."""

import os
import re
import signal
import time

import pytest

# ---- the start -------------------------------------------------------------------------------------------------------

LATE = """
if MPI.COMM_WORLD.Get_rank() == 1:
    {instead}
dsm.zeros(10)
dsm.barrier()
"""


@pytest.mark.parametrize(
    ("instead", "status", "words"),
    [
        ('raise LookupError("no data")', 1, "uncaught LookupError: no data"),
        ("sys.exit(3)", 3, r"sys\.exit\(3\)"),
        ("raise SystemExit(3)", 3, r"sys\.exit\(3\)"),
        ('os.environ["DSM_PAGE_SIZE"] = "much"', 1, "uncaught ValueError: DSM_PAGE_SIZE must be"),
        ("dsm.zeros(-1)", 1, "uncaught ValueError: negative dimensions"),
    ],
)
def test_a_rank_that_fails_before_it_starts_ends_all(run, instead, status, words):
    job = run(2, LATE.format(instead=instead), seconds=20)
    assert job.status == status, job
    assert re.search(f"dsm: rank 1 of 2: {words}", job.err), job


def test_a_rank_that_fails_before_mpi_starts_ends_all(run):
    program = """
    import os
    import dsm
    ranks = ("PMI_RANK", "OMPI_COMM_WORLD_RANK")
    if "1" in [os.environ.get(name) for name in ranks]:
        raise LookupError("no data")
    dsm.barrier()
    """
    job = run(2, ["-c", "\n".join(line.strip("\n")[4:] for line in program.splitlines())], seconds=20)
    assert job.status == 1, job
    assert "dsm: rank 1 of 2: uncaught LookupError: no data" in job.err, job


def test_a_wrong_thread_level_on_one_rank_ends_all(run):
    program = """
    import os, mpi4py
    own = (os.environ.get("PMI_RANK"), os.environ.get("OMPI_COMM_WORLD_RANK"))
    mpi4py.rc.thread_level = "single" if "1" in own else "multiple"
    import dsm
    dsm.barrier()
    """
    job = run(2, ["-c", "\n".join(line[4:] for line in program.splitlines())], seconds=20)
    assert job.status == 1, job
    assert re.search("dsm: rank 1 of 2: uncaught DSMError: .*MPI_THREAD_SINGLE", job.err), job


def test_ranks_that_wait_to_start_say_so(start):
    job = start(2, LATE.format(instead="time.sleep(100)"), env={"DSM_WATCHDOG_S": "0.5"})
    job.wait_for(r"dsm: rank 0 of 2 has waited \d+\.\d s for all ranks to start dsm: some rank has not made its first")
    job.kill()


def test_a_rank_that_never_starts_is_told_of(start):
    job = start(2, "if dsm.rank() == 0: dsm.zeros(10)", env={"DSM_WATCHDOG_S": "0.5"})
    job.wait_for("dsm: rank 0 of 2 has waited .* for all ranks to start dsm")
    job.kill()


def test_a_late_rank_is_waited_for(run):
    job = run(3, LATE.format(instead="time.sleep(2)"))
    assert (job.status, job.err) == (0, ""), job


def test_control_c_while_ranks_wait_to_start(start):
    """To the rank alone: Open MPI's mpiexec kills its ranks when it gets one."""
    job = start(2, "os.write(1, b'process %d\\n' % os.getpid())\n" + LATE.format(instead="time.sleep(100)"))
    job.wait_for(r"process \d+", times=2)
    waiting = [int(number) for number in re.findall(r"process (\d+)", job.out)]
    time.sleep(0.5)
    for process in waiting:
        os.kill(process, signal.SIGINT)
    job.wait(10)
    assert job.status != 0, job
    assert "KeyboardInterrupt" in job.err, job


def test_a_start_goes_on_after_control_c(run):
    program = """
    if MPI.COMM_WORLD.Get_rank() == 0:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            dsm.zeros(10)
        except KeyboardInterrupt:
            print("caught", flush=True)
    else:
        time.sleep(1.5)
    dsm.zeros(10)
    dsm.barrier()
    """
    job = run(2, program)
    assert (job.status, job.out) == (0, "caught\n"), job


def test_an_end_in_the_middle_of_the_start_ends_all(run):
    program = """
    if MPI.COMM_WORLD.Get_rank() == 0:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            dsm.zeros(10)
        except KeyboardInterrupt:
            sys.exit()
    time.sleep(1.5)
    dsm.zeros(10)
    """
    job = run(2, program, seconds=20)
    assert job.status == 1, job
    assert "dsm: rank 0 of 2: it ended while dsm was being started" in job.err


# ---- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [3, 4])
@pytest.mark.node("rank")
def test_no_rank_catches_up_after_the_last_meeting(run, ranks):
    """Each rank has used the last versions of the page, and would fetch the next one: from ranks that have gone."""
    program = """
    a, lock = dsm.zeros(1), dsm.Lock()
    for _ in range(50):
        with lock:
            a[0] += 1
    dsm.barrier()
    if dsm.rank() == 0:
        a /= dsm.size()
    """
    for _ in range(5):
        job = run(ranks, program, seconds=20)
        assert (job.status, job.err) == (0, ""), job


@pytest.mark.node("rank")
def test_a_pin_that_is_open_at_the_end(run):
    program = """
    a = dsm.zeros(4096)
    pin = dsm.pinned(a, "rw")
    pin.__enter__()
    dsm.local(a)[...] += 1
    """
    job = run(2, program, seconds=20)
    assert (job.status, job.err) == (0, ""), job


@pytest.mark.node("rank")
def test_prefetches_that_are_under_way_at_the_end(run):
    program = """
    a = dsm.zeros(1 << 20)
    dsm.local(a)[...] = 1
    dsm.barrier()
    dsm.prefetch(a)
    """
    job = run(3, program, seconds=20)
    assert (job.status, job.err) == (0, ""), job


THREADS = """
lock, event, condition, semaphore = dsm.Lock(), dsm.Event(), dsm.Condition(), dsm.Semaphore(0)
barrier = dsm.Barrier(99)
a = dsm.zeros(1 << 20)
if dsm.rank() == 0:
    lock.acquire()
dsm.barrier()

def wait_for_condition():
    with condition:
        condition.wait()

def touch(write):
    while True:
        a[::512] += write
        a.sum()

waits = dict(lock=lock.acquire, event=event.wait, condition=wait_for_condition, semaphore=semaphore.acquire,
             barrier=barrier.wait, read=lambda: touch(0), write=lambda: touch(1))
def main(kind):
    try:
        waits[kind]()
    except RuntimeError as error:
        print(f"told: {error}", flush=True)
for kind in sys.argv[2:]:
    threading.Thread(target=main, args=(kind,), daemon=True).start()
time.sleep(0.3)
{"nothing": lambda: None, "finalize": dsm.finalize, "MPI": MPI.Finalize, "exit": lambda: sys.exit(0)}[sys.argv[1]]()
if sys.argv[1] in ("finalize", "MPI"):
    time.sleep(0.5)
"""
WAITS = ("lock", "event", "condition", "semaphore", "barrier")


@pytest.mark.node("rank")
@pytest.mark.parametrize("ranks", [0, 1, 2])
@pytest.mark.parametrize("end", ["nothing", "exit"])
def test_threads_that_wait_at_the_end(run, ranks, end):
    job = run(ranks, THREADS, end, *WAITS, "read", "write", seconds=20)
    assert (job.status, job.err) == (0, ""), job


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("end", ["finalize", "MPI"])
def test_threads_that_wait_when_dsm_ends_are_told(run, ranks, end):
    job = run(ranks, THREADS, end, *WAITS, seconds=20)
    assert job.status == 0, job
    assert len(re.findall("told: (dsm ended while|acquire.. after dsm.finalize)", job.out)) == ranks * len(WAITS), job


@pytest.mark.parametrize("ranks", [0, 1, 2, 3])
def test_mpi_finalize_ends_dsm(run, ranks):
    program = """
    a = dsm.zeros((dsm.size(), 1000))
    a[dsm.rank()] = 1
    dsm.barrier()
    assert a.sum() == a.size
    MPI.Finalize()
    try:
        dsm.barrier()
    except RuntimeError as error:
        assert "it is finalized" in str(error), error
    """
    for _ in range(3):
        job = run(ranks, program, seconds=20)
        assert (job.status, job.err) == (0, ""), job


def test_mpi_finalize_and_the_end_of_the_program_are_one_end(run):
    job = run(3, "dsm.barrier()\nif dsm.rank() == 1: MPI.Finalize()", seconds=20)
    assert (job.status, job.err) == (0, ""), job


def test_finalize_and_the_end_of_the_program_are_one_end(run):
    job = run(3, "dsm.barrier()\nif dsm.rank() == 1: dsm.finalize()", seconds=20)
    assert (job.status, job.err) == (0, ""), job


def test_finalize_returns_when_dsm_has_ended(run):
    program = """
    from dsm import _mpi
    dsm.barrier()
    if dsm.rank() == 1:
        dsm.finalize()
        assert not _mpi.load()[1].dsm_active()
        MPI.Finalize()
    """
    job = run(3, program, seconds=20)
    assert (job.status, job.err) == (0, ""), job


def test_mpi_finalize_against_a_barrier_names_both(run):
    job = run(2, "dsm.barrier()\nif dsm.rank() == 1: MPI.Finalize()\nelse: dsm.barrier()", seconds=20)
    assert job.status == 1, job
    assert re.search(r"barrier\(\).*finalize\(\)|finalize\(\).*barrier\(\)", job.err), job


def test_mpi_that_nobody_finalizes(run):
    program = """
    import mpi4py
    mpi4py.rc.finalize = False
    import dsm
    a = dsm.zeros(dsm.size())
    a[dsm.rank()] = 1
    dsm.barrier()
    print(a.sum(), flush=True)
    """
    job = run(2, ["-c", "\n".join(line[4:] for line in program.splitlines())], seconds=20)
    assert job.out.count("2.0") == 2, job  # what the launcher says of it is its own affair
    assert "ended without" not in job.err, job


@pytest.mark.node("rank")
def test_callbacks_and_garbage_read_what_other_ranks_wrote(run):
    program = """
    import atexit
    def last():
        assert a.sum() == sum(range(dsm.size())), a
    atexit.register(last)
    import dsm, numpy as np
    class Late:
        def __init__(self):
            self.b = dsm.zeros((dsm.size(), 1000))
            self.b[dsm.rank()] = 1
        def __del__(self):
            assert self.b.sum() == self.b.size
            print("read", flush=True)
    a, late = dsm.zeros(dsm.size()), Late()
    a[dsm.rank()] = dsm.rank()
    """
    job = run(3, ["-c", "\n".join(line[4:] for line in program.splitlines())], seconds=20)
    assert (job.status, job.err, job.out.count("read")) == (0, "", 3), job


# ---- the end by an error ---------------------------------------------------------------------------------------------

EXITS = """
from sys import exit as from_sys
import argparse
ways = {
    "return": lambda: 3,
    "exit": lambda: exit(3),
    "from sys": lambda: from_sys(3),
    "raise": lambda: (_ for _ in ()).throw(SystemExit(3)),
    "finally": lambda: leave_by_finally(),
    "argparse": lambda: argparse.ArgumentParser(exit_on_error=True).exit(3),
}
def leave_by_finally():
    try:
        sys.exit(3)
    finally:
        time.sleep(0.01)

def main():
    event = dsm.Event()
    if dsm.rank() == 1:
        return ways[sys.argv[1]]()
    event.wait()
sys.exit(main())
"""


@pytest.mark.parametrize("way", ["return", "exit", "from sys", "raise", "finally", "argparse"])
def test_a_status_ends_all_ranks_however_it_is_spelt(run, way):
    job = run(2, EXITS, way, seconds=20)
    assert job.status == 3, job
    assert re.search(r"dsm: rank 1 of 2: sys\.exit\(3\)", job.err), job


def test_a_status_ends_all_ranks_under_coverage(run, tmp_path):
    program = tmp_path / "exits.py"
    program.write_text("import sys, time, dsm\n" + EXITS)
    job = run(2, ["-m", "coverage", "run", "--parallel-mode", str(program)], "raise", seconds=30)
    assert job.status == 3, job
    assert re.search(r"dsm: rank 1 of 2: sys\.exit\(3\)", job.err), job


def test_an_exit_that_is_caught_is_no_end(run):
    program = """
    try:
        raise SystemExit(3)
    except SystemExit as error:
        print(error.code, flush=True)
    dsm.barrier()
    """
    job = run(2, program)
    assert (job.status, job.out.count("3")) == (0, 2), job


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_exception_ends_all_ranks_whatever_hook_prints_it(run, when):
    program = f"""
    import traceback
    if {when!r} == "before":
        sys.excepthook = traceback.print_exception
    dsm.barrier()
    sys.excepthook = traceback.print_exception
    if dsm.rank() == 1:
        raise LookupError("no data")
    dsm.barrier()
    """
    job = run(2, program, seconds=20)
    assert job.status == 1, job
    assert "dsm: rank 1 of 2: uncaught LookupError: no data" in job.err, job


def test_after_mpi_finalize_a_status_is_the_programs_own(run):
    job = run(2, "rank = dsm.rank()\ndsm.barrier()\nMPI.Finalize()\nif rank == 1: sys.exit('no more')", seconds=20)
    assert job.status == 1, job
    assert "dsm:" not in job.err, job


@pytest.mark.parametrize("end", ["dsm.finalize()", "MPI.Finalize()", "pass"])
def test_faulthandler_and_open_pins_at_the_end(run, end):
    program = f"""
    import faulthandler
    pin = dsm.pinned(dsm.zeros(1000), "rw")
    pin.__enter__()
    {end}
    """
    job = run(2, program, env={"PYTHONFAULTHANDLER": "1"}, seconds=20)
    assert (job.status, job.err) == (0, ""), job


def test_a_program_that_a_rank_starts_is_no_rank(run, tmp_path):
    tool = tmp_path / "tool.py"
    tool.write_text("import dsm, sys\nsys.exit(3)")
    program = f"""
    import subprocess
    dsm.barrier()
    if dsm.rank() == 0:
        print(subprocess.run([sys.executable, "-P", {str(tool)!r}]).returncode, flush=True)
    dsm.barrier()
    """
    job = run(2, program, seconds=30)
    assert (job.status, job.out.split()) == (0, ["3"]), job
