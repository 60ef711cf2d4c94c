"""The Python face on one rank: what it refuses, what its arrays are, how its locks behave, how a program ends.

Needs the compiled core.  What ends dsm, or must not find it started, runs in a process of its own.
"""

import math
import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import dsm
from dsm import _settings

RECORD = np.dtype({"names": ["flag", "weight"], "formats": ["?", "f8"], "offsets": [1, 8], "itemsize": 16})
ODD_RECORD = np.dtype([("a", "i4"), ("b", "f8"), ("c", "u1", (3,))])  # 15 bytes
DTYPES = ["?", "i1", "u2", ">i4", "f4", "f8", "c8", "c16", "S3", "U2", "M8[ns]", "V5", RECORD, ODD_RECORD]


def python(code, **environ):
    """Run a program on one rank; return what it did."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DSM_")}
    return subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)],
        env=environment | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def memory_of(array):
    """The bytes of a contiguous array as they lie.

    NumPy's tobytes() of records in Fortran order copies their fields alone into memory that it has not cleared, so
    that the padding between them is whatever was there.
    """
    return array.ravel(order="K").view(np.uint8).data


def output(code, **environ):
    done = python(code, **environ)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# ---- starting and ending ---------------------------------------------------------------------------------------------


def test_import_starts_nothing():
    code = """
    import sys, dsm
    a = __import__("numpy").zeros(3)
    print("mpi4py.MPI" in sys.modules, dsm.is_shared(a), dsm.split(7, 2, 1) == slice(4, 7))
    """
    assert output(code) == ["False", "False", "True"]


def test_rank_and_size_do_not_start():
    code = """
    import dsm
    print(dsm.rank(), dsm.size(), dsm.split(5) == slice(0, 5))
    dsm.init(page_size=8192)
    print(dsm.rank(), dsm.size(), dsm.info(dsm.zeros(1)).page_size)
    """
    assert output(code) == ["0", "1", "True", "0", "1", "8192"]


@pytest.mark.parametrize("call", ["stats()", "finalize()"])
def test_what_needs_a_start_says_so(call):
    done = python(f"import dsm; dsm.{call}")
    assert "RuntimeError: dsm is not started" in done.stderr


def test_every_call_after_finalize_is_refused():
    code = """
    import dsm
    lock, recursive, counter, a = dsm.Lock(), dsm.RLock(), dsm.Counter(), dsm.zeros(3)
    condition, semaphore, event, barrier = dsm.Condition(), dsm.Semaphore(), dsm.Event(), dsm.Barrier()
    token = dsm.ref(a)
    dsm.finalize()
    calls = [
        dsm.finalize, dsm.init, dsm.barrier, dsm.rank, dsm.size, dsm.stats, dsm.Lock, dsm.RLock, dsm.Counter,
        lambda: dsm.zeros(3), lambda: dsm.ones(3), lambda: dsm.array([1]), lambda: dsm.free(a), lambda: dsm.info(a),
        lambda: dsm.is_shared(a), lambda: dsm.pinned(a), lambda: dsm.split(3), lambda: dsm.local(a),
        lock.acquire, lock.release, lock.locked, recursive.acquire, recursive.release, counter.next,
        lambda: counter.value, dsm.Condition, dsm.Semaphore, dsm.BoundedSemaphore, dsm.Event, dsm.Barrier,
        condition.acquire, condition.wait, condition.notify, semaphore.acquire, semaphore.release, event.is_set,
        event.set, event.clear, event.wait, barrier.wait, barrier.reset, barrier.abort, lambda: dsm.prefetch(a),
        lambda: dsm.ref(a), token.open, lambda: dsm.save("a.npy", a), lambda: dsm.load("a.npy"),
    ]
    for call in calls:
        try:
            call()
        except RuntimeError as error:
            assert "finalized" in str(error), error
        else:
            raise AssertionError(call)
    print(repr(lock), "done")
    """
    assert output(code)[-2:] == ["finalized>", "done"]


def test_second_init_is_refused():
    dsm.barrier()
    with pytest.raises(RuntimeError, match="already started"):
        dsm.init()


def test_init_refuses_what_is_no_communicator():
    code = """
    import dsm
    from mpi4py import MPI
    for comm, kind in (("world", TypeError), (MPI.COMM_NULL, ValueError)):
        try:
            dsm.init(comm)
        except kind:
            print("refused")
    dsm.init(MPI.COMM_SELF)
    print(dsm.size())
    """
    assert output(code) == ["refused", "refused", "1"]


def test_arrays_live_as_long_as_the_interpreter():
    code = """
    import atexit
    atexit.register(lambda: print("callback", a.sum(), MPI.Is_finalized()))  # called after dsm's own
    import dsm
    from mpi4py import MPI

    class Late:
        def __del__(self, array=dsm.ones(3), lock=dsm.Lock(), show=print):
            with lock:
                show("garbage", array.sum())

    a, late = dsm.zeros(10), Late()
    a[...] = 1
    sys_modules_keeps_it = __import__("sys").modules[__name__].late
    """
    assert output(code) == ["callback", "10.0", "False", "garbage", "3.0"]


def test_uncaught_exception_on_one_rank_is_pythons_own():
    done = python("import dsm; dsm.barrier(); raise ValueError('broken')")
    assert done.returncode == 1
    assert done.stderr.strip().endswith("ValueError: broken")


def test_sys_exit_keeps_its_status():
    assert python("import dsm, sys; dsm.barrier(); sys.exit(7)").returncode == 7


def test_finalize_then_garbage():
    code = """
    import dsm
    a, b = dsm.zeros(3), dsm.zeros(4)
    view = b[1:].view("u1")
    dsm.free(a)
    dsm.finalize()
    del a, b, view
    print("done")
    """
    assert output(code) == ["done"]


def test_forked_child_has_no_shared_memory():
    code = """
    import os, dsm
    a = dsm.ones(3)
    child = os.fork()
    if child == 0:
        try:
            dsm.barrier()
        except RuntimeError as error:
            os._exit(7 if "fork" in str(error) else 1)  # MPI has no place in the child either
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), a.sum())
    """
    assert output(code) == ["7", "3.0"]


def test_summary_at_exit():
    done = python("import dsm; dsm.barrier()", DSM_STATS="1")
    assert [line for line in done.stderr.splitlines() if line.startswith("dsm stats of rank 0 of 1: ")]
    assert not python("import dsm; dsm.barrier()").stderr


# ---- the end of a program that fails ---------------------------------------------------------------------------------

HOOKS = """
import sys
from dsm import _exit

