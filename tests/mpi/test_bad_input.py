"""Mistakes are told before a message is sent, or on every rank when ranks differ; and afterwards everything works."""

import gc
import re
import threading

import numpy as np
import pytest

import dsm

pytestmark = pytest.mark.mpi


@pytest.fixture(autouse=True)
def works_afterwards(shared):
    """After the refusal nothing is allocated, and all ranks are still in step."""
    yield
    a = shared.zeros(100, int)
    a[dsm.rank() :: dsm.size()] = 1
    dsm.barrier()
    assert a.sum() == 100


LONG = np.longdouble


def fields(last):
    return [(f"field {k}", "f8" if k < 99 else last) for k in range(100)]


def differing(common, other):
    """An argument that is `other` on the last rank."""
    return other if dsm.rank() == dsm.size() - 1 and dsm.size() > 1 else common


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: dsm.zeros(differing((10, 3), (10, 4))), ["(10, 3)", "(10, 4)"]),
        (lambda: dsm.zeros(differing(10, 1000)), ["10", "1000"]),
        (lambda: dsm.zeros(5, differing("f8", "i8")), ["float64", "int64"]),
        (lambda: dsm.zeros(5, differing("u4", "f4")), ["uint32", "float32"]),
        (lambda: dsm.zeros(5, page_size=differing(4096, 65536)), ["4096", "65536"]),
        (lambda: dsm.zeros((5, 5), order=differing("C", "F")), ["'C'", "'F'"]),
        (lambda: dsm.full(5, differing(1.0, 2.0)), ["1.0", "2.0"]),
        (lambda: dsm.full(5, differing(0.0, -0.0)), ["=0.0", "=-0.0"]),
        (
            lambda: dsm.full(5, differing(np.nan, -np.nan)),
            ["nan (bytes 000000000000f87f)", "nan (bytes 000000000000f8ff)"],
        ),
        (lambda: dsm.full(5, differing(LONG(1), LONG(1) + np.finfo(LONG).eps)), ["=1.0", "=1.0000000000000000001"]),
        (lambda: dsm.full(5, (differing(1 / 3, np.nextafter(1 / 3, 1).item()),), [("x", "f8")]), ["333,)", "337,)"]),
        (
            lambda: dsm.full(5, ([0, differing(1 / 3, np.nextafter(1 / 3, 1).item())],), [("x", "f8", 2)]),
            ["333],)", "337],)"],
        ),
        (lambda: dsm.zeros(5, fields(differing("f8", "f4"))), ["zeros(", "('field 99', '<f8')", "('field 99', '<f4')"]),
        (lambda: dsm.zeros(5, name=differing("a" * 900, "b" * 900)), ["shape=(5,)", "'aaaa", "'bbbb"]),
        (lambda: dsm.zeros(5, name=differing("\u03b1" * 999, "\u03b1" * 998 + "x")), ["\u03b1'", "x'"]),
        (lambda: dsm.zeros(5, name="a" * 999 + differing("0", "1")), ["a0'", "a1'"]),
        (lambda: differing(dsm.zeros, dsm.ones)(5), ["zeros", "ones"]),
        (lambda: dsm.array([1, 2], dtype=differing("f4", "f8")), ["float32", "float64"]),
    ],
)
def test_ranks_that_differ(make, words, comm):
    regions = len(dsm.stats().arrays)
    with pytest.raises(ValueError, match=r"rank") as caught:
        make()
    text = str(caught.value)
    assert all(word in text for word in words)
    assert "rank 0" in text.replace("ranks 0", "rank 0")
    assert str(dsm.size() - 1) in text
    assert comm.allgather(text) == [text] * dsm.size()
    assert len(dsm.stats().arrays) == regions


@pytest.mark.parametrize("page_size", [0, 1, 2048, 4095, 5000, 3 * 4096, 1 << 27, -4096])
def test_page_sizes_that_cannot_be(page_size):
    with pytest.raises(ValueError, match="page_size"):
        dsm.zeros(10, page_size=page_size)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"shape": -1}, ValueError),
        ({"shape": (3, -2)}, ValueError),
        ({"shape": 2.5}, TypeError),
        ({"shape": 3, "dtype": object}, TypeError),
        ({"shape": 3, "dtype": [("a", "i4"), ("b", "O")]}, TypeError),
        ({"shape": 3, "order": "X"}, ValueError),
        ({"shape": 3, "page_size": 4096.0}, TypeError),
        ({"shape": 3, "name": 7}, TypeError),
        ({"shape": (1 << 62, 4)}, ValueError),
    ],
)
def test_arguments_that_cannot_be(arguments, error):
    with pytest.raises(error):
        dsm.zeros(**arguments)


