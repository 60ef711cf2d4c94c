"""Ranks write different bytes of one page at the same time, and nobody's are lost."""

import numpy as np
import pytest

import dsm

pytestmark = pytest.mark.mpi

PAGE = 4096


def test_neighbouring_bytes_belong_to_different_ranks(shared):
    a = shared.zeros(3 * PAGE, np.uint8, page_size=PAGE)
    owner = np.arange(a.size) % dsm.size()
    for turn in range(20):
        a[dsm.rank() :: dsm.size()] = (7 * dsm.rank() + turn) % 256
        dsm.barrier()
        assert np.array_equal(a, (7 * owner + turn) % 256)
        dsm.barrier()


def test_bytes_of_many_intervals_that_nobody_read_in_between(shared):
    """Several intervals of every writer are fetched at once."""
    a = shared.zeros(2 * PAGE, np.uint8, page_size=PAGE)
    mine = a[dsm.rank() :: dsm.size()]
    for turn in range(30):
        mine[turn::30] = turn + 1
        dsm.barrier()
    expected = np.zeros(a.size, np.uint8)
    for rank in range(dsm.size()):
        theirs = expected[rank :: dsm.size()]
        for turn in range(30):
            theirs[turn::30] = turn + 1
    assert np.array_equal(a, expected)


def test_a_byte_set_back_within_one_interval_disturbs_nobody(shared):
    """What a rank wrote and took back is not a change, and must not overwrite a neighbour's."""
    a = shared.full(PAGE, 9, np.uint8, page_size=PAGE)
    a[dsm.rank() :: dsm.size()] = 1
    a[dsm.rank() :: dsm.size()] = 9
    if dsm.rank() == 0:
        a[0] = 5
    dsm.barrier()
    assert a[0] == 5
    assert (a[1:] == 9).all()


@pytest.mark.parametrize("word", [np.uint16, np.uint32, np.float64])
def test_bytes_of_one_word(shared, word):
    """Ranks share words down to their bytes."""
    words = shared.zeros(100, word, page_size=PAGE)
    as_bytes = words.view(np.uint8)
    for turn in range(5):
        as_bytes[dsm.rank() :: dsm.size()] = np.arange(as_bytes.size)[dsm.rank() :: dsm.size()] % 200 + turn
        dsm.barrier()
        assert np.array_equal(as_bytes, (np.arange(as_bytes.size) % 200 + turn).astype(np.uint8))
        dsm.barrier()


def test_fields_of_one_structured_dtype(shared):
    kinds = ["u1", "<f8", "?", "<i2", "<c16", "S3"]
    dtype = np.dtype([(f"of rank {rank}", kinds[rank % len(kinds)]) for rank in range(dsm.size())])
    a = shared.zeros(500, dtype, page_size=PAGE)
    for turn in range(4):
        field = a[dtype.names[dsm.rank()]]
        field[:] = (np.arange(500) + turn) % 7
        dsm.barrier()
        for name in dtype.names:
            assert np.array_equal(a[name], ((np.arange(500) + turn) % 7).astype(dtype[name]))
        dsm.barrier()


def test_rows_that_straddle_pages(shared):
    """Rows of 4,000 bytes: each page holds the end of one and the beginning of the next."""
    a = shared.zeros((60, 1000), np.float32, page_size=PAGE)
    rows = np.arange(60)
    for turn in range(5):
        a[dsm.rank() :: dsm.size()] = 100 * rows[dsm.rank() :: dsm.size(), None] + turn
        dsm.barrier()
        assert (a == 100 * rows[:, None] + turn).all()
        dsm.barrier()


