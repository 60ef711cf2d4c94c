"""What takes faults away: masks that block SIGSEGV, libraries that take its handler; what is said of a death by it."""

import os
import re
import signal
import subprocess

import pytest

from dsm import _preload

TOLD = "blocks SIGSEGV"
BLOCK = """
import ctypes
EVERYTHING = signal.valid_signals()
def block():
    signal.pthread_sigmask(signal.SIG_BLOCK, EVERYTHING)
"""

# ---- masks ----

WAYS = {
    "pthread_sigmask": "block()",
    "set": "signal.pthread_sigmask(signal.SIG_SETMASK, EVERYTHING)",
    "sigprocmask": """
libc, full = ctypes.CDLL(None), (ctypes.c_ubyte * 128)(*[255] * 128)
assert libc.sigprocmask(signal.SIG_BLOCK, full, None) == 0
""",
    "inherited": """
block()
heir = threading.Thread(target=work)
heir.start()
heir.join()
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_what_blocks_all_signals_still_faults_under_dsm_run(run, way):
    job = run(
        2,
        BLOCK
        + f"""
a = dsm.zeros((2, 100_000), name="of threads that block")
def work():
    a[dsm.rank()] = 1
def whole():
    exec({WAYS[way]!r}, globals())
    work()
    assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, [])  # the others are blocked as asked
dsm.barrier()
thread = threading.Thread(target=whole)
thread.start()
thread.join()
dsm.barrier()
assert a.sum() == 200_000
print("went on", flush=True)
""",
    )
    assert job.status == 0, job
    assert job.out.count("went on") == 2
    assert TOLD not in job.err


MASKS = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static void *tell(void *what)
{
    sigset_t now;
    pthread_sigmask(SIG_BLOCK, NULL, &now);
    printf("%s %d%d%d\n", (const char *)what, sigismember(&now, SIGSEGV), sigismember(&now, SIGBUS),
           sigismember(&now, SIGUSR2));
    return NULL;
}

static void on_usr1(int number)
{
    (void)number;
    tell("handler");
}

int main(int count, char **words)
{
    (void)words;
    sigset_t all;
    sigfillset(&all);
    tell("begin");
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setsigmask_np(&attributes, &all);
    pthread_create(&thread, &attributes, tell, "attribute");
    pthread_join(thread, NULL);
    struct sigaction action = {.sa_handler = on_usr1, .sa_mask = all};
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    sigprocmask(SIG_BLOCK, &all, NULL);
    tell("sigprocmask");
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    tell("pthread_sigmask");
    fflush(stdout);
    return count > 1 ? 0 : execl("/proc/self/exe", "again", "again", NULL);
}
"""


def test_the_library_keeps_two_signals_out_of_all_masks_and_leaves_the_others(mpicc, tmp_path):
    (tmp_path / "masks.c").write_text(MASKS)
    program = str(tmp_path / "masks")
    subprocess.run([mpicc, "-pthread", "-o", program, str(tmp_path / "masks.c")], check=True)

    def told(environ):
        lines = subprocess.run([program], env=environ, capture_output=True, text=True, check=True).stdout.split("\n")
        return [line.split()[1] for line in lines if line]

    kept = ["001"] * 4
    assert told({**os.environ, "LD_PRELOAD": _preload.library()}) == [
        "000",
        *kept,
        "001",
        *kept[1:],
    ]  # SIGUSR1 stays blocked
    blocked = ["111"] * 4
    assert told({**os.environ, "LD_PRELOAD": ""}) == ["000", *blocked, "111", *blocked[1:]]


def test_a_job_that_was_started_with_the_signal_blocked(run, tmp_path):
    """`env --block-signal=SEGV python prog.py`, without the library: the starting thread unblocks it."""
    (tmp_path / "work.py").write_text(
        "import dsm, signal\n"
        "assert signal.SIGSEGV in signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
        "a = dsm.zeros(100_000)\n"
        "a[:] = 1\n"
        "print(a.sum(), flush=True)\n"
    )
    job = run(
        0,
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGSEGV, signal.SIGBUS])
        os.execv(sys.executable, [sys.executable, "-P", "work.py"])
        """,
    )
    assert job.status == 0, job
    assert "100000.0" in job.out


def test_threads_that_block_are_named_once_with_both_cures(run):
    """Without the library: at the start, and at a barrier when there are more threads."""
    job = run(
        0,
        BLOCK
        + """
def start():
    blocks = threading.Event()
    def sleep():
        block()
        blocks.set()
        time.sleep(100)
    threading.Thread(target=sleep, daemon=True).start()
    blocks.wait()
start()
dsm.init()
print("started", file=sys.stderr, flush=True)
start()
start()
for _ in range(20):
    time.sleep(0.02)  # the clock of the kernel moves
    dsm.barrier()
