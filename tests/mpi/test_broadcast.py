"""`dsm.broadcast` brings a view to every rank, changes nothing, and is refused alike on all ranks."""

import numpy as np
import pytest

import dsm

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize("root", [0, -1])
def test_reading_afterwards_faults_nowhere(shared, undisturbed, root):
    root %= dsm.size()
    a = shared.zeros((300, 512))
    for turn in range(1, 4):
        if dsm.rank() == root:
            a[:] = np.arange(300)[:, None] * turn
        dsm.broadcast(a, root)
        dsm.stats(reset=True)
        assert (a == np.arange(300)[:, None] * turn).all()
        if undisturbed:
            assert dsm.stats()["faults_read"] == 0
        dsm.barrier()


def test_what_others_wrote_stays(shared):
    a = shared.zeros(512 * dsm.size())
    dsm.local(a)[:] = dsm.rank() + 1
    dsm.broadcast(a)
    assert (a == np.repeat(np.arange(dsm.size()) + 1, 512)).all()
    dsm.barrier()


def test_parts_and_nothing(shared):
    a = shared.zeros((64, 512))
    if dsm.rank() == 0:
        a[:] = 1
    dsm.broadcast(a[10:20:3, ::2])
    dsm.broadcast(a[5:5])
    assert (a == 1).all()
    dsm.barrier()


def test_bad_input(shared):
    a = shared.zeros(10)
    for root in (-1, dsm.size()):
        with pytest.raises(ValueError, match="root must be a rank"):
            dsm.broadcast(a, root)
    with pytest.raises(ValueError, match="broadcast"):
        dsm.broadcast(np.zeros(3))
    dsm.barrier()


@pytest.mark.mpi(min_size=2)
def test_ranks_that_disagree_are_told_on_all(shared):
    a = shared.zeros(10)
    with pytest.raises(ValueError, match="broadcast"):
        dsm.broadcast(a, dsm.rank() % 2)
    with pytest.raises(ValueError, match="broadcast"):
        dsm.broadcast(a[dsm.rank() % 2 :])
