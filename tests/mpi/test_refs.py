"""Tokens for views: the same memory on the rank that opens them, and a clear error where there is none."""

import dataclasses
import gc
import pickle

import numpy as np
import pytest

import dsm

pytestmark = pytest.mark.mpi

RECORD = np.dtype([("flag", "?"), ("weight", ">f8")], align=True)


def views(shared):
    a = shared.zeros((12, 10), int, order="F")
    records = shared.zeros(20, RECORD)
    scalar = shared.zeros(())
    return [
        a,
        a[3:7],
        a[::-2, 1::3],
        a.T[2],
        a[5, 5:6],
        a[12:],
        a[:0, ::-1],
        records,
        records["weight"][::-1],
        scalar,
        shared.zeros((0, 3)),
        np.broadcast_to(a[1], (4, 10)),
        a.T.view("u1")[1::2, 3:],
    ]


def same_memory(a, b):
    return (a.shape, a.dtype, a.flags.writeable) == (b.shape, b.dtype, b.flags.writeable) and (
        a.size == 0 or (a.strides == b.strides and a.ctypes.data == b.ctypes.data)
    )


def test_every_rank_opens_what_another_one_names(shared, comm):
    for view in views(shared):
        token = dsm.ref(view)
        assert len(pickle.dumps(token)) < 600
        for other in comm.allgather(token):
            opened = other.open()
            assert type(opened) is np.ndarray
            assert dsm.is_shared(opened)
            assert same_memory(opened, view)


def test_work_is_sent_to_the_next_rank(shared, comm):
    a = shared.zeros((dsm.size(), 1000), int)
    before, after = (dsm.rank() - 1) % dsm.size(), (dsm.rank() + 1) % dsm.size()
    token = comm.sendrecv(dsm.ref(a[dsm.rank()]), dest=after, source=before)
    token.open()[:] = dsm.rank() + 1
    dsm.barrier()
    assert (a == (np.arange(dsm.size())[:, None] + 1) % dsm.size() + 1).all()


def test_memory_without_an_array():
    """The array object goes, the memory stays: a token finds it again, and then it counts for free."""
    a = dsm.zeros(1000, int)
    a[dsm.rank() :: dsm.size()] = 3
    token = dsm.ref(a[10:])
    dsm.barrier()
    del a
    gc.collect()
    opened = token.open()
    assert (opened == 3).all()
    again = token.open()
    with pytest.raises(BufferError, match="1 other array"):
        dsm.free(opened)
    del again
    dsm.barrier()
    dsm.free(opened)
    with pytest.raises(ValueError, match="freed"):
        token.open()


def test_what_cannot_be_opened(shared):
    a = shared.zeros(1000, page_size=4096)
    token = dsm.ref(a[10:20])
    freed = dsm.zeros(10)
    of_freed = dsm.ref(freed)
    dsm.free(freed)
    with pytest.raises(ValueError, match="freed"):
        of_freed.open()
    with pytest.raises(ValueError, match="another job"):
        dataclasses.replace(token, job=token.job ^ 1).open()
    for wrong in ({"offset": 7999}, {"offset": -8}, {"offset": 1 << 70}, {"shape": (1000,)}, {"strides": (-16,)}):
        with pytest.raises((ValueError, TypeError, OverflowError)):
            dataclasses.replace(token, **wrong).open()
    for private in (np.zeros(3), a + 1, [1], None):
        with pytest.raises(ValueError, match=r"dsm\.ref.*not in shared memory"):
            dsm.ref(private)