def test_no_message_is_sent_for_them(counted, undisturbed):
    with counted() as growth:
        for arguments in [{"page_size": 5000}, {"dtype": object}]:
            with pytest.raises((ValueError, TypeError)):
                dsm.zeros(3, **arguments)
        with pytest.raises(ValueError, match="negative"):
            dsm.zeros(-3)
    if undisturbed:
        assert growth["messages_sent"] == 0


def test_array_that_rank_0_cannot_make():
    with pytest.raises(ValueError, match="inhomogeneous"):
        dsm.array([[1, 2], [3]] if dsm.rank() == 0 else None)
    with pytest.raises(TypeError, match="object"):
        dsm.array([object()] if dsm.rank() == 0 else None)


class Undecodable:
    def __array__(self, dtype=None, copy=None):
        raise UnicodeError("no letters")


def test_a_special_kind_of_error_is_of_its_general_kind_on_the_others():
    with pytest.raises(ValueError, match="no letters"):
        dsm.array(Undecodable() if dsm.rank() == 0 else None)


def test_more_than_fits_the_range():
    with pytest.raises(MemoryError):
        dsm.zeros(1 << 60, np.uint8)


@pytest.mark.mpi(min_size=2)
def test_ranks_that_free_different_arrays():
    """They look alike, and are told apart in the error."""
    a, b = dsm.zeros(3), dsm.zeros(3)
    with pytest.raises(ValueError, match="rank") as caught:
        dsm.free(differing(a, b))
    calls = re.findall(r"free\(zeros\(\(3,\), float64\) #\d+\)", str(caught.value))
    assert len(set(calls)) == 2
    dsm.free(a)
    dsm.free(b)


@pytest.mark.parametrize("where", [0, -1])
def test_free_with_a_view_alive_on_one_rank(where, comm):
    holder = where % dsm.size()
    a = dsm.zeros((10, 10), int, name="held")
    a[dsm.rank() % 10] = 5
    view = a[2:4] if dsm.rank() == holder else None
    with pytest.raises(BufferError, match=f"rank {holder} ") as caught:
        dsm.free(a)
    assert comm.allgather(str(caught.value)) == [str(caught.value)] * dsm.size()
    dsm.barrier()  # the array is as it was, and works
    assert (a[: min(10, dsm.size())] == 5).all()
    dsm.barrier()
    a[dsm.rank() % 10] = 6
    dsm.barrier()
    assert (a[: min(10, dsm.size())] == 6).all()
    del view, caught
    dsm.barrier()
    dsm.free(a)


class Holder:
    __slots__ = ("__dict__", "slot")


HELD = Holder()


def hold(view, where):
    """Hold a view in some place, which ends with what is returned."""
    if where == "attribute":
        HELD.grid = view
    elif where == "slot":
        HELD.slot = view
    elif where == "class":
        Holder.common = view
    elif where == "containers":
        HELD.tables = {"first": [0, (view, 1)]}
    elif where == "closure":
        HELD.call = lambda: view
    elif where == "thread":
        return held_by_thread(view)
    elif where == "traceback":
        try:
            view[0, 0] / [0][1]
        except IndexError as error:
            HELD.error = error
    elif where == "buffer":
        HELD.buffer = memoryview(view)
    return None


def held_by_thread(view):
    end = threading.Event()

    def work(of_the_thread):
        end.wait()

    thread = threading.Thread(target=work, args=[view])
    thread.start()

    def leave():
        end.set()
        thread.join()

    return leave


PLACES = {
    "attribute": r"test_bad_input\.HELD\.grid",
    "slot": r"test_bad_input\.HELD\.slot",
    "class": r"test_bad_input\.Holder\.common",
    "containers": r"test_bad_input\.HELD\.tables\['first'\]\[1\]\[0\]",
    "closure": r"test_bad_input\.HELD\.call\.__closure__\[0\]\.cell_contents",
    "thread": r"of_the_thread in held_by_thread\.<locals>\.work\(\) \(test_bad_input\.py:\d+\)",
    "traceback": r"view in hold\(\) \(test_bad_input\.py:\d+\)",
    "buffer": r"test_bad_input\.HELD\.buffer<memoryview><managedbuffer>",
    "variable": r"view in test_free_says_where_the_views_are\(\) \(test_bad_input\.py:\d+\)",
}


