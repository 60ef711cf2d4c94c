"""The kernel and MPI on shared memory: right while pinned, refused by the operating system otherwise."""

import contextlib
import os

import numpy as np
import pytest
from mpi4py import MPI

import dsm

pytestmark = pytest.mark.mpi

PAGE = 4096


def written(turn):
    return (np.arange(50 * PAGE // 8) * (turn + 1)) % 1000.0


def test_write_and_tofile_of_pinned_memory(shared, tmp_path):
    a = shared.zeros(50 * PAGE // 8, page_size=PAGE)
    for turn in range(3):
        a[dsm.rank() :: dsm.size()] = written(turn)[dsm.rank() :: dsm.size()]
        dsm.barrier()
        with dsm.pinned(a, "r") as view:
            assert view is a
            descriptor = os.open(tmp_path / "raw", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            assert os.write(descriptor, a) == a.nbytes
            os.close(descriptor)
            a.tofile(tmp_path / "tofile")
            np.save(tmp_path / "save.npy", a)
        for back in (np.fromfile(tmp_path / "raw"), np.fromfile(tmp_path / "tofile"), np.load(tmp_path / "save.npy")):
            assert np.array_equal(back, written(turn))
        dsm.barrier()


@pytest.mark.mpi(min_size=2)
def test_write_of_memory_that_is_not_pinned(shared, tmp_path):
    """Pages of another node: the error of the operating system, not wrong data and not a hang.  Else it works."""
    a = shared.zeros(50 * PAGE // 8, page_size=PAGE)
    if dsm.rank() == 0:
        a[:] = 1
    dsm.barrier()
    nodes = dsm.stats().nodes
    descriptor = os.open(tmp_path / "raw", os.O_RDWR | os.O_CREAT)
    if len(nodes) == 1:
        assert os.write(descriptor, a) == a.nbytes
        a.tofile(tmp_path / "tofile")
        assert (np.fromfile(tmp_path / "tofile") == 1).all()
    elif dsm.rank() not in nodes[0]:
        with pytest.raises(OSError, match="Bad address"):
            os.write(descriptor, a)
        with pytest.raises(OSError, match="requested and"):  # "204800 requested and 0 written"
            a.tofile(tmp_path / "tofile")
        with dsm.pinned(a):
            a.tofile(tmp_path / "tofile")
        assert (np.fromfile(tmp_path / "tofile") == 1).all()
    os.close(descriptor)
    dsm.barrier()
    assert (a == 1).all()


def test_read_into_pinned_memory(shared, tmp_path):
    a = shared.zeros((dsm.size(), 10 * PAGE // 8), page_size=PAGE)
    (np.arange(a[0].size) + 0.5).tofile(tmp_path / "in")
    mine = a[dsm.rank()]
    with dsm.pinned(mine, "w"), open(tmp_path / "in", "rb", buffering=0) as file:
        assert file.readinto(mine) == mine.nbytes
    dsm.barrier()
    assert (a == np.arange(a[0].size) + 0.5).all()


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("count", [1, 8, 100, 20_000, 200_000])
def test_mpi_between_pinned_arrays(shared, comm, count):
    """Small messages go through MPI's own buffers, large ones through the kernel, from page to page."""
    a = shared.zeros((dsm.size(), count), page_size=PAGE)
    b = shared.zeros((dsm.size(), count), page_size=PAGE)
    before, after = (dsm.rank() - 1) % dsm.size(), (dsm.rank() + 1) % dsm.size()
    a[before] = np.arange(count) + before  # row r is written by rank r + 1, and sent by rank r
    dsm.barrier()
    with dsm.pinned(a[dsm.rank()], "r") as outgoing, dsm.pinned(b[dsm.rank()], "w") as incoming:
        request = comm.Irecv([incoming, MPI.DOUBLE], source=before)
        comm.Send([outgoing, MPI.DOUBLE], dest=after)
        request.Wait()
    dsm.barrier()
    senders = (np.arange(dsm.size()) - 1) % dsm.size()
    assert np.array_equal(b, np.arange(count) + senders[:, None])


@pytest.mark.mpi(min_size=2)
def test_neighbours_write_the_pages_that_are_pinned_for_writing(shared, tmp_path):
    """The kernel writes rank 0's bytes while the other ranks write theirs in the same pages."""
    halves = shared.zeros((20, 2, PAGE // 2), np.uint8, page_size=PAGE)
    for turn in range(1, 11):
        if dsm.rank() == 0:
            with dsm.pinned(halves, "w"):
                for page in range(20):
                    data = bytes([turn]) * (PAGE // 2)
                    with pipe_with(data) as source, open(source, "rb", buffering=0, closefd=False) as file:
                        assert file.readinto(memoryview(halves[page, 0])) == PAGE // 2
        else:
            mine = halves[:, 1, dsm.rank() - 1 :: dsm.size() - 1]
            mine[...] = 50 + turn + dsm.rank()
        dsm.barrier()
        assert (halves[:, 0] == turn).all()
        for rank in range(1, dsm.size()):
            assert (halves[:, 1, rank - 1 :: dsm.size() - 1] == 50 + turn + rank).all()
        dsm.barrier()


@contextlib.contextmanager
def pipe_with(data):
    source, sink = os.pipe()
    os.write(sink, data)
    yield source
    os.close(source)
    os.close(sink)


def test_pinned_across_barriers_and_locks(shared, tmp_path):
    """What an acquire or a barrier brings is there for the kernel at once, and what the kernel wrote goes out."""
    lock = dsm.Lock()
    a = shared.zeros((dsm.size(), PAGE // 8), int, page_size=2 * PAGE)  # two ranks' rows in a page
    total = shared.zeros(1, int)
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    with dsm.pinned(a, "rw"), dsm.pinned(total, "rw"):
        for turn in range(1, 20):
            data = np.full(PAGE // 8, turn * (dsm.rank() + 1))
            os.pwrite(descriptor, data, 0)
            assert os.preadv(descriptor, [a[dsm.rank()]], 0) == PAGE
            dsm.barrier()
            assert os.pwrite(descriptor, a, 0) == a.nbytes
            back = np.fromfile(tmp_path / "file", int, count=a.size).reshape(a.shape)
            assert (back == turn * np.arange(1, dsm.size() + 1)[:, None]).all()
            with lock:
                assert os.pwrite(descriptor, total, 0) == 8
                before = int(np.fromfile(tmp_path / "file", int, count=1)[0])
                assert before == total[0]
                total[0] = before + 1
            dsm.barrier()
            assert total[0] == turn * dsm.size()
            dsm.barrier()
    os.close(descriptor)


@pytest.mark.mpi(min_size=2)
def test_served_while_pinned_for_writing(shared, comm):
    """A pinned page is not protected when a peer asks for it; the writes that follow must be noticed all the same."""
    lock = dsm.Lock()
    a = shared.zeros(PAGE // 8, int, page_size=PAGE)
    if dsm.rank() == 0:
        with dsm.pinned(a, "w"):
            for turn in range(1, 30):
                with lock:
                    a[0] = turn
                comm.Barrier()
                comm.Barrier()  # the others have a copy now
        dsm.barrier()
    else:
        for turn in range(1, 30):
            comm.Barrier()
            with lock:
                assert a[0] == turn
                a[dsm.rank()] += 1
            comm.Barrier()
        dsm.barrier()
    assert a[: dsm.size()].tolist() == [29] * dsm.size()


def test_pins_nest_and_end_with_an_exception(shared, tmp_path):
    a = shared.zeros(4 * PAGE // 8, page_size=PAGE)

    def fail_while_pinned():
        with dsm.pinned(a, "w"), dsm.pinned(a[10:20], "r"), dsm.pinned(a, "rw"):
            a[:] = 1
            raise KeyError

    with pytest.raises(KeyError):
        fail_while_pinned()
    with dsm.pinned(a, "rw"):
        with dsm.pinned(a[5:7], "r"):
            pass
        a.tofile(tmp_path / "still pinned")
    dsm.barrier()
    assert (a == 1).all()
    with dsm.pinned(a[:0]):
        pass
