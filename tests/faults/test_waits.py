"""A wait that does not end says who waits, for what and for whom; Ctrl-C ends it."""

import re

import pytest

WAIT = r"dsm: rank 1 of 3 has waited \d+\.\d s "
WATCHED = {"DSM_WATCHDOG_S": "1"}
# On a loaded machine a rank is late by seconds, and a line is printed before all that it could say has arrived; it is
# printed again.  So the jobs below wait for ever, or until the test has seen its line and says so.
UNTIL_TOLD = """
def until_told():
    while not os.path.exists("told"):
        time.sleep(0.01)
"""


@pytest.fixture
def tell(tmp_path):
    """End `until_told` in the job."""
    return (tmp_path / "told").touch


def test_watchdog_in_a_barrier(start, tell):
    job = start(3, UNTIL_TOLD + "dsm.init()\nif dsm.rank() == 2:\n    until_told()\ndsm.barrier()", env=WATCHED)
    job.wait_for(r"dsm: rank 0 of 3 has waited \d+\.\d s in barrier.*rank 2")
    assert "rank 2 of 3 has waited" not in job.err
    tell()
    assert job.wait().status == 0, job


def test_watchdog_at_a_lock(start):
    job = start(
        3,
        """
        lock = dsm.Lock()
        if dsm.rank() == 2:
            lock.acquire()
        dsm.barrier()
        if dsm.rank() == 1:
            lock.acquire()
        time.sleep(100)
        """,
        env=WATCHED,
    )
    job.wait_for(WAIT + r"for lock 0")
    job.kill()


def test_an_event_that_another_rank_has_not_made(start):
    """No meeting compares the two, so their lines say what each has made."""
    job = start(
        2,
        """
        dsm.barrier()
        dsm.Event(name="both")
        if dsm.rank() == 0:
            dsm.Event(name="one").wait()
        dsm.barrier()
        """,
        env=WATCHED,
    )
    job.wait_for(r"rank 0 of 2 has waited \S+ s for event 1 'one'; .*: Event\(name='both'\), Event\(name='one'\)")
    job.wait_for(r"rank 1 of 2 has waited \S+ s in barrier\(\), for rank 0; .*: Event\(name='both'\)\n")
    job.kill()


@pytest.mark.slow
def test_the_line_names_the_rank_that_has_not_arrived(start):
    """On every rank that waits, though arrivals travel by way of others; the late one does not look at dsm."""
    program = """
    dsm.init()
    def solve():
        dsm.barrier()
    if dsm.rank() == LATE:
        end = time.monotonic() + 100
        while time.monotonic() < end:
            pass
    solve()
    """
    for late in (0, 2, 5):  # the root, a child of it, and a child of rank 1
        job = start(6, program.replace("LATE", str(late)), env={"DSM_WATCHDOG_S": "2"})
        for rank in {*range(6)} - {late}:
            job.wait_for(rf"dsm: rank {rank} of 6 has waited \d+\.\d s in barrier\(\), for rank {late}\n", seconds=60)
            job.wait_for(
                rf"dsm: rank {rank} of 6: thread \d+ is at \S+program\d.py:8 in solve, called at \S+:13 in <module>\n"
            )
        job.kill()


def test_the_line_names_all_ranks_that_have_not_arrived(start):
    """One of them waits for a message of MPI, as its service thread says."""
    job = start(
        4,
        """
        dsm.init()
        if dsm.rank() == 0:
            MPI.COMM_WORLD.recv(source=3)
        if dsm.rank() in (2, 3):
            time.sleep(100)
        dsm.zeros(10)
        """,
        env={"DSM_WATCHDOG_S": "2"},
    )
    job.wait_for(WAIT.replace("of 3", "of 4") + r"in an allocation, for ranks 0, 2, 3\n")
    job.kill()


@pytest.mark.slow
@pytest.mark.parametrize("busy", ["time.sleep(100)", "MPI.COMM_WORLD.recv(source=2)", "spin()"])
def test_the_line_at_a_lock_names_the_holder(start, busy):
    job = start(
        3,
        f"""
        def spin():
            end = time.monotonic() + 100
            while time.monotonic() < end:
                pass
        lock = dsm.Lock(name="queue")
        if dsm.rank() == 1:
            with lock:
                dsm.barrier()
                print("holder", threading.get_native_id(), flush=True)
                {busy}
        else:
            dsm.barrier()
            with lock:
                pass
        """,
        env=WATCHED,
    )
    job.wait_for(r"holder \d+\n")
    holder = re.search(r"holder (\d+)", job.out).group(1)
    job.wait_for(
        rf"rank 0 of 3 has waited .* s for lock 0 'queue', held by thread {holder} of rank 1, which took it at \S+:12\n"
    )
    job.wait_for(r"dsm: rank 0 of 3: thread \d+ is at \S+:18 in <module>")
    job.kill()


@pytest.mark.slow
def test_the_line_at_a_lock_says_what_its_holder_waits_for(start):
    """Rank 1 waits for a barrier that rank 0 does not reach, because it waits for a lock of rank 1."""
    job = start(
        2,
        """
        lock = dsm.Lock()
        if dsm.rank() == 1:
            lock.acquire()
        dsm.barrier()
        if dsm.rank() == 0:
            lock.acquire()
        dsm.barrier()
        """,
        env=WATCHED,
    )
    job.wait_for(
        r"rank 0 of 2 has waited .* s for lock 0, held by thread \d+ of rank 1, which took it at \S+:8 and waits in"
    )
    job.wait_for(r"rank 1 of 2 has waited .* s in barrier\(\), for rank 0\n")
    job.kill()