@pytest.mark.parametrize("where", PLACES)
def test_free_says_where_the_views_are(where, comm):
    last = dsm.size() - 1
    a = dsm.zeros((10, 10), name="held")
    view = a[2:4] if dsm.rank() == last else None
    leave = hold(view, where) if dsm.rank() == last else None
    if where != "variable":
        del view
    refusal = rf"rank {last} has 1 other array over held, to be deleted first: .*{PLACES[where]}$"
    for _ in range(2):  # the search itself leaves nothing
        with pytest.raises(BufferError, match=refusal):
            dsm.free(a)
    if leave is not None:
        leave()
        del leave
    view = None
    vars(HELD).clear()
    HELD.slot = Holder.common = None
    comm.Barrier()
    dsm.free(a)


def test_free_names_three_arrays_and_counts_the_others():
    a = dsm.zeros((10, 10), name="held")
    views = list(a[1:8])
    with pytest.raises(BufferError, match=r"has 7 other arrays over held.*: (views\[\d\] in .*, ){2}.* and 4 more"):
        dsm.free(a)
    views.clear()
    dsm.free(a)


def test_the_search_leaves_variables_alone():
    a = dsm.zeros(100)
    view = a[1:]
    variables = locals()
    with pytest.raises(BufferError, match="view"):
        dsm.free(a)
    assert variables["view"] is view
    variables.clear()
    del view
    dsm.free(a)


def test_dead_objects_that_hold_each_other_do_not_stop_free():
    a = dsm.zeros(100)
    gc.disable()
    one, other = Holder(), Holder()
    one.other, other.other, one.view = other, one, a[1:]
    del one, other
    try:
        dsm.free(a)
    finally:
        gc.enable()


@pytest.mark.parametrize("what", [np.zeros(3), [1, 2], None])
def test_what_is_not_shared(what):
    for call in (dsm.free, dsm.info, dsm.pinned):
        with pytest.raises(ValueError, match="not in shared memory"):
            call(what)
    assert not dsm.is_shared(what)


def test_freed_arrays():
    a = dsm.zeros(10)
    dsm.free(a)
    assert not dsm.is_shared(a)
    with pytest.raises(ValueError, match="freed"):
        dsm.free(a)


def test_init_twice():
    dsm.barrier()
    with pytest.raises(RuntimeError, match="already started"):
        dsm.init()


def test_counter_that_cannot_be():
    with pytest.raises(ValueError, match="64 bits"):
        dsm.Counter(1 << 63)
    with pytest.raises(TypeError):
        dsm.Counter(0.5)


def make_and_meet(make):
    """Some things are compared when they are made, since they have memory; others at the next collective call."""
    make()
    dsm.barrier()


@pytest.mark.mpi(min_size=2)
def test_counters_that_start_differently():
    with pytest.raises(ValueError, match=r"what was made differs.*Counter\(start=2\)"):
        make_and_meet(lambda: dsm.Counter(differing(1, 2)))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    "make", [dsm.Lock, dsm.RLock, dsm.Counter, dsm.Condition, dsm.Semaphore, dsm.Event, dsm.Barrier]
)
def test_names_that_differ(make):
    with pytest.raises(ValueError, match=f"what was made differs between ranks.*{make.__name__}.*name='1'"):
        make_and_meet(lambda: make(name=differing("0", "1")))


@pytest.mark.mpi(min_size=2)
def test_things_made_in_different_order():
    """The next collective call tells it, whichever that is, and afterwards things can be made again."""
    kinds = [dsm.Lock, dsm.Event]
    for kind in differing(kinds, kinds[::-1]):
        kind(name="a")
    dsm.Event()
    with pytest.raises(ValueError, match=r"Lock\(name='a'\), Event\(name='a'\), Event\(\), then.*zeros"):
        dsm.zeros(10)
    things = [dsm.Lock(), dsm.Event(), dsm.Counter()]
    dsm.barrier()
    assert len({thing._number for thing in things}) == 1


@pytest.mark.mpi(min_size=2)
def test_more_made_on_one_rank():
    for _ in range(differing(1000, 1001)):
        dsm.Event(name="pivot")
    with pytest.raises(ValueError, match=r"1000 x Event\(name='pivot'\), then barrier\(\).*1001 x Event"):
        dsm.barrier()


def test_a_counter_that_is_full(comm):
    """Whoever asks is told, and nothing is added; so for as many counters as each rank has one."""
    for _ in range(dsm.size()):
        counter = dsm.Counter(2**63 - 1)
        with pytest.raises(OverflowError, match="64 bits"):
            counter.next()
        assert counter.value == 2**63 - 1
    comm.Barrier()


def test_pin_modes():
    a = dsm.zeros(10)
    with pytest.raises(ValueError, match="mode"):
        dsm.pinned(a, "x")
    dsm.free(a)