def test_writing_while_others_read_the_rest_of_the_page(shared):
    """Only the bytes that somebody writes are out of bounds for the others, not their page."""
    a = shared.zeros(PAGE // 8, page_size=PAGE)
    quiet = slice(2 * dsm.size(), None)
    if dsm.rank() == 0:
        a[quiet] = 4.5
    dsm.barrier()
    for turn in range(50):
        a[dsm.rank()] = turn
        assert (a[quiet] == 4.5).all()
        dsm.barrier()
        assert (a[: dsm.size()] == turn).all()
        dsm.barrier()


def test_copy_taken_between_1_2_1(shared, comm):
    """A peer fetches the page while it holds 2; the 1 that follows must reach it although it is what the twin held."""
    lock, other_lock = dsm.Lock(), dsm.Lock()
    a = shared.zeros(PAGE // 8, page_size=PAGE)
    if dsm.rank() == 0:
        a[0] = 1
    dsm.barrier()
    writer, reader = 0, dsm.size() - 1
    for turn in range(10):
        if dsm.rank() == writer:
            with other_lock:
                a[100] = turn
            lock.acquire()
            a[0] = 2
        comm.Barrier()  # the writer is in the middle of its interval
        if dsm.rank() == reader and reader != writer:
            with other_lock:
                assert a[100] == turn  # takes a copy of the page, with the 2 in it
        comm.Barrier()
        if dsm.rank() == writer:
            a[0] = 1
            lock.release()
        comm.Barrier()
        with lock:
            assert a[0] == 1
            assert a[100] == turn
        dsm.barrier()


def test_1_2_1_from_barrier_to_barrier(shared):
    a = shared.ones(1, np.uint8)
    for turn in range(20):
        if dsm.rank() == turn % dsm.size():
            a[0] = 2
        dsm.barrier()
        if dsm.rank() % 2:
            assert a[0] == 2
        dsm.barrier()
        if dsm.rank() == turn % dsm.size():
            a[0] = 1
        dsm.barrier()
        assert a[0] == 1
        dsm.barrier()


def test_diff_made_on_top_of_diffs_that_the_reader_was_never_told_of(shared, comm):
    """Rank 1 writes over rank 0's value and still has its interval open when rank 2 fetches the page from both."""
    first, last = dsm.Lock(), dsm.Lock()
    ranks = [k % dsm.size() for k in range(3)]
    a = shared.zeros(PAGE // 8, page_size=PAGE)
    for turn in range(1, 10):
        if dsm.rank() == ranks[0]:
            with first:
                a[0] = turn
        comm.Barrier()
        if dsm.rank() == ranks[1]:
            with last:
                a[10] = turn
            first.acquire()
            assert a[0] == turn
            a[0] = 1000 + turn
            a[1] = turn
        comm.Barrier()
        if dsm.rank() == ranks[2] and dsm.size() > 2:
            with last:
                assert a[10] == turn
        comm.Barrier()
        if dsm.rank() == ranks[1]:
            first.release()
        comm.Barrier()
        if dsm.rank() == ranks[2]:
            with first:
                assert a[:2].tolist() == [1000 + turn, turn]
        dsm.barrier()
        assert a[[0, 1, 10]].tolist() == [1000 + turn, turn, turn]
        dsm.barrier()


def test_pages_written_by_all_and_read_by_one(shared):
    """Every page has as many writers as there are ranks, and one rank gathers all of them in one sweep."""
    a = shared.zeros((200, PAGE // 8), page_size=PAGE)
    for turn in range(3):
        a[:, dsm.rank() :: dsm.size()] = 10 * dsm.rank() + turn
        dsm.barrier()
        if dsm.rank() == turn % dsm.size():
            assert np.array_equal(a[117], 10 * (np.arange(PAGE // 8) % dsm.size()) + turn)
            assert (a == a[0]).all()
        dsm.barrier()


def test_whole_array_moves_from_rank_to_rank(shared):
    a = shared.zeros((64, PAGE), np.uint8, page_size=PAGE)
    for turn in range(3 * dsm.size()):
        if dsm.rank() == turn % dsm.size():
            assert (a == turn % 256).all()
            a += 1
        dsm.barrier()
    assert (a == 3 * dsm.size()).all()
