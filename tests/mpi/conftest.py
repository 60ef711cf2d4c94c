"""What the tests on several ranks share.

All of them run in one process per rank, one after the other, with one dsm between them; so each frees what it
allocates, and begins and ends with a barrier.  They adapt to any number of ranks, as in
`mpiexec -n 3 python -m pytest --with-mpi tests/mpi`.  They also pass with DSM_CHECK=2, with DSM_COLLECT_BYTES=1 (a
collection at every opportunity), with DSM_CHAOS, and with nodes of several ranks (DSM_NODE), where figures that such a
run cannot have are not asserted (`undisturbed`, `exact_counts`).
"""

import contextlib
import gc
import os
import threading

import pytest
from mpi4py import MPI

import dsm

os.environ["NUMBA_NUM_THREADS"] = "4"  # whatever a launcher found fitting for programs; read when numba is imported


class Arrays:
    """Makes shared arrays as dsm does, and frees them at the end of the test."""

    def __init__(self):
        self._made = []

    def __getattr__(self, function):
        def make(*args, **keywords):
            array = getattr(dsm, function)(*args, **keywords)
            self._made.append(array)
            return array

        return make

    def free_all(self):
        while self._made:
            dsm.free(self._made.pop())


@pytest.fixture
def comm():
    """MPI between the ranks, for what is not shared memory: order in time, and comparing results."""
    return MPI.COMM_WORLD


@pytest.fixture(scope="module", autouse=True)
def _imports_are_not_searched():
    """Keep what the imports have made out of later collections: each looks at half a million objects of libraries."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def shared():
    dsm.barrier()
    arrays = Arrays()
    yield arrays
    gc.collect()
    dsm.barrier()
    arrays.free_all()


@pytest.fixture
def counted(comm):
    """A context that tells how much the statistics of this rank grew within, while no rank is outside of it."""

    @contextlib.contextmanager
    def count():
        comm.Barrier()
        before, growth = dict(dsm.stats()), {}
        comm.Barrier()
        yield growth
        comm.Barrier()
        growth |= {name: value - before[name] for name, value in dsm.stats().items()}
        comm.Barrier()

    return count


@pytest.fixture(scope="session")
def alone():
    """Whether each rank is a node, and has all faults and messages itself that its part of the program causes."""
    dsm.barrier()
    return len(dsm.stats().nodes) == dsm.size()


@pytest.fixture(scope="session")
def undisturbed():
    """Whether messages and faults are only those that the program causes, here or on another rank of the node."""
    return not (os.environ.get("DSM_COLLECT_BYTES") or os.environ.get("DSM_CHAOS"))


@pytest.fixture(scope="session")
def exact_counts(alone, undisturbed):
    """Whether this rank has only those messages and faults that its own part of the program causes."""
    return alone and undisturbed


@pytest.fixture
def of_my_node():
    """Tell whether a rank shares the memory of this one."""
    mine = next(ranks for ranks in dsm.stats().nodes if dsm.rank() in ranks)
    return lambda rank: rank % dsm.size() in mine


@pytest.fixture(scope="session")
def quick_steps(exact_counts):
    """Whether a step takes no time that grows with the pages: checks of everything and endless collections do."""
    return exact_counts and os.environ.get("DSM_CHECK") != "2"


@pytest.fixture
def in_threads():
    """Run functions at the same time, each in a thread, and raise what one of them raises."""

    def run(*functions):
        errors = []

        def guarded(function):
            try:
                function()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=guarded, args=[function]) for function in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    return run
