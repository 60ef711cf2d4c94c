"""A prefetch brings pages without a fault, only those that were asked for, and never changes what is read."""

import time

import numpy as np
import pytest

import dsm
from dsm import _prefetch

pytestmark = pytest.mark.mpi

PAGE = 4096


def wait_until(reached):
    """The service thread does it while this one looks; a test that never gets there is ended by its timeout."""
    while not reached():
        time.sleep(0.001)


def written_by_the_last(shared, pages, page_size=PAGE):
    a = shared.zeros((pages, page_size // 8), page_size=page_size)
    if dsm.rank() == dsm.size() - 1:
        a[:] = np.arange(pages)[:, None]
    dsm.barrier()
    return a


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(("pages", "page_size"), [(1, PAGE), (300, PAGE), (1000, PAGE), (20, 256 << 10)])
def test_pages_come_while_nobody_waits(shared, of_my_node, undisturbed, pages, page_size):
    a = written_by_the_last(shared, pages, page_size)
    before, missing = dsm.stats().host, 0 if of_my_node(-1) else pages
    if dsm.rank() == 0:
        dsm.prefetch(a)
        dsm.prefetch(a)  # on their way already
        wait_until(lambda: dsm.stats().host["fetches"] - before["fetches"] >= missing)
        read = a.copy()
        if undisturbed:
            assert dsm.stats().host["fetches"] - before["fetches"] == missing
            assert dsm.stats().host["wait_fault_ns"] == before["wait_fault_ns"]
        assert (read == np.arange(pages)[:, None]).all()
    dsm.barrier()


@pytest.mark.mpi(min_size=2)
def test_touching_what_is_on_its_way(shared):
    for turn in range(1, 4):
        a = written_by_the_last(shared, 500)
        dsm.prefetch(a)
        order = np.random.default_rng(turn).permutation(500)
        for page in order[:100]:
            assert a[page, turn] == page
        dsm.barrier()
        a[dsm.rank() :: dsm.size()] = -turn
        dsm.barrier()
        dsm.prefetch(a[::-1])
        assert (a == -turn).all()
        dsm.barrier()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    ("part", "pages"),
    [
        (lambda a: a[10:20], range(10, 20)),
        (lambda a: a[::10], range(0, 100, 10)),
        (lambda a: a[99::-7, 3], range(99, -1, -7)),
        (lambda a: a[:, 5], range(100)),
        (lambda a: a[7, 5:6], [7]),
        (lambda a: a.T[::2, 4:40:9], range(4, 40, 9)),
        (lambda a: a.reshape(10, 10, -1)[2::3, 1:9:4, 1:3], [21, 25, 51, 55, 81, 85]),
        (lambda a: a[3:3], []),
    ],
)
def test_only_pages_with_elements_of_the_view(shared, of_my_node, undisturbed, part, pages):
    a = written_by_the_last(shared, 100)
    before, missing = dsm.stats().host, 0 if of_my_node(-1) else len(pages)
    if dsm.rank() == 0:
        dsm.prefetch(part(a))
        wait_until(lambda: dsm.stats().host["fetches"] - before["fetches"] >= missing)
        requested = dsm.stats().host["fetch_requests"] - before["fetch_requests"]
        read = part(a).copy()
        assert (read == part(np.tile(np.arange(100.0)[:, None], (1, a.shape[1])))).all()
        if undisturbed:
            assert requested == missing
            assert dsm.stats().host["fetches"] - before["fetches"] == missing
    dsm.barrier()


def test_nothing_is_sent_for_pages_that_are_here_or_fresh(shared, counted, undisturbed):
    fresh = shared.zeros((100, PAGE // 8), page_size=PAGE)
    mine = shared.zeros((dsm.size(), 20 * PAGE // 8), page_size=PAGE)
    mine[dsm.rank()] = 1
    dsm.barrier()
    huge = dsm.zeros(1 << 35, "u1")
    with counted() as growth:
        dsm.prefetch(fresh)
        dsm.prefetch(mine[dsm.rank()])
        dsm.prefetch(huge)
    if undisturbed:
        assert growth["messages_sent"] == 0
    dsm.free(huge)


def test_freed_while_it_comes():
    for _ in range(5):
        a = dsm.zeros((600, PAGE // 8), page_size=PAGE)
        if dsm.rank() == dsm.size() - 1:
            a[:] = 1
        dsm.barrier()
        dsm.prefetch(a)
        dsm.free(a)
        del a
    dsm.barrier()


def test_under_locks_and_barriers(shared):
    lock = dsm.Lock()
    a = shared.zeros((50, PAGE // 8), int, page_size=PAGE)
    for turn in range(1, 10):
        with lock:
            dsm.prefetch(a[::3])
            a[turn:, dsm.rank()] += 1
            dsm.prefetch(a)
        if turn % 3 == 0:
            dsm.barrier()
            dsm.prefetch(a)
            assert (a[turn:, : dsm.size()] == turn).all()
            dsm.barrier()


def test_what_cannot_be():
    for private in (np.zeros(3), [1], None):
        with pytest.raises(ValueError, match="not in shared memory"):
            dsm.prefetch(private)
    a = dsm.zeros(10)
    dsm.free(a)
    with pytest.raises(ValueError, match="freed"):
        dsm.prefetch(a)


def test_runs_cover_a_view_and_nothing_else():
    """Against each element's pages, for views of many shapes."""
    random = np.random.default_rng(5)
    for _ in range(300):
        dimensions = random.integers(1, 4)
        base = np.zeros(random.integers(1, 12, dimensions), random.choice(["u1", "f8", "V24"]))
        view = base.transpose(random.permutation(dimensions))
        view = view[tuple(slice(None, None, int(random.choice([1, 2, 3, -1, -2]))) for _ in range(dimensions))]
        page = int(random.choice([4, 16, 64]))
        start = view.__array_interface__["data"][0] - base.ctypes.data
        offsets = np.zeros(view.shape, int) + start
        for axis, stride in enumerate(view.strides):
            steps = stride * np.arange(view.shape[axis])
            offsets += steps.reshape([-1 if k == axis else 1 for k in range(dimensions)])
        expected = {at // page for first in offsets.ravel() for at in range(first, first + view.itemsize)}
        offset, length, axes = _prefetch.runs_of(view.shape, view.strides, view.itemsize, page)
        starts = np.array([start + offset])
        for stride, number in axes:
            starts = (starts[:, None] + stride * np.arange(number)).ravel()
        found = {at // page for first in starts for at in range(first, first + length)}
        assert found == expected