""",
    )
    assert job.status == 0, job
    before, after = job.err.split("started")
    assert before.count(TOLD) == 1
    assert after.count(TOLD) in (1, 2)
    assert len(set(re.findall(r"thread (\d+) \('", job.err))) == before.count(TOLD) + after.count(TOLD)
    assert "python -m dsm run" in before
    assert "LD_PRELOAD" in before


def test_threads_that_come_and_go_are_not_taken_for_such(run):
    """The C library blocks all signals while it begins or ends a thread."""
    job = run(
        0,
        """
        dsm.init()
        end = time.monotonic() + 3
        while time.monotonic() < end:
            threads = [threading.Thread(target=int) for _ in range(8)]
            for thread in threads:
                thread.start()
                dsm.barrier()
            for thread in threads:
                thread.join()
        """,
    )
    assert job.status == 0, job
    assert TOLD not in job.err


@pytest.mark.parametrize("call", ["dsm.barrier()", "lock.acquire()", "counter.next()"])
def test_the_own_thread_is_unblocked_and_told(run, call):
    job = run(
        0,
        BLOCK
        + f"""
a, lock, counter = dsm.zeros(100_000), dsm.Lock(), dsm.Counter()
for _ in range(2):
    block()
    time.sleep(0.05)  # the clock of the kernel moves
    {call}
    a[:] = 1
    if lock.locked():
        lock.release()
""",
    )
    assert job.status == 0, job
    assert job.err.count("has blocked SIGSEGV") == 1


# ---- thieves of the handler ----

THEFTS = {
    "signal.signal": "signal.signal(signal.SIGSEGV, lambda *_: None)",
    "default": "signal.signal(signal.SIGSEGV, signal.SIG_DFL)",
    "ignored": "signal.signal(signal.SIGSEGV, signal.SIG_IGN)",
    "enable": "faulthandler.enable()",
    "disable": "faulthandler.disable()",
}


@pytest.mark.parametrize("theft", THEFTS)
def test_a_program_with_locks_only_gets_its_faults_back(run, theft):
    job = run(
        2,
        f"""
        import faulthandler
        if {theft!r} == "disable":
            faulthandler.enable()
        a, lock = dsm.zeros((64, 512), name="shuttle"), dsm.Lock()
        dsm.barrier()
        def work(steps):
            for _ in range(steps):
                with lock:
                    a[:, dsm.rank()] += 1
        work(20)
        {THEFTS[theft]}
        time.sleep(0.05)  # the clock of the kernel moves
        work(100)
        if {theft!r} == "enable":
            faulthandler.disable()
            work(20)
        print("went on", flush=True)
        """,
    )
    assert job.status == 0, job
    assert job.out.count("went on") == 2
    lines = re.findall(r"dsm: rank (\d) of 2: SIGSEGV was taken after dsm.init\(\)", job.err)
    assert set(lines) == {"0", "1"}, job


def test_the_watchdog_takes_the_signal_back_from_a_handler_that_never_ends_a_fault(run):
    """No acquire and no barrier comes: the thread is in the fault that the thief gets again and again."""
    job = run(
        0,
        """
        a = dsm.zeros(100_000)
        signal.signal(signal.SIGSEGV, lambda *_: None)
        a[:] = 1
        assert a.sum() == 100_000
        print("went on", flush=True)
        """,
        seconds=20,
    )
    assert job.status == 0, job
    assert "went on" in job.out


# ---- deaths ----


@pytest.mark.parametrize("sender", ["the process", "another"])
def test_a_signal_that_was_sent_is_told_as_such(run, sender):
    kill = (
        "os.kill(os.getpid(), signal.SIGSEGV)" if sender == "the process" else 'os.system(f"kill -SEGV {os.getpid()}")'
    )
    job = run(0, f"dsm.zeros(10)\n{kill}\ntime.sleep(5)")
    assert job.status == -signal.SIGSEGV, job
    said = "sent to itself" if sender == "the process" else r"that process \d+ has sent"
    assert re.search(f"dsm: rank 0 of 1: this process dies of a SIGSEGV .*{said}", job.err), job
    assert "outside of shared memory" not in job.err


TRAPS = r"""
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

static sigjmp_buf out;
static volatile int trapping;
static struct sigaction before;

static void on_trap(int number, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    if (trapping)
        siglongjmp(out, 1);
    if (before.sa_flags & SA_SIGINFO)
        before.sa_sigaction(number, info, context);
    else
        sigaction(number, &before, NULL);       /* and return, to die of it */
}

void runtime_start(void)
{
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, &before);
}

int runtime_trap(void)
{
    if (sigsetjmp(out, 0))
        return 1;
    trapping = 1;
    *(volatile int *)8 = 1;
    return 0;
}