def abort(text, status):
    print("ABORT", status, text, flush=True)
    _exit.disarm()  # in a job it does not return

_exit.install(abort)
"""


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("sys.exit(3)", "ABORT 3 sys.exit(3)"),
        ("sys.exit('wrong')", "ABORT 1 sys.exit('wrong')"),
        ("sys.exit(256)", "ABORT 1 sys.exit(256)"),
        ("exit(3)", "ABORT 3 sys.exit(3)"),
        ("raise SystemExit(3)", "ABORT 3 sys.exit(3)"),
        ("raise SystemExit", ""),
        ("raise type('Own', (SystemExit,), {})(3)", "ABORT 3 sys.exit(3)"),
        ("error = SystemExit(1); error.code = 3; raise error", "ABORT 3 sys.exit(3)"),
        ("import argparse; argparse.ArgumentParser().parse_args(['--no'])", "ABORT 2 sys.exit(2)"),
        ("sys.exit()", ""),
        ("sys.exit(0)", ""),
        ("1 / 0", "ABORT 1 uncaught ZeroDivisionError: division by zero"),
        ("raise KeyboardInterrupt", "ABORT 130 interrupted (KeyboardInterrupt)"),
        ("_exit.disarm(); sys.exit(3)", ""),
    ],
)
def test_failing_end_ends_all_ranks(end, expected):
    assert python(HOOKS + end).stdout.strip() == expected


def test_a_program_may_have_an_exit_of_its_own():
    code = """
    import sys
    before = sys.exit
    def own(code=None):
        print("bye", flush=True)
        before(code)
    sys.exit = own
    import dsm
    dsm.barrier()
    assert sys.exit is own
    sys.exit(0)
    """
    assert output(code) == ["bye"]


def test_lazy_modules_stay_lazy(tmp_path):
    (tmp_path / "lazy.py").write_text("raise ImportError('an optional dependency is missing')")
    code = f"""
    import importlib.util, sys
    spec = importlib.util.spec_from_file_location("lazy", {str(tmp_path / "lazy.py")!r})
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sys.modules["lazy"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    import dsm
    dsm.barrier()
    print("fine")
    """
    assert output(code) == ["fine"]


def test_a_start_that_was_interrupted_at_its_end_goes_on():
    code = """
    import dsm
    from dsm import _runtime
    wait = _runtime.Runtime.wait
    def interrupted(self, call):
        wait(self, call)
        _runtime.Runtime.wait = wait
        raise KeyboardInterrupt
    _runtime.Runtime.wait = interrupted
    try:
        dsm.init()
    except KeyboardInterrupt:
        dsm.barrier()
        print("goes on")
    """
    assert output(code) == ["goes", "on"]


def test_caught_exit_is_no_end():
    code = """
try:
    sys.exit(3)
except SystemExit as error:
    print("caught", error.code)
"""
    assert python(HOOKS + code).stdout.split() == ["caught", "3"]


def test_exit_of_a_thread_is_no_end():
    code = """
import threading
thread = threading.Thread(target=sys.exit, args=(3,))
thread.start()
thread.join()
"""
    done = python(HOOKS + code)
    assert (done.returncode, done.stdout) == (0, "")


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DSM_PAGE_SIZE", "5000"),
        ("DSM_PAGE_SIZE", "2048"),
        ("DSM_PAGE_SIZE", "134217728"),
        ("DSM_PAGE_SIZE", "5k"),
        ("DSM_PAGE_SIZE", "k"),
        ("DSM_PAGE_SIZE", "128M"),
        ("DSM_PAGE_SIZE", "4kk"),
        ("DSM_PROGRESS", "fast"),
        ("DSM_STATS", "yes"),
        ("DSM_WATCHDOG_S", "soon"),
        ("DSM_WATCHDOG_S", "-1"),
        ("DSM_WATCHDOG_S", "nan"),
        ("DSM_CHECK", "3"),
        ("DSM_COLLECT_BYTES", "-5"),
        ("DSM_COLLECT_BYTES", "8388608T"),
        ("DSM_CACHE_BYTES", "half"),
        ("DSM_RANGE_BYTES", "1e9"),
    ],
)
def test_malformed_variable_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        _settings.settings(environ={name: value})


def test_a_malformed_size_is_shown_as_the_user_wrote_it():
    with pytest.raises(ValueError, match=r"DSM_PAGE_SIZE .* from 4096 bytes \(4k\) to 64 MiB \(64M\), not '65k'$"):
        _settings.settings(environ={"DSM_PAGE_SIZE": "65k"})
    with pytest.raises(ValueError, match=r"page_size .* 64 MiB \(64M\), not 67108865$"):
        _settings.settings(page_size=(64 << 20) + 1)
    with pytest.raises(ValueError, match=r"DSM_RANGE_BYTES must be a number of bytes below 8 EiB, .* not '8388608T'$"):
        _settings.settings(environ={"DSM_RANGE_BYTES": "8388608T"})
    with pytest.raises(ValueError, match=r"DSM_CHAOS must be a whole number from 0 to 2\*\*63 - 1, not '-1'$"):
        _settings.settings(environ={"DSM_CHAOS": "-1"})
    with pytest.raises(ValueError, match="DSM_RANGE_BYTES must be a number of bytes, as in 65536, 64k, 1M or 2G"):
        _settings.settings(environ={"DSM_RANGE_BYTES": "much"})


@pytest.mark.parametrize("name", ["DSM_PAGE_SIZE", "DSM_COLLECT_BYTES", "DSM_CACHE_BYTES", "DSM_RANGE_BYTES"])
@pytest.mark.parametrize(
    ("text", "count"),
    [("65536", 65536), ("64k", 65536), ("64 KiB", 65536), ("64kB", 65536), ("1M", 1 << 20), ("1m", 1 << 20)],
)
def test_bytes_may_have_a_unit(name, text, count):
    read = _settings.settings(environ={name: text})
    assert count in (read.page_bytes, read.collect_bytes, read.cache_bytes, read.range_bytes)


def test_large_units_are_for_what_may_be_large():
    read = _settings.settings(environ={"DSM_RANGE_BYTES": "2T", "DSM_COLLECT_BYTES": "2G"})
    assert (read.range_bytes, read.collect_bytes) == (2 << 40, 2 << 30)


def test_variables_that_dsm_does_not_know_are_found_with_the_nearest_that_it_knows():
    environ = {"DSM_PAGESIZE": "1", "DSM_WATCHDOG": "1", "DSM_HOME": "/", "DSM_TEST_PROGRAMS": "1", "DSM_STATS": "1"}
    found = {"DSM_HOME": None, "DSM_PAGESIZE": "DSM_PAGE_SIZE", "DSM_WATCHDOG": "DSM_WATCHDOG_S"}
    assert _settings.unknown({**environ, "HOME": "/"}) == found


OF_LIB = ("DSM_E_", "DSM_PROGRESS_", "DSM_OK", "DSM_AGAIN", "DSM_FOR_", "DSM_BEFORE_", "DSM_AFTER_")


def test_every_variable_that_is_read_is_known():
    named = {
        name
        for file in Path(_settings.__file__).parent.glob("*.py")
        for name in re.findall(r"\bDSM_[A-Z]+(?:_[A-Z]+)*\b", file.read_text())
    }
    lib = {name for name in named if name.startswith(OF_LIB)}
    assert _settings.VARIABLES
    assert named - lib - {"DSM_TEST", *_settings.OF_OTHERS} == set(_settings.VARIABLES)


def test_keyword_wins_over_environment():
    environ = {"DSM_PAGE_SIZE": "16384", "DSM_PROGRESS": "poll", "DSM_WATCHDOG_S": "2.5", "DSM_TRACE": "trace"}
    from_environ = _settings.settings(environ=environ)
    assert (from_environ.page_bytes, from_environ.progress) == (16384, "poll")
    assert (from_environ.watchdog_s, from_environ.trace) == (2.5, "trace")
    from_keyword = _settings.settings(8192, "spin", environ)
    assert (from_keyword.page_bytes, from_keyword.progress) == (8192, "spin")
    default = _settings.settings(environ={})
    assert (default.page_bytes, default.progress, default.stats) == (4096, "doorbell", False)
    assert default.node == _settings.node_checked("host", "") == 0


def test_malformed_variable_stops_init():
    assert "ValueError: DSM_CHECK" in python("import dsm; dsm.init()", DSM_CHECK="9").stderr


# ---- refused before anything is sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "keywords", "kind"),
    [
        ((-1,), {}, ValueError),
        (((3, -4),), {}, ValueError),
        ((2.5,), {}, TypeError),
        ((("a",),), {}, TypeError),
        (((2,) * 65,), {}, ValueError),
        ((2**70,), {}, ValueError),
        ((3, object), {}, TypeError),
        ((3, [("a", "O")]), {}, TypeError),
        ((3, "no such type"), {}, TypeError),
        ((3,), {"order": "K"}, ValueError),
        ((3,), {"order": "CF"}, ValueError),
        ((3,), {"order": None}, ValueError),
        ((3,), {"page_size": 2048}, ValueError),
        ((3,), {"page_size": 5000}, ValueError),
        ((3,), {"page_size": 0}, ValueError),
        ((3,), {"page_size": -4096}, ValueError),
        ((3,), {"page_size": 128 << 20}, ValueError),
        ((3,), {"page_size": 4096.0}, TypeError),
        ((3,), {"name": 3}, TypeError),
        ((3,), {"name": "a\0b"}, ValueError),
    ],
)
@pytest.mark.parametrize("function", ["zeros", "empty", "ones"])
def test_bad_arguments(function, arguments, keywords, kind):
    with pytest.raises(kind):
        getattr(dsm, function)(*arguments, **keywords)


@pytest.mark.parametrize(
    ("fill_value", "dtype", "kind"),
    [([1, 2], None, ValueError), (None, None, TypeError), ("x", float, ValueError), (2**70, "i8", OverflowError)],
)
def test_bad_fill_value(fill_value, dtype, kind):
    with pytest.raises(kind):
        dsm.full(3, fill_value, dtype)


@pytest.mark.parametrize(("obj", "kind"), [(None, TypeError), ([[1], [2, 3]], ValueError), ([object()], TypeError)])
def test_array_of_what_cannot_be_shared(obj, kind):
    with pytest.raises(kind):
        dsm.array(obj)


def test_too_large_for_any_range():
    with pytest.raises(MemoryError):
        dsm.zeros(2**55)
    assert dsm.zeros(3).sum() == 0


# ---- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(), 0, 1, 7, (0, 3), (3, 0, 5), (2, 3, 4), (5000,), [4, 5], np.int64(6)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zeros_is_numpys(dtype, shape, order):
    private = np.zeros(shape, dtype, order=order)
    shared = dsm.zeros(shape, dtype, order=order)
    assert type(shared) is np.ndarray
    assert shared.dtype == private.dtype
    assert shared.shape == private.shape
    assert shared.size == 0 or shared.strides == private.strides
    assert shared.flags.writeable
    assert shared.flags.aligned
    assert dsm.is_shared(shared)
    assert memory_of(shared) == bytes(shared.nbytes)
    shared[...] = private[...] = np.ones((), dtype) if np.dtype(dtype).kind != "V" else np.zeros((), dtype)
    assert memory_of(shared) == memory_of(private)
    dsm.free(shared)


def test_subarray_dtype_moves_to_the_shape():
    a = dsm.ones(3, (float, (2,)))
    assert (a.shape, a.dtype, a.sum()) == ((3, 2), float, 6)


def test_string_without_length_has_one():
    assert dsm.zeros(3, "S").dtype == np.zeros(3, "S").dtype


@pytest.mark.parametrize(
    ("fill_value", "dtype"),
    [
        (7, None),
        (True, None),
        (1 + 2j, None),
        (-0.0, None),
        (math.nan, "f4"),
        (math.inf, float),
        (3.7, int),
        ("ab", None),
        (b"abc", None),
        (np.datetime64("2020-02-20"), None),
        (np.longdouble(1) / 3, None),
        ((True, 2.5), RECORD),
        ((1, 2.0, (3, 4, 5)), ODD_RECORD),
        (0, ODD_RECORD),
    ],
    ids=str,
)
def test_full_is_numpys(fill_value, dtype):
    if isinstance(fill_value, tuple):
        private = np.zeros((700, 3), dtype)
        private[...] = fill_value
    else:
        private = np.full((700, 3), fill_value, dtype)
    for order in "CF":
        shared = dsm.full((700, 3), fill_value, dtype, order=order)
        assert shared.dtype == private.dtype
        assert shared.flags.f_contiguous == (order == "F")
        assert np.array_equal(shared, private, equal_nan=private.dtype.kind == "f")
        dsm.free(shared)


def test_minus_zero_is_kept():
    assert np.signbit(dsm.full(3, -0.0)).all()


def test_full_of_one_value_writes_no_page():
    dsm.stats(reset=True)
    a = dsm.full(100_000, 3.5, page_size=4096)
    assert a[::512].sum() == 3.5 * len(a[::512])
    assert dsm.stats()["faults_write"] == 0


def test_ones_of_every_kind():
    for dtype in ("?", "u1", "f8", "c16", "S2"):
        assert np.array_equal(dsm.ones(5, dtype), np.ones(5, dtype))


def test_like_keeps_shape_dtype_and_order():
    for function, order in ((dsm.zeros_like, "C"), (dsm.empty_like, "F")):
        model = np.ones((3, 4), "i2", order=order)
        shared = function(model, name="copy")
        assert (shared.shape, shared.dtype, shared.strides) == (model.shape, model.dtype, model.strides)
        assert shared.sum() == 0
        assert dsm.info(shared).name == "copy"
        assert function(model, float, order="C").strides == (32, 8)
    assert dsm.zeros_like([[1, 2]]).dtype == int


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_array_copies(dtype):
    source = np.zeros((3, 5), dtype, order="F")
    source[1] = np.ones((), dtype) if source.dtype.kind != "V" else np.zeros((), dtype)
    shared = dsm.array(source)
    assert dsm.is_shared(shared)
    assert (shared.dtype, shared.strides) == (source.dtype, source.strides)
    assert np.array_equal(shared, source)
    assert not np.shares_memory(shared, source)


def test_array_of_lists_scalars_and_shared():
    assert dsm.array([[1, 2], [3, 4]], float).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert dsm.array(5).shape == ()
    assert dsm.array([], order="F").shape == (0,)
    a = dsm.ones(5)
    b = dsm.array(a[1:])
    b[...] = 2
    assert a.sum() == 5
    with pytest.raises(ValueError, match="order"):
        dsm.array([1], order="A")


def test_results_are_private():
    a = dsm.ones((4, 4))
    assert not dsm.is_shared(a + a)
    assert not dsm.is_shared(a.copy())
    assert dsm.is_shared(a.T[1:, ::2])
    assert not dsm.is_shared(3)
    assert not dsm.is_shared(np.zeros(3))
    assert not dsm.is_shared([1, 2])


def test_large_and_sparse():
    a = dsm.zeros(1 << 32, "u1")
    a[0], a[-1], a[1 << 31] = 1, 2, 3
    assert (a[0], a[-1], a[1 << 31], a[1 << 30]) == (1, 2, 3, 0)
    dsm.free(a)


# ---- free ------------------------------------------------------------------------------------------------------------

VIEWS = {
    "slice": lambda a: a[1:],
    "transpose": lambda a: a.T,
    "reshape": lambda a: a.reshape(-1),
    "dtype": lambda a: a.view("u1"),
    "view of a view": lambda a: a[1:].T[::2].view(),
    "field": lambda a: a.view("f4,f4")["f1"],
    "imag": lambda a: a.view(complex).imag,
    "asarray": lambda a: np.asarray(a)[:],
    "empty": lambda a: a[:0],
}


@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS.keys())
def test_free_refuses_while_a_view_lives(make):
    a = dsm.ones((4, 4))
    view = make(a)
    with pytest.raises(BufferError, match=r"rank 0 has 1 other array over ones.*: view in test_free_refuses"):
        dsm.free(a)
    assert a.sum() == 16
    del view
    dsm.free(a)
    assert not dsm.is_shared(a)


def test_free_counts_views():
    a = dsm.ones((4, 4))
    views = [a[i] for i in range(4)]
    with pytest.raises(BufferError, match="4 other arrays"):
        dsm.free(a)
    assert views[3].sum() == 4
    views.clear()
    dsm.free(a)


def test_free_takes_the_only_view():
    a = dsm.ones((4, 4), name="only")
    a = a[1:].T
    dsm.free(a)
    assert not dsm.is_shared(a)
    with pytest.raises(ValueError, match="free"):
        dsm.free(a)


def test_free_does_not_count_names():
    a = dsm.ones(4)
    b = [a]
    dsm.free(a)
    assert not dsm.is_shared(b[0])


def test_free_of_private_memory():
    for wrong in (np.zeros(3), [1], None):
        with pytest.raises(ValueError, match="not in shared memory"):
            dsm.free(wrong)


def test_next_array_starts_from_its_own_value():
    for value in range(20):
        a = dsm.full(5000, value)
        assert (a == value).all()
        a[...] = -1
        dsm.free(a)
        del a


HOLDERS = {
    "buffer": memoryview,
    "dlpack": np.from_dlpack,
    "class": lambda a: a.view(np.recarray),
    "masked": np.ma.array,
    "strided": lambda a: as_strided(a, (2,), (8,)),
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS.keys())
def test_what_cannot_be_counted_keeps_the_addresses(hold):
    a = dsm.zeros(1000)
    held = hold(a)
    address = a.ctypes.data
    dsm.free(a)
    del a
    others = [dsm.zeros(1000) for _ in range(5)]
    assert held.nbytes > 0
    assert all(other.ctypes.data != address for other in others)


# ---- blocks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 100])
@pytest.mark.parametrize("parts", [1, 2, 3, 8, 101])
def test_split_covers_everything_once(n, parts):
    blocks = [dsm.split(n, parts, index) for index in range(parts)]
    assert [item for block in blocks for item in range(n)[block]] == list(range(n))
    lengths = [block.stop - block.start for block in blocks]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("arguments", [(-1,), (3, 0), (3, -2), (3, 2, 2), (3, 2, -1)])
def test_split_refuses(arguments):
    with pytest.raises(ValueError, match="must be"):
        dsm.split(*arguments)


def test_split_takes_whole_numbers_only():
    with pytest.raises(TypeError):
        dsm.split(3.0)
    assert dsm.split(np.int32(5)) == slice(0, 5)


def test_local_is_a_view():
    a = dsm.zeros((4, 6))
    assert dsm.local(a).base is a.base
    assert dsm.local(a, -1).shape == (4, 6)
    for wrong in (2, -3):
        with pytest.raises(ValueError, match="axis"):
            dsm.local(a, wrong)
    with pytest.raises(ValueError, match="axis"):
        dsm.local(dsm.zeros(()))
    with pytest.raises(TypeError):
        dsm.local([1, 2])


# ---- insight ---------------------------------------------------------------------------------------------------------


def test_info_of_a_view():
    a = dsm.zeros((10, 512), page_size=4096, name="grid")
    whole, part = dsm.info(a), dsm.info(a[3:5, 1:])
    assert (whole.name, whole.nbytes, whole.page_size, whole.pages) == ("grid", 40960, 4096, 10)
    assert (whole.first_page, whole.last_page) == (0, 9)
    assert (part.first_page, part.last_page, part.nbytes) == (3, 4, 40960)
    assert dsm.info(a[::-1]) == whole
    assert dsm.info(a[10:]).last_page == dsm.info(a[10:]).first_page - 1
    assert "grid" in repr(whole)
    with pytest.raises(ValueError, match="not in shared memory"):
        dsm.info(np.zeros(3))


def test_owners_are_runs_of_pages():
    a = dsm.zeros((10, 512), page_size=4096)
    assert dsm.info(a).owners == ((0, 9, None),)
    a[2:4] = 1
    dsm.barrier()
    owners = dsm.info(a).owners
    assert [first for first, _, _ in owners] == [0] + [last + 1 for _, last, _ in owners[:-1]]
    assert owners[-1][1] == 9
    assert {owner for _, _, owner in owners} <= {0, None}


def test_page_sizes():
    for page_size in (4096, 65536, 64 << 20):
        a = dsm.ones(10, page_size=page_size)
        assert dsm.info(a).page_size == page_size
        assert a.sum() == 10
        dsm.free(a)


def test_stats_are_a_mapping_that_prints_as_one_line():
    lock = dsm.Lock()
    a = dsm.zeros(5000, name="counted")
    dsm.stats(reset=True)
    with lock:
        a[0] = 1
    found = dsm.stats()
    assert found["lock_acquires"] == 1
    assert found["messages_sent"] == 0
    assert "faults_write" in found
    assert set(found) == set(found.arrays["counted"])
    assert [numbers for numbers in found.locks.values() if numbers["lock_acquires"] == 1]
    assert "\n" not in str(found)
    assert str(found).startswith("dsm stats of rank 0 of 1: ")
    assert dsm.stats(reset=True)["lock_acquires"] == 1
    assert dsm.stats()["lock_acquires"] == 0


def test_a_number_is_asked_for_by_its_key():
    with pytest.raises(AttributeError, match=r'no attribute \'faults_read\': use stats\(\)\["faults_read"\]'):
        dsm.stats().faults_read  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'faults'$"):
        dsm.stats().faults  # noqa: B018


def test_stats_tell_arrays_of_one_name_apart():
    a, b = dsm.zeros(3, name="twice"), dsm.zeros(3, name="twice")
    assert len([label for label in dsm.stats().arrays if label.startswith("twice #")]) == 2
    dsm.free(b)
    assert "twice" in dsm.stats().arrays
    dsm.free(a)
    assert "twice" not in dsm.stats().arrays


# ---- pinned ----------------------------------------------------------------------------------------------------------


def test_pinned_memory_can_be_read_and_written_by_the_kernel(tmp_path):
    a = dsm.zeros(100_000)
    path = tmp_path / "bytes"
    with dsm.pinned(a, "w") as view:
        assert view is a
        path.write_bytes(np.arange(100_000.0).tobytes())
        with path.open("rb", buffering=0) as file:
            assert file.readinto(view) == view.nbytes
    assert a[-1] == 99_999
    with dsm.pinned(a[10:20], "r") as view, dsm.pinned(a, "rw"):
        view.tofile(path)
    assert np.fromfile(path).tolist() == list(range(10, 20))


def test_pinned_views():
    a = dsm.zeros((10, 10))
    for view in (a[:0], a[10:], a[::-2, 3], dsm.zeros(()), dsm.zeros((0, 3))):
        with dsm.pinned(view, "rw") as pinned:
            assert pinned is view
    for wrong in ("", "a", "wr", None):
        with pytest.raises(ValueError, match="mode"):
            dsm.pinned(a, wrong)
    with pytest.raises(ValueError, match="not in shared memory"):
        dsm.pinned(np.zeros(3))


# ---- locks -----------------------------------------------------------------------------------------------------------


def in_thread(call):
    """Return what `call` returns, or raises, in another thread."""
    answers = queue.Queue()

    def run():
        try:
            answers.put((call(), None))
        except Exception as error:
            answers.put((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    value, error = answers.get(timeout=1)
    if error is not None:
        raise error
    return value


@pytest.fixture(params=[dsm.Lock, dsm.RLock])
def lock(request):
    return request.param()


def test_lock_is_threadings(lock):
    assert not lock.locked()
    assert lock.acquire() is True
    assert lock.locked()
    lock.release()
    assert not lock.locked()
    with lock as held:
        assert held is True
        assert lock.locked()
    with pytest.raises(RuntimeError):
        lock.release()
    assert lock.acquire(blocking=False)
    lock.release()
    assert lock.acquire(timeout=0)
    lock.release()


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ((False, 1), ValueError),
        ((True, -2), ValueError),
        ((True, math.nan), ValueError),
        ((True, 1e300), OverflowError),
    ],
)
def test_lock_refuses_bad_timeouts(lock, arguments, kind):
    with pytest.raises(kind):
        lock.acquire(*arguments)
    with pytest.raises(kind):
        threading.Lock().acquire(*arguments)
    assert not lock.locked()


def test_lock_keeps_other_threads_out(lock):
    with lock:
        assert in_thread(lambda: lock.acquire(blocking=False)) is False
        assert in_thread(lambda: lock.acquire(timeout=0)) is False
        begin = time.monotonic()
        assert in_thread(lambda: lock.acquire(timeout=0.25)) is False
        assert 0.2 < time.monotonic() - begin < 5
    assert in_thread(lambda: lock.acquire() and lock.locked() and lock.release()) is None


def test_lock_waits_longer_than_a_slice(lock):
    entered = threading.Event()

    def hold():
        with lock:
            entered.set()
            time.sleep(0.35)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(10)
    assert lock.acquire(timeout=20)
    lock.release()
    thread.join()


def test_lock_excludes(lock):
    count = [0]

    def work():
        for _ in range(200):
            with lock:
                seen = count[0]
                time.sleep(0)
                count[0] = seen + 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == [800]


def test_signal_is_served_while_waiting_and_leaves_the_queue(lock):
    class Alarm(Exception):
        pass

    def ring(number, frame):
        raise Alarm

    entered, leave = threading.Event(), threading.Event()

    def hold():
        with lock:
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(10)
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        with pytest.raises(Alarm):
            lock.acquire()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    leave.set()
    thread.join()
    assert in_thread(lambda: lock.acquire(timeout=10) and (lock.release() or True))  # nobody else got the token
    assert not lock.locked()


def test_plain_lock_is_released_by_any_thread():
    lock = dsm.Lock()
    lock.acquire()
    in_thread(lock.release)
    assert not lock.locked()


def test_rlock_belongs_to_its_thread():
    lock = dsm.RLock()
    with lock:
        assert lock.acquire(blocking=False)
        assert lock.acquire(timeout=1)
        assert "3 times" in repr(lock)
        with pytest.raises(RuntimeError, match="not acquired"):
            in_thread(lock.release)
        lock.release()
        lock.release()
        assert lock.locked()
    assert not lock.locked()
    assert "not held" in repr(lock)


def test_lock_and_counter_are_named_and_not_pickled(lock):
    assert type(lock).__name__ in repr(lock)
    for thing in (lock, dsm.Counter(), dsm.Condition(lock), dsm.Semaphore(), dsm.Event(), dsm.Barrier()):
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(thing)


def test_what_is_made_has_a_name():
    lock = dsm.Lock(name="queue")
    things = [lock, dsm.RLock(name="queue"), dsm.Counter(name="queue"), dsm.Condition(lock, name="queue"),
              dsm.Condition(name="queue"), dsm.Semaphore(name="queue"), dsm.BoundedSemaphore(2, name="queue"),
              dsm.Event(name="queue"), dsm.Barrier(name="queue")]  # fmt: skip
    for thing in things:
        assert repr(thing).startswith(f"<dsm.{type(thing).__name__} ")
        assert repr(thing).count("'queue'") == (
            2 if hasattr(thing, "_condition") or isinstance(thing, dsm.Condition) else 1
        )
    used = dsm.stats().locks
    with dsm.Lock(name="only one"):
        pass
    assert dsm.stats().locks["only one"]["lock_acquires"] == 1
    assert f"queue #{lock._number}" in used, "each name once"


@pytest.mark.parametrize(
    "make", [dsm.Lock, dsm.RLock, dsm.Counter, dsm.Condition, dsm.Semaphore, dsm.Event, dsm.Barrier]
)
def test_a_name_is_a_text(make):
    with pytest.raises(TypeError, match="name must be a string"):
        make(name=3)
    with pytest.raises(ValueError, match="null character"):
        make(name="a\0b")
    with pytest.raises(TypeError):
        make(None, None, None, "a name")  # by its keyword only


def test_counter_does_not_wrap():
    counter = dsm.Counter(2**63 - 2)
    assert counter.next() == 2**63 - 2
    for _ in range(2):
        with pytest.raises(OverflowError, match="64 bits"):
            counter.next()
    assert counter.value == 2**63 - 1


def test_counter_counts():
    counter = dsm.Counter(5)
    assert [counter.next() for _ in range(3)] == [5, 6, 7]
    assert counter.value == 8
    assert counter.value == 8
    assert dsm.Counter(-(2**63)).value == -(2**63)
    assert dsm.Counter().next() == 0


@pytest.mark.parametrize(("start", "kind"), [(2**63, ValueError), (1.5, TypeError), ("1", TypeError)])
def test_counter_refuses(start, kind):
    with pytest.raises(kind):
        dsm.Counter(start)


def test_counter_is_atomic_among_threads():
    counter, taken = dsm.Counter(), queue.Queue()

    def work():
        for _ in range(250):
            taken.put(counter.next())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken.queue) == list(range(1000))


@pytest.mark.parametrize("name", [name for name in dsm.__all__ if name != "DSMError"])
def test_docstring_says_who_calls(name):
    text = getattr(dsm, name).__doc__
    if name not in ("Info", "Stats"):
        assert text.split("\n", 1)[0].endswith((".  Collective.", ".  Local."))


def test_docstring_examples_run():
    code = """
    import doctest, dsm
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for name in ["init", *sorted(set(dsm.__all__) - {"init"})]:
        for example in finder.find(getattr(dsm, name), name, globs={}):
            runner.run(example)
    done = runner.summarize(verbose=False)
    assert done.attempted > 20, done
    raise SystemExit(done.failed)
    """
    done = python(code)
    assert done.returncode == 0, done.stdout
