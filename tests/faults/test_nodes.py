"""The edges of a node with several processes: ends, deaths inside its mutex, forks, threads, freed memory, pins."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RANKS = 4
DIED = r"rank 1 died while it held the mutex of its node|rank 1 ended without|Killed \(signal 9\)|rank 1 with PID \d+"


@pytest.fixture(params=["host", "2"])
def node(request):
    """All ranks are one node, or two of two ranks: in place of the modes of other files."""
    return request.param


@pytest.fixture
def run_node(run):
    def run_job(program, *arguments, **settings):
        return run(RANKS, program, *arguments, env=settings)

    return run_job


@pytest.fixture
def start_node(start):
    def start_job(program, *arguments, **settings):
        return start(RANKS, program, *arguments, env=settings)

    return start_job


# ---- ends --------------------------------------------------------------------------------------------------------

# Rank 1 ends while rank 0 holds a lock, rank 2 waits for it, and rank 3 writes.
ENDING = """
lock, own, a = dsm.Lock(), dsm.Lock(), dsm.zeros((64, 512))
rank = dsm.rank()
if rank == 0:
    lock.acquire()
dsm.barrier()
print(f"rank {rank} is process {os.getpid()}", flush=True)
if rank == 1:
    time.sleep(0.3)
    HOW
elif rank == 2:
    lock.acquire()
while True:
    with own:
        a[:, rank] += 1
    if rank == 0:
        time.sleep(0.01)