void runtime_crash(void)
{
    trapping = 0;
    *(volatile int *)8 = 1;
}
"""


@pytest.fixture
def traps(mpicc, tmp_path):
    """A runtime that lives on faults, as one for WebAssembly does."""
    (tmp_path / "traps.c").write_text(TRAPS)
    file = tmp_path / "traps.so"
    subprocess.run([mpicc, "-shared", "-fPIC", "-O1", "-o", str(file), str(tmp_path / "traps.c")], check=True)
    return str(file)


@pytest.mark.parametrize("first", ["dsm", "the other"])
def test_a_trap_that_another_runtime_handles_is_no_segmentation_fault(run, traps, first):
    job = run(
        0,
        f"""
        import ctypes
        runtime = ctypes.CDLL({traps!r})
        if {first!r} == "dsm":
            dsm.init()
        signal.signal(signal.SIGSEGV, signal.SIG_DFL) if {first!r} != "dsm" else None  # MPI may have one that prints
        runtime.runtime_start()
        a = dsm.zeros(100_000)
        for turn in range(3):
            assert runtime.runtime_trap() == 1
            a[turn * 10_000:] = turn
            dsm.barrier()
        print("trapped", file=sys.stderr, flush=True)
        runtime.runtime_crash()
        """,
    )
    assert job.status == -signal.SIGSEGV, job
    before, after = job.err.split("trapped")
    assert "segmentation fault at" not in before, job
    assert after.count("dsm: rank 0 of 1: segmentation fault at address 0x8") == 1, job


# ---- children ----


@pytest.mark.node("")
@pytest.mark.parametrize("how", ["os.fork", "Pool"])
def test_a_forked_child_that_touches_an_array_names_it(run, how):
    job = run(
        2,
        f"""
        import multiprocessing
        a = dsm.zeros((100, 4096), name="of the parent", dtype=np.uint8)
        a[dsm.rank()] = 1
        dsm.barrier()
        def touch(_):
            return int(a[1, 5])
        if {how!r} == "os.fork":
            child = os.fork()
            if child == 0:
                touch(None)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV
        else:
            pool = multiprocessing.get_context("fork").Pool(1)
            try:
                pool.map_async(touch, [0]).get(3)
            except multiprocessing.TimeoutError:
                pool.terminate()
        dsm.barrier()
        assert a.sum() == 2 * 4096
        print("parent went on", flush=True)
        """,
    )
    assert job.status == 0, job
    assert job.out.count("parent went on") == 2
    for rank in "01":
        line = rf"dsm: rank {rank} of 2: array \d+ 'of the parent' \(byte 4101\) was touched in process \d+, a forked"
        assert len(re.findall(line + ".*spawn", job.err)) == 1, job


# The rank ends in order, however the pool does: else what multiprocessing has in /dev/shm would be left.
CHILDREN = """
import multiprocessing
import signal
import dsm

{module}

def work(x):
    {inner}
    return x * x

if __name__ == "__main__":
    dsm.barrier()
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        try:
            print(pool.map(work, [3, 4]), flush=True)
        except BaseException as error:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            print(f"{{type(error).__name__}}: {{error}}", flush=True)
"""


@pytest.mark.node("")
@pytest.mark.slow
@pytest.mark.parametrize("ranks", [0, 2])
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("call", ["dsm.rank()", "dsm.zeros(3)", "dsm.barrier()"])
def test_a_pool_whose_children_call_dsm_at_their_import_ends_with_words(run, tmp_path, ranks, method, call):
    file = tmp_path / "children.py"
    file.write_text(CHILDREN.format(module=call, inner="pass", method=method))
    job = run(ranks, [str(file)], seconds=40)
    assert job.status == 0, job
    told = re.findall(r"dsm: process \d+ \(\w+PoolWorker-\d+\) is a child .*__main__", job.err)
    assert 1 <= len(told) < 30, job
    assert job.out.count("KeyboardInterrupt") == max(ranks, 1)
    assert "PMI" not in job.err


@pytest.mark.node("")
@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_child_of_a_rank_is_refused_where_it_works(run, tmp_path, method):
    file = tmp_path / "children.py"
    file.write_text(CHILDREN.format(module="", inner="dsm.rank()", method=method))
    job = run(2, [str(file)])
    assert job.status == 0, job
    reason = "was forked from a rank" if method == "fork" else "is a child that multiprocessing started"
    assert len(re.findall(f"RuntimeError: dsm: .*?{reason}", job.out)) == 2, job  # it came back through the pool


@pytest.mark.node("")
def test_a_child_of_no_rank_may_be_a_world_of_its_own(run, tmp_path):
    file = tmp_path / "children.py"
    inner = "a = dsm.full(3, x); assert dsm.size() == 1 and a.sum() == 3 * x"
    file.write_text(CHILDREN.format(module="", inner=inner, method="spawn").replace("    dsm.barrier()\n", ""))
    job = run(0, [str(file)], env={name: "" for name in os.environ if name.startswith(("PMI", "OMPI_COMM"))})
    assert job.status == 0, job
    assert "[9, 16]" in job.out