@pytest.mark.parametrize("ranks", [2, *(pytest.param(ranks, marks=pytest.mark.slow) for ranks in (1, 3))])
def test_a_circle_of_locks_is_told(start, ranks):
    """Each rank takes its lock and wants that of the next one; alone, two threads do."""
    job = start(
        ranks,
        """
        names = "abc"[:max(dsm.size(), 2)]
        locks = [dsm.Lock(name=name) for name in names]
        def take(first, meet):
            with locks[first]:
                meet()
                locks[(first + 1) % len(locks)].acquire()
        if dsm.size() > 1:
            take(dsm.rank(), dsm.barrier)
        else:
            meeting = threading.Barrier(2)
            threads = [threading.Thread(target=take, args=[i, meeting.wait]) for i in range(2)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
        """,
        env={"DSM_WATCHDOG_S": "0.5"},
    )
    count = max(ranks, 2)
    for first in range(count):
        rank = first if ranks > 1 else 0
        circle = [(first + 1 + k) % count for k in range(count)]
        text = "".join(
            rf"for lock {lock} '{'abc'[lock]}', held by thread \d+ of rank {lock if ranks > 1 else 0},"
            r" which took it at \S+:9 and waits "
            for lock in circle
        )
        text += rf"for lock {circle[0]} '{'abc'[circle[0]]}': a deadlock, unless one of them gives up"
        job.wait_for(rf"rank {rank} of {ranks} has waited \d+\.\d s {text}")
    job.kill()


@pytest.mark.slow
def test_a_lock_that_changes_hands_is_no_circle(start):
    """Two locks, always taken in the same order, are waited for a while."""
    job = start(
        3,
        """
        first, second = dsm.Lock(), dsm.Lock()
        while True:
            with first, second:
                time.sleep(0.5)
        """,
        env={"DSM_WATCHDOG_S": "0.4"},
    )
    job.wait_for(r"for lock 0, held by thread \d+ of rank \d, which took it at \S+:8\n", times=3)
    assert "deadlock" not in job.err
    job.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "wait", "end"),
    [
        ("dsm.Lock(name='ready')", "thing.acquire(); thing.release()", "thing.release()"),
        ("dsm.Event(name='ready')", "thing.wait()", "thing.set()"),
        ("dsm.Semaphore(0, name='ready')", "thing.acquire()", "thing.release(300)"),
        ("dsm.Barrier(301, name='ready')", "thing.wait()", "thing.wait()"),
    ],
)
def test_one_line_for_all_threads_that_wait_alike(start, tell, make, wait, end):
    job = start(
        0,
        UNTIL_TOLD
        + f"""
thing = {make}
def work():
    {wait}
if isinstance(thing, dsm.Lock):
    thing.acquire()
threading.stack_size(128 * 1024)
threads = [threading.Thread(target=work) for _ in range(300)]
[thread.start() for thread in threads]
until_told()
{end}
[thread.join() for thread in threads]
""",
        env=WATCHED,
    )
    job.wait_for("rank 0 of 1 has waited")
    tell()
    assert job.wait().status == 0, job
    lines = re.findall(r"rank 0 of 1 has waited .*", job.err)
    assert len(lines) == 1, job
    assert "'ready'" in lines[0]
    assert re.search(r"; \d\d+ more threads of this rank wait for the same", lines[0]), job
    assert len(re.findall(r"is at \S+:12 in work\n", job.err)) == 1, "the place of all of them, once"


@pytest.mark.slow
def test_a_signal_handler_of_the_program_is_left_alone(start, tell):
    """All signals are the program's if it wants them: then the lines have no stacks."""
    job = start(
        0,
        UNTIL_TOLD
        + """
event, seen = dsm.Event(), []
for number in range(signal.SIGRTMIN + 1, signal.SIGRTMAX):
    signal.signal(number, lambda *_: seen.append(1))
threading.Thread(target=lambda: (until_told(), event.set())).start()
event.wait()
assert not seen
""",
        env=WATCHED,
    )
    job.wait_for("rank 0 of 1 has waited")
    tell()
    assert job.wait().status == 0, job
    assert "is at" not in job.err, "no stack is better than the program's handler called for nothing"


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
    job.wait_for(r"dsm: rank 1 of 3: thread \d+ is at \S+:16 in <module>\n")
    for process in job.processes():
        process.resume()
    job.wait()
    assert job.status == 0, job
    assert "has read" in job.out


@pytest.mark.parametrize("watchdog", ["0", "100"])
def test_sigusr1_prints_the_waits(start, tell, watchdog):
    job = start(
        3,
        """
        pids = MPI.COMM_WORLD.allgather(os.getpid())
        dsm.init()
        while dsm.rank() == 0 and not os.path.exists("told"):
            os.kill(pids[1], signal.SIGUSR1)
            time.sleep(0.3)
        dsm.barrier()
        """,
        env={"DSM_WATCHDOG_S": watchdog},
    )
    job.wait_for(WAIT + "in barrier.*rank 0", times=2)
    tell()
    assert job.wait().status == 0, job
    assert "rank 2 of 3 has waited" not in job.err


@pytest.mark.slow
def test_no_watchdog_when_nothing_is_late(run):
    job = run(3, "for _ in range(60):\n    dsm.barrier()\n    time.sleep(0.1)", env={"DSM_WATCHDOG_S": "4"})
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


def test_a_lock_that_its_own_thread_has(start):
    job = start(2, "lock = dsm.Lock(name='mine')\nlock.acquire()\nlock.acquire()", env={"DSM_WATCHDOG_S": "1"})
    job.wait_for(r"for lock 0 'mine', held by thread \d+ of rank \d.*: a deadlock, since that thread has the lock")
    job.kill()
