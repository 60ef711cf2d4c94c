"""Whole programs: the examples, parts of COMM_WORLD, and everything again with a collection at every opportunity."""

import os
import re
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HANDOVERS = int(os.environ.get("DSM_TEST_HANDOVERS", "5000"))  # the long run has a million


@pytest.mark.parametrize(
    ("program", "result"),
    [
        (
            ["tsp.py"],
            r"burma14: shortest tour 3323,(.|\n)*ulysses16: shortest tour 6859,(.|\n)*gr17: shortest tour 2085,",
        ),
        (["heat.py", "--size", "200", "--steps", "60"], r"the same as serial bit by bit"),
        (["kmeans.py"], r"1797 images in 10 groups, the same as serial bit by bit"),
        (["histogram.py"], r"the same as serial on every rank"),
        (["primes.py", "--below", "1000000"], r"78498 below 1000000"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.node("")
@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_examples(run, program, result, ranks):
    job = run(ranks, [str(ROOT / "examples" / program[0]), *program[1:]], seconds=60)
    assert job.status == 0, job
    assert re.search(result, job.out), job
    assert f"dsm stats of rank 0 of {ranks}: " in job.out


@pytest.mark.node("")
def test_parts_of_the_world(run):
    """Two groups share memory each for itself, and one rank takes no part."""
    job = run(
        5,
        """
        world = MPI.COMM_WORLD
        part = world.Split(MPI.UNDEFINED if world.rank == 4 else world.rank % 2, key=-world.rank)
        if world.rank == 4:
            world.Barrier()
            sys.exit(0)
        dsm.init(part)
        assert (dsm.rank(), dsm.size()) == (part.rank, 2)
        a, lock, counter = dsm.zeros(5000, int), dsm.Lock(), dsm.Counter()
        for _ in range(50):
            with lock:
                a[:] += 1 + world.rank % 2
            counter.next()
        dsm.barrier()
        assert (a == 100 * (1 + world.rank % 2)).all() and counter.value == 100
        world.Barrier()
        print(f"part {world.rank % 2}", flush=True)
        """,
    )
    assert job.status == 0, job
    assert job.out.count("part 0") == job.out.count("part 1") == 2


def test_threads_keep_the_nice_level(run):
    """A service thread that is less urgent than the program it answers for hardly ever answers."""
    job = run(
        1,
        """
        os.nice(3)  # of this thread: MPI and BLAS have others
        before = set(os.listdir("/proc/self/task"))
        dsm.init()
        dsm.barrier()
        made = set(os.listdir("/proc/self/task")) - before
        for thread in made:  # it has begun when it sleeps
            while "State:\tS" not in open(f"/proc/self/task/{thread}/status").read():
                pass
        print(len(made), {os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in made})
        """,
    )
    assert job.status == 0, job
    assert "2 {3}" in job.out, job


@pytest.mark.slow
@pytest.mark.timeout(260)
def test_all_again_with_collections_all_the_time(run_again):
    settings = {"DSM_COLLECT_BYTES": "1", "DSM_CHECK": "2", "DSM_TEST_PROGRAMS": "15", "DSM_TEST_HANDOVERS": "600"}
    run_again(3, ("sharing", "locks", "pinned", "random"), settings)


@pytest.mark.slow
@pytest.mark.timeout(260)
@pytest.mark.parametrize(
    "without",
    [
        "readahead",
        "refetch",
        "push",
        "preopen",
        "huge",
        "join",
        "publish",
        "appetite",
        "readahead refetch push preopen",
    ],
)
def test_all_again_without_what_only_speeds_up(run_again, without):
    run_again(2, ("sharing", "locks", "invariants", "random"), {"DSM_WITHOUT": without, "DSM_TEST_PROGRAMS": "10"})


WITHOUT = """
a = dsm.zeros((dsm.size(), 64, 512))
for step in range(1, 13):
    a[dsm.rank()] = step
    dsm.barrier()
    assert (a == step).all()
    dsm.barrier()
stats = dsm.stats()
names = "pages_readahead", "pages_refetched", "pushes_used", "pages_preopened"
print({name: stats[name] > 0 for name in names}, flush=True)
"""


@pytest.mark.parametrize("without", ["", "refetch,push", "readahead,preopen"])
def test_what_is_switched_off_does_nothing(run, without):
    """A push is of no use without `refetch`, which asks for it."""
    job = run(2, WITHOUT, env={"DSM_WITHOUT": without})
    assert job.status == 0, job
    found = {
        "pages_readahead": "readahead",
        "pages_refetched": "refetch",
        "pushes_used": "push",
        "pages_preopened": "preopen",
    }
    expected = {name: word not in without for name, word in found.items()}
    if without == "readahead,preopen":
        del expected["pages_preopened"]  # what is pushed stays open
    for name, happens in expected.items():
        assert job.out.count(f"'{name}': {happens}") == 2, job


HUGE = """
import ctypes, mmap
HUGE, MADV_COLLAPSE = 2 << 20, 25
libc = ctypes.CDLL(None)
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

def kernel_can():
    probe = mmap.mmap(-1, 2 * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = -(-ctypes.addressof(ctypes.c_char.from_buffer(probe)) // HUGE) * HUGE
    ctypes.memset(start, 1, 1)
    return libc.madvise(start, HUGE, MADV_COLLAPSE) == 0

def huge_kib():
    with open("/proc/self/smaps") as maps:
        return sum(int(line.split()[1]) for line in maps if line.startswith("ShmemPmdMapped:"))

can, before = kernel_can(), huge_kib()
a = dsm.zeros(8 * HUGE, "u1")
a[:] = 1
print("can" if can else "cannot", "huge" if huge_kib() > before else "small", flush=True)
"""


@pytest.mark.parametrize("without", ["", "huge"])
def test_large_arrays_have_huge_pages(run, without):
    """Where the kernel makes any, and if they are not switched off."""
    job = run(1, HUGE, env={"DSM_WITHOUT": without})
    assert job.status == 0, job
    assert job.out.split() in (["can", "small" if without else "huge"], ["cannot", "small"]), job


def test_an_optimisation_that_there_is_not(run):
    job = run(1, "dsm.init()", env={"DSM_WITHOUT": "push,wings"})
    assert job.status != 0
    assert "DSM_WITHOUT must be some of readahead, refetch, push, preopen, huge, join, evict, crowds" in job.err
    assert "columns, forwards, habits, not 'wings'" in job.err


@pytest.mark.timeout(120 + HANDOVERS / 100)
@pytest.mark.slow
def test_memory_of_a_program_with_locks_only_is_bounded(run):
    """With a budget of 64 KiB: collections happen without any barrier, and keep it."""
    job = run(
        3,
        f"""
        lock = dsm.Lock()
        a = dsm.zeros(8 * 512, int, page_size=4096)
        turns = {HANDOVERS} // dsm.size()
        for turn in range(turns):
            with lock:
                a[turn % a.size] += 1
                a[-1] += 1
        used = dsm.stats()
        dsm.barrier()
        assert a.sum() == 2 * turns * dsm.size()
        print(f"\\n{{used['collections']}} collections, {{used['memory_bytes_max']}} bytes\\n", end="", flush=True)
        """,
        env={"DSM_COLLECT_BYTES": str(64 << 10)},
        seconds=60 + HANDOVERS / 100,
    )
    assert job.status == 0, job
    found = re.findall(r"(\d+) collections, (\d+) bytes", job.out)
    assert len(found) == 3
    for collections, bytes_max in found:
        assert int(collections) > 0
        assert int(bytes_max) < 2 << 20


@pytest.mark.parametrize("progress", ["spin", "poll"])
def test_other_ways_of_progress(run, progress):
    """A rank that computes answers whatever wakes it."""
    job = run(
        2,
        """
        a = dsm.zeros(100_000)
        dsm.local(a)[:] = 1 + dsm.rank()
        dsm.barrier()
        if dsm.rank() == 0:
            stop = time.time() + 2
            while time.time() < stop and not MPI.COMM_WORLD.iprobe(source=1):
                sum(range(1000))
            assert MPI.COMM_WORLD.iprobe(source=1), "no answer while this rank computed"
            MPI.COMM_WORLD.recv(source=1)
        else:
            assert a.sum() == 150_000
            MPI.COMM_WORLD.send("read", dest=0)
        dsm.barrier()
        """,
        env={"DSM_PROGRESS": progress},
    )
    assert job.status == 0, job


def test_files_of_a_killed_launcher_stop_no_later_job(start):
    """Open MPI names them after the launcher's process, and does not start where such files are."""
    job = start(1, "print('ready', flush=True)\ntime.sleep(60)")
    job.wait_for("ready")
    job.kill()
    left = {file.name for file in Path(tempfile.gettempdir()).glob(f"*{job.process.pid}*")}
    assert not {name for name in left if name.startswith(("ompi.", "prte", "pmix"))}
