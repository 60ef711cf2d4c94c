"""Calls out of season, and touching memory that is gone."""

import re

import pytest


def test_after_finalize(run):
    job = run(
        2,
        """
        a, lock, counter = dsm.zeros(10), dsm.Lock(), dsm.Counter()
        dsm.finalize()
        for call in (dsm.finalize, dsm.barrier, lock.acquire, lock.release, counter.next, dsm.stats, dsm.Lock,
                     lambda: dsm.zeros(3), lambda: dsm.free(a), lambda: dsm.pinned(a), lambda: dsm.info(a), dsm.init):
            try:
                call()
            except RuntimeError as error:
                assert "finalized" in str(error), error
            else:
                raise AssertionError(call)
        print("refused", flush=True)
        """,
    )
    assert job.status == 0, job
    assert job.out.count("refused") == 2


def test_before_init(run):
    job = run(
        0,
        """
        for call in (dsm.finalize, dsm.stats):
            try:
                call()
            except RuntimeError as error:
                assert "not started" in str(error), error
            else:
                raise AssertionError(call)
        assert (dsm.rank(), dsm.size(), dsm.is_shared(np.zeros(3))) == (0, 1, False)
        print("refused")
        """,
    )
    assert job.status == 0, job
    assert "refused" in job.out


MADE_IN_TWO_LINES = """
import functools
def here(make):
    return make()
def there(make):
    return make()
make_here = here if dsm.rank() == 0 else there
several = {"shape": 3, "page_size": 4096}
for make in (dsm.zeros, dsm.empty, dsm.ones):
    make_here(functools.partial(make, **several, name="named"))
unnamed = [functools.partial(make, **several) for make in (dsm.zeros, dsm.empty, dsm.ones)]
unnamed += [functools.partial(dsm.full, 3, 7), functools.partial(dsm.array, [1, 2])]
unnamed += [functools.partial(dsm.zeros_like, np.ones(3)), functools.partial(dsm.empty_like, np.ones(3))]
unnamed += [dsm.Lock, dsm.RLock, dsm.Counter]
unnamed += [dsm.Condition, dsm.Semaphore, dsm.BoundedSemaphore, dsm.Event, dsm.Barrier]
lock = dsm.Lock()
unnamed += [functools.partial(dsm.Condition, lock)]
for make in unnamed:
    try:
        made = make_here(make)
    except ValueError as error:
        assert "program0.py:8" in str(error) and "program0.py:10" in str(error), error
        print("two lines", flush=True)
    make_here(dsm.barrier)
a = dsm.zeros(3)
make_here(functools.partial(dsm.free, a))
"""


@pytest.mark.parametrize(("check", "told"), [("0", 0), ("1", 16), ("2", 16)])
def test_what_ranks_make_in_different_lines(run, check, told):
    job = run(2, MADE_IN_TWO_LINES, env={"DSM_CHECK": check})
    assert job.status == 0, job
    assert job.out.count("two lines") == 2 * told


def test_arrays_that_ranks_make_in_different_order(run):
    job = run(
        2,
        """
        def left(): return dsm.zeros(3)
        def right(): return dsm.zeros(3)
        try:
            if dsm.rank() == 0:
                a, b = left(), right()
            else:
                b, a = right(), left()
        except ValueError as error:
            assert "rank 0: zeros" in str(error) and "rank 1: zeros" in str(error)
            assert "program0.py:6" in str(error) and "program0.py:7" in str(error), error
            print("told", flush=True)
        try:
            for name in ("left", "right")[:: 1 if dsm.rank() == 0 else -1]:
                dsm.zeros(3, name=name)
        except ValueError as error:
            assert "name='left'" in str(error) and "name='right'" in str(error), error
            print("named", flush=True)
        """,
        env={"DSM_CHECK": "1"},
    )
    assert job.status == 0, job
    assert job.out.count("told") == job.out.count("named") == 2


@pytest.mark.parametrize("ranks", [0, 2])
@pytest.mark.parametrize("access", ["a[0]", "a[700] = 1"])
@pytest.mark.parametrize("end", ["dsm.free(a)", "dsm.finalize()"])
def test_touching_memory_that_is_gone(run, ranks, access, end):
    job = run(
        ranks,
        f"""
        a = dsm.zeros(1000, name="velocities")
        a[0] = 1
        dsm.barrier()
        {end}
        if MPI.COMM_WORLD.rank == 0:
            {access}
            print("survived", flush=True)
        elif "free" in {end!r}:
            dsm.barrier()
        """,
        seconds=20,
    )
    assert job.status != 0, job
    assert "survived" not in job.out
    assert re.search(rf"dsm: rank 0 of {max(ranks, 1)}: .*'velocities'.*{re.escape(end.split('(')[0])}", job.err), job


