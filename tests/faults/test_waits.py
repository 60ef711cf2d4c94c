"""A wait that does not end says who waits, for what and for whom; Ctrl-C ends it."""

import re

import pytest

WAIT = r"dsm: rank 1 of 3 has waited \d+\.\d s "
WATCHED = {"DSM_WATCHDOG_S": "1"}


def test_watchdog_in_a_barrier(run):
    job = run(3, "dsm.init()\nif dsm.rank() == 2:\n    time.sleep(3)\ndsm.barrier()", env=WATCHED)
    assert job.status == 0, job
    assert re.search(r"dsm: rank 0 of 3 has waited \d+\.\d s in barrier.*rank 2", job.err), job
    assert "rank 2 of 3 has waited" not in job.err


def test_watchdog_at_a_lock(run):
    job = run(
        3,
        """
        lock = dsm.Lock()
        if dsm.rank() == 2:
            lock.acquire()
        dsm.barrier()
        if dsm.rank() == 1:
            lock.acquire()
        if dsm.rank() == 2:
            time.sleep(3)
        if dsm.rank() > 0:
            lock.release()
        """,
        env=WATCHED,
    )
    assert job.status == 0, job
    assert re.search(WAIT + r"for lock 0", job.err), job


FAULT = """
a = dsm.zeros((10, 512), name="held up")
counter = dsm.Counter()
if dsm.rank() == 0:
    a[:] = 3
dsm.barrier()
if dsm.rank() == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
if dsm.rank() == 1:
    time.sleep(0.5)
    print("reads", flush=True)
    assert a[3, 1] == 3
    print("has read", flush=True)
"""


def test_watchdog_in_a_fault(start):
    """The rank that should answer is stopped; when it goes on, so does the job."""
    job = start(3, FAULT, env=WATCHED)
    job.wait_for(WAIT + r"in a read fault on array \d+ 'held up', page 3 \(bytes 12288 to 1638[34]\).*rank 0")
    assert "has read" not in job.out
    for process in job.processes():
        process.resume()
    job.wait()
    assert job.status == 0, job
    assert "has read" in job.out


@pytest.mark.parametrize("watchdog", ["0", "100"])
def test_sigusr1_prints_the_waits(run, watchdog):
    job = run(
        3,
        """
        pids = MPI.COMM_WORLD.allgather(os.getpid())
        dsm.init()
        if dsm.rank() == 0:
            time.sleep(1)
            for _ in range(3):
                os.kill(pids[1], signal.SIGUSR1)
                time.sleep(0.3)
        dsm.barrier()
        """,
        env={"DSM_WATCHDOG_S": watchdog},
    )
    assert job.status == 0, job
    assert len(re.findall(WAIT + "in barrier.*rank 0", job.err)) >= 2, job
    assert "rank 2 of 3 has waited" not in job.err


def test_no_watchdog_when_nothing_is_late(run):
    job = run(3, "for _ in range(20):\n    dsm.barrier()\n    time.sleep(0.1)", env=WATCHED)
    assert job.status == 0, job
    assert "has waited" not in job.err


@pytest.mark.parametrize(
    "wait", ["if dsm.rank(): dsm.barrier()\ntime.sleep(100)", "lock.acquire()", "shuttle()", "time.sleep(100)"]
)
def test_ctrl_c(start, interrupt, wait):
    job = start(
        3,
        f"""\
lock, a = dsm.Lock(), dsm.zeros((64, 512))
def shuttle():
    while True:
        with lock:
            a[:, dsm.rank()] += 1
print("ready\\n", end="", flush=True)
{wait}
time.sleep(100)
""",
    )
    job.wait_for("ready", times=3)
    interrupt(job)
    job.wait(10)
    assert job.status != 0, job


def test_ctrl_c_of_one_rank_in_a_fault_that_does_not_end(start):
    job = start(3, FAULT, env={"DSM_WATCHDOG_S": "1"})
    job.wait_for(WAIT + "in a read fault")
    reader = next(process for process in job.processes() if process.pid == pid_of_rank(process, 1))
    reader.send_signal(2)
    job.wait_for("dsm: rank 1 of 3: .*KeyboardInterrupt", seconds=10)
    for process in job.processes():
        process.resume()  # so that it can be ended, whatever signal mpiexec uses
    job.wait(10)
    assert job.status != 0, job


def pid_of_rank(process, rank):
    """The pid of `process` if it is that rank, by what the launcher told it; else None."""
    names = ("PMI_RANK", "OMPI_COMM_WORLD_RANK")
    told = [process.environ().get(name) for name in names]
    return process.pid if str(rank) in told and "program" in " ".join(process.cmdline()) else None