"""

ENDS = {
    "raise LookupError('no such galaxy')": ("uncaught LookupError: no such galaxy", 1),
    "sys.exit(3)": (r"sys\.exit\(3\)", 3),
    "os._exit(7)": (r"os\._exit\(7\)", 7),
    "threading.Thread(target=os.abort).start(); time.sleep(9)": ("", None),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_rank_that_ends_ends_all(run_node, how):
    words, status = ENDS[how]
    begin = time.monotonic()
    job = run_node(ENDING.replace("HOW", how))
    assert time.monotonic() - begin < 20, job
    assert job.status != 0, job
    assert status is None or job.status == status, job
    assert not words or re.search("dsm: rank 1 of 4: " + words, job.err), job
    assert len(re.findall(r"dsm: rank \d of 4: ", job.err)) <= 1, job


def test_control_c(start_node, interrupt):
    job = start_node(ENDING.replace("HOW", "dsm.barrier()"))
    job.wait_for(r"rank \d is process", times=RANKS)
    interrupt(job)
    job.wait(10)
    assert job.status != 0, job


@pytest.mark.parametrize("end", ["", "dsm.finalize()", "MPI.Finalize()"])
def test_a_rank_that_is_through_while_others_use_locks_and_pages(run_node, end):
    job = run_node(
        f"""
        lock, a = dsm.Lock(), dsm.zeros(RANKS := dsm.size(), int, page_size=4096)
        rank = dsm.rank()
        if rank == 0:
            lock.acquire()
        dsm.barrier()
        if rank == 0:
            time.sleep(0.5)
            a[0] = 1
            lock.release()
        elif rank != 1:
            for _ in range(200):
                with lock:
                    assert a[0] == 1
                    a[rank] += 1
            assert a[rank] == 200
        print("through", flush=True)
        {end}
        """
    )
    assert job.status == 0, job
    assert job.out.count("through") == RANKS


def test_an_exception_of_one_rank_that_is_caught(run_node):
    job = run_node(
        """
        try:
            dsm.zeros(10 + dsm.rank() // 3)
        except ValueError as error:
            assert "rank 3" in str(error), error
            print("told", flush=True)
        a = dsm.zeros(10)
        a[dsm.rank()] = 1
        dsm.barrier()
        assert a.sum() == dsm.size()
        """
    )
    assert job.status == 0, job
    assert job.out.count("told") == RANKS


# ---- deaths ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def end_inside(tmp_path_factory, mpicc):
    made = tmp_path_factory.mktemp("inside") / "end_inside.so"
    words = [mpicc, "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-shared", "-fPIC"]
    subprocess.run([*words, "-o", str(made), str(ROOT / "tests" / "native" / "end_inside.c"), "-ldl"], check=True)
    return str(made)


# Rank 1 is hit by the signal when it next has the mutex of its node.
INSIDE = """
import ctypes
library, number, phase = sys.argv[1:]
lock, own, a, rank = dsm.Lock(), dsm.Lock(), dsm.zeros((64, 512)), dsm.rank()
def shuttle():
    while True:
        with own:
            a[:, rank] += 1
dsm.barrier()
time.sleep(0.3)
print("begun", flush=True)
if rank == 1:
    ctypes.c_int.in_dll(ctypes.CDLL(library), "dsm_test_signal").value = int(number)
if phase == "shuttle":
    shuttle()
elif phase == "barrier":
    if rank == 1:
        time.sleep(0.5)
    dsm.barrier()
elif rank != 1:
    time.sleep(100)
dsm.barrier()
"""


@pytest.mark.parametrize("phase", ["shuttle", "barrier", "computing"])
def test_a_rank_is_killed_inside_the_mutex(start_node, end_inside, phase):
    begin = time.monotonic()
    job = start_node(INSIDE, end_inside, str(int(signal.SIGKILL)), phase, LD_PRELOAD=end_inside)
    job.wait_for("begun", times=1)
    job.wait(15)
    assert time.monotonic() - begin < 25
    assert job.status != 0, job
    assert re.search(DIED, job.err + job.out), job
    assert len(re.findall(r"dsm: rank \d of 4: ", job.err)) <= 1, job


@pytest.mark.slow
@pytest.mark.parametrize("delay", range(10))
def test_a_rank_is_killed_at_some_moment(start_node, delay):
    job = start_node(ENDING.replace("HOW", "dsm.barrier()").replace("elif rank == 2", "elif rank == 9"))
    job.wait_for(r"rank \d is process \d+", times=RANKS)
    time.sleep(0.05 + delay * 0.0137)
    os.kill(int(re.search(r"rank 3 is process (\d+)", job.out).group(1)), signal.SIGKILL)
    job.wait(10)
    assert job.status != 0, job
    assert re.search(DIED.replace("rank 1", "rank 3"), job.err + job.out), job


def test_a_rank_that_is_stopped_inside_the_mutex_is_named(start_node, end_inside):
    job = start_node(INSIDE, end_inside, str(int(signal.SIGSTOP)), "shuttle", LD_PRELOAD=end_inside, DSM_WATCHDOG_S="1")
    job.wait_for(
        r"dsm: rank 0 of 4: rank 1 has held the mutex of its node, .*, for \d\.\d s: is it stopped", seconds=20
    )
    assert "inside MPI" not in job.err, job
    job.kill()


def test_a_rank_that_is_stopped_is_named(start_node):
    job = start_node(
        """
        dsm.init()
        print(f"rank {dsm.rank()} is process {os.getpid()}", flush=True)
        if dsm.rank() == 1:
            time.sleep(100)
        dsm.barrier()
        """,
        DSM_WATCHDOG_S="1",
    )
    job.wait_for(r"rank 1 is process \d+")
    time.sleep(0.2)
    os.kill(int(re.search(r"rank 1 is process (\d+)", job.out).group(1)), signal.SIGSTOP)
    job.wait_for(r"rank 0 of 4 has waited \d+\.\d s in barrier\(\), for rank 1\n", seconds=20)
    job.kill()


@pytest.mark.parametrize("late", [(3,), (1, 3), (0, 2), pytest.param((1, 2, 3), marks=pytest.mark.slow)])
def test_the_line_names_all_ranks_that_have_not_arrived(start_node, late):
    """Those of the own node, and of the other one, whether a rank of it waits or none does."""
    job = start_node(f"dsm.init()\nif dsm.rank() in {late}:\n    time.sleep(100)\ndsm.barrier()", DSM_WATCHDOG_S="2")
    named = f"rank{'s' if len(late) > 1 else ''} {', '.join(map(str, late))}"
    for rank in {*range(RANKS)} - {*late}:
        job.wait_for(rf"rank {rank} of 4 has waited \d+\.\d s in barrier\(\), for {named}\n", seconds=20)
    job.kill()


# ---- what goes on ------------------------------------------------------------------------------------------------


def test_forks(run_node):
    """A child has no shared memory; that its parent has some is no matter to the others of the node."""
    job = run_node(
        """
        import subprocess
        a, lock = dsm.zeros((dsm.size(), 512)), dsm.Lock()
        for turn in range(5):
            child = os.fork()
            if child == 0:
                os._exit(5)
            subprocess.run(["true"], check=True)
            with lock:
                a[:] += 1
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
        dsm.barrier()
        assert (a == 5 * dsm.size()).all()
        """
    )
    assert job.status == 0, job


def test_threads_of_all_ranks_in_locks_and_barriers(run_node):
    job = run_node(
        """
        locks = [dsm.Lock() for _ in range(2)]
        a = dsm.zeros((2, 700), int, page_size=4096)
        steps = dsm.zeros(dsm.size(), int, page_size=4096)
        def work(which):
            for _ in range(30):
                with locks[which]:
                    a[which] += 1
        threads = [threading.Thread(target=work, args=[i % 2]) for i in range(4)]
        [thread.start() for thread in threads]
        for step in range(60):
            steps[dsm.rank()] = step
            dsm.barrier()
            assert (steps == step).all()
            dsm.barrier()
        [thread.join() for thread in threads]
        dsm.barrier()
        assert (a == 60 * dsm.size()).all()
        """
    )
    assert job.status == 0, job


def test_addresses_are_used_again(run_node):
    """Now and then one rank is slow to free: what is made there next is zero for all."""
    job = run_node(
        """
        seen = set()
        for turn in range(30):
            a = dsm.zeros((dsm.size(), 3000), page_size=(4096, 65536)[turn % 2])
            assert not a.any()
            seen.add(a.ctypes.data)
            dsm.barrier()
            a[dsm.rank()] = turn + 1
            if turn % 3:
                dsm.barrier()
                assert (a == turn + 1).all()
            if turn % 10 == dsm.rank():
                time.sleep(0.1)
            dsm.free(a)
        assert len(seen) < 30
        """
    )
    assert job.status == 0, job


def test_a_view_of_one_rank_keeps_an_array(run_node):
    job = run_node(
        """
        a = dsm.zeros(1000)
        view = a[5:] if dsm.rank() == 3 else None
        try:
            dsm.free(a)
        except BufferError as error:
            assert "rank 3" in str(error), error
            print("kept", flush=True)
        a[dsm.rank()] = 1
        dsm.barrier()
        assert a.sum() == dsm.size()
        del view
        dsm.free(a)
        """
    )
    assert job.status == 0, job
    assert job.out.count("kept") == RANKS


def test_pins_beside_writers_of_other_ranks(run_node, tmp_path):
    """Rank 1 keeps a pin for writing over barriers, and the kernel writes there; all write beside it."""
    job = run_node(
        """
        a = dsm.zeros((dsm.size(), 512 * 3), page_size=8192)
        rank = dsm.rank()
        dsm.barrier()
        pin = dsm.pinned(a[1], "rw") if rank == 1 else None
        if pin:
            pin.__enter__()
        for turn in range(1, 20):
            if rank == 1:
                source = np.full(a.shape[1], turn, float).tobytes()
                with open(sys.argv[1], "w+b") as file:
                    file.write(source)
                    file.seek(0)
                    assert file.readinto(a[1]) == len(source)
            else:
                a[rank] = turn
            dsm.barrier()
            assert (a == turn).all(), (rank, turn)
            dsm.barrier()
        if pin:
            pin.__exit__(None, None, None)
        """,
        str(tmp_path / "bytes"),
    )
    assert job.status == 0, job


def test_conditions_across_ranks(run_node):
    job = run_node(
        """
        condition, turn = dsm.Condition(), dsm.zeros(1, int)
        for times in range(100):
            with condition:
                assert condition.wait_for(lambda: turn[0] % dsm.size() == dsm.rank(), 30)
                turn[0] += 1
                condition.notify_all()
        dsm.barrier()
        assert turn[0] == 100 * dsm.size()
        """
    )
    assert job.status == 0, job