def test_one_rank_without_mpiexec(run):
    job = run(
        0,
        """
        a, lock, counter = dsm.full(10_000, 3), dsm.RLock(), dsm.Counter()
        with lock:
            a[::7] += counter.next() + 1
        dsm.barrier()
        assert a[::7].sum() == 4 * len(a[::7]) and a.sum() == 30_000 + len(a[::7])
        dsm.free(a)
        print("one rank")
        """,
        env={"DSM_STATS": "1"},
    )
    assert job.status == 0, job
    assert "one rank" in job.out
    assert "dsm stats of rank 0 of 1" in job.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DSM_PAGE_SIZE", "5000"),
        ("DSM_PAGE_SIZE", "large"),
        ("DSM_PROGRESS", "telepathy"),
        ("DSM_WATCHDOG_S", "-1"),
        ("DSM_CHECK", "3"),
        ("DSM_CHAOS", "-1"),
    ],
)
def test_malformed_environment(run, name, value):
    job = run(0, "dsm.init()", env={name: value})
    assert job.status != 0
    assert re.search(rf"ValueError: .*{name}.*{value}", job.err), job


def test_a_variable_that_dsm_does_not_know_is_told_once(run):
    job = run(2, "dsm.barrier(); dsm.barrier()", env={"DSM_PAGESIZE": "64k", "DSM_TEST_PROGRAMS": "1"})
    assert job.status == 0, job
    line = "dsm: rank 0 of 2: DSM_PAGESIZE is in the environment, but dsm knows no such variable; did you mean DSM_PAGE"
    assert job.err.count(line) == 1, job
    assert "DSM_TEST_PROGRAMS" not in job.err


# What refuses the range of addresses, on one rank; memfd_create is forbidden as a container does it, by seccomp.
REFUSALS = {
    "files": ("resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 29,) * 2)", "File too large: .*`ulimit -f unlimited`"),
    "addresses": (
        "resource.setrlimit(resource.RLIMIT_AS, ((1 << 29) + used(),) * 2)",
        "Cannot allocate memory: .*`ulimit -v unlimited`",
    ),
    "sandbox": ("forbid_memfd_create()", "Operation not permitted: .*memfd_create.*seccomp"),
}
HOW_TO_REFUSE = """
import ctypes, platform, resource, struct
def used():
    return int(open("/proc/self/statm").read().split()[0]) * 4096
def forbid_memfd_create():
    number = {"x86_64": 319, "aarch64": 279}[platform.machine()]
    load, equal, end = 0x20, 0x15, 0x06
    words = [(load, 0, 0, 0), (equal, 0, 1, number), (end, 0, 0, 0x50001), (end, 0, 0, 0x7fff0000)]
    text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *word) for word in words))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(words), ctypes.addressof(text)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0, ctypes.get_errno()
"""


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_range_that_is_refused_is_told_with_its_cure(run, kind):
    how, words = REFUSALS[kind]
    job = run(
        2,
        HOW_TO_REFUSE
        + f"""
MPI.COMM_WORLD.Barrier()
if MPI.COMM_WORLD.rank == 1:
    {how}
try:
    dsm.init()
except dsm.DSMError as error:
    sys.stdout.write(f"rank {{MPI.COMM_WORLD.rank}}: {{error}}\\n")
    sys.stdout.flush()
    MPI.COMM_WORLD.Barrier()
""",
    )
    assert re.search(f"rank 1: .*{words}", job.out), job
    assert re.search("rank 0: .*: another rank refuses, and says why", job.out), job


def test_environment_that_differs_between_ranks(run):
    job = run(
        2,
        """
        os.environ["DSM_PAGE_SIZE"] = str(4096 << MPI.COMM_WORLD.rank)
        try:
            dsm.zeros(10)
        except ValueError as error:
            assert "4096" in str(error) and "8192" in str(error), error
            print("told", flush=True)
        dsm.barrier()
        """,
    )
    assert job.status == 0, job
    assert job.out.count("told") == 2


def test_address_range_that_is_exhausted(run):
    job = run(
        2,
        """
        dsm.init()
        for turn in range(3):
            try:
                dsm.zeros(1 << 30, np.uint8)
            except MemoryError as error:
                assert "DSM_RANGE_BYTES" in str(error), error
                print("told", flush=True)
            a = dsm.ones(1 << 20, np.uint8)
            assert a[-1] == 1
            dsm.barrier()
        """,
        env={"DSM_RANGE_BYTES": str(256 << 20)},
    )
    assert job.status == 0, job
    assert job.out.count("told") == 6


def test_mpi_without_threads(run):
    job = run(2, "pass", env={"MPI4PY_RC_THREAD_LEVEL": "single"})
    assert job.status == 0, job
    job = run(2, "dsm.init()", env={"MPI4PY_RC_THREAD_LEVEL": "single"})
    assert job.status != 0
    assert "DSMError" in job.err
    assert "MPI_THREAD_MULTIPLE" in job.err


def test_mpiexec_of_another_mpi(run):
    """Every process believes that it is alone; only the environment tells that it is not."""
    job = run(
        0,
        """
        try:
            dsm.init()
        except dsm.DSMError as error:
            assert "mpiexec" in str(error) and "python -m dsm run" in str(error), error
            print("told", flush=True)
        """,
        env=another_launcher(),
    )
    assert "told" in job.out, job


def another_launcher():
    from dsm import _launch

    if "Open MPI" in _launch.loaded_mpi().library:
        return {"PMI_RANK": "1", "PMI_SIZE": "4"}
    return {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4"}
