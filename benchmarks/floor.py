"""The floor: what the dsm programs of the suite use of dsm, over memory that the ranks of one host share anyway.

The same program runs on it unchanged: no fault, no twin, no message, only loads and stores.  So this is the least that
sharing memory on one host can cost, but for huge pages: the arrays lie in windows of `MPI.Win.Allocate_shared`, which
have none on most systems, while dsm asks for them.  Barrier and locks are counters in such memory, which compiled loops
change atomically and wait for.  These are the fastest of the ways that were tried.  With a core for each of two ranks
the barrier takes 0.4 us, where comm.Barrier takes 2.4 with MPICH and 0.27 with Open MPI; a turn under the lock takes
0.6 us, where mpi4py's Mutex takes hundreds.  A lock with tickets, which serves its ranks in turn as dsm's does, takes
0.6 us as well, and much more where a rank has no core.

The atomic operations order the plain loads and stores around them, on x86-64 and on AArch64.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir
from mpi4py import MPI
from numba import types
from numba.extending import intrinsic

import dsm

T = TypeVar("T")
PAGE = 4096
# Counters that different ranks wait for lie apart, so that a change of one does not take the other's cache line.
APART_BYTES = 128
OBJECT_BYTES = 2 * APART_BYTES
OBJECTS = 1024  # locks, conditions and events in one window
LOOKS = 2000  # a few microseconds, before the core goes to others
_loop = numba.njit(cache=True, nogil=True)
_sched_yield = types.ExternalFunction("sched_yield", types.int32())


@intrinsic
def _add(_: Any, address: Any, value: Any) -> Any:
    """Add to the int64 at an address, atomically, and return what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _replace(_: Any, address: Any, value: Any, other: Any) -> Any:
    """Set the int64 at an address to `other` if it is `value`, atomically, and return what it was."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.extract_value(builder.cmpxchg(pointer, *arguments[1:], "seq_cst"), 0)

    return types.int64(types.int64, types.int64, types.int64), generate


@intrinsic
def _load(_: Any, address: Any) -> Any:
    """Read the int64 at an address, before all that is read or written later."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(types.int64), generate


@_loop
def _wait_while(address: int, value: int) -> None:
    """Wait as long as the int64 at an address is `value`."""
    looks = 0
    while _load(address) == value:
        looks += 1
        if looks > LOOKS:
            _sched_yield()


@_loop
def _barrier(address: int, ranks: int) -> None:
    """Count those that arrived; the last one begins the next generation, for which the others wait."""
    generation = _load(address + APART_BYTES)
    if _add(address, 1) == ranks - 1:
        _add(address, -ranks)
        _add(address + APART_BYTES, 1)
    else:
        _wait_while(address + APART_BYTES, generation)


@_loop
def _acquire(address: int) -> None:
    """Take a lock, which is 1 while somebody has it."""
    while _replace(address, 0, 1):
        _wait_while(address, 1)


@_loop
def _release(address: int) -> None:
    _add(address, -1)


@_loop
def _replace_once(address: int, value: int, other: int) -> None:
    _replace(address, value, other)


@_loop
def _wait_for_news(address: int) -> None:
    """Give up a lock until another rank has told news, and take it again."""
    news = _load(address + APART_BYTES)
    _release(address)
    _wait_while(address + APART_BYTES, news)
    _acquire(address)


@_loop
def _tell_news(address: int) -> None:
    _add(address + APART_BYTES, 1)


class Lock:
    """A lock of all ranks, and a condition of it."""

    def __init__(self, address: int) -> None:
        self._address = address

    def acquire(self) -> bool:
        """Take it."""
        _acquire(self._address)
        return True

    def release(self) -> None:
        """Give it up."""
        _release(self._address)

    def __enter__(self) -> None:
        _acquire(self._address)

    def __exit__(self, *_: object) -> None:
        _release(self._address)


class Condition(Lock):
    """A lock whose holder may wait for what others change."""

    def wait(self) -> bool:
        """Wait until somebody notifies.  All who wait wake up, as many as there are."""
        _wait_for_news(self._address)
        return True

    def wait_for(self, predicate: Callable[[], T]) -> T:
        """Wait until the predicate holds."""
        while not (found := predicate()):
            _wait_for_news(self._address)
        return found

    def notify(self) -> None:
        """Wake those who wait."""
        _tell_news(self._address)

    notify_all = notify


class Event:
    """What some rank sets and others wait for."""

    def __init__(self, address: int) -> None:
        self._address = address

    def set(self) -> None:
        """Set it."""
        _replace_once(self._address, 0, 1)

    def clear(self) -> None:
        """Clear it."""
        _replace_once(self._address, 1, 0)

    def wait(self) -> bool:
        """Wait until it is set."""
        _wait_while(self._address, 0)
        return True


class Floor:
    """Stands in for the module dsm.  All its methods but `rank`, `size` and `split` are collective.

    Parameters
    ----------
    comm : MPI.Intracomm
        Its ranks must all be on one host: `on_one_host` tells.
    """

    def __init__(self, comm: MPI.Intracomm) -> None:
        self._comm, self._rank, self._size = comm, comm.rank, comm.size
        self._windows: list[MPI.Win] = []
        self._objects: Iterator[int] = iter(())
        self._barrier = self._object()

    def __enter__(self) -> Floor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # else other ranks may not come here
            self.close()

    def close(self) -> None:
        """Free all arrays, which nobody may use any more."""
        while self._windows:
            self._windows.pop().Free()

    def _memory(self, bytes_: int) -> np.ndarray:
        """Map memory that is zero, at the start of a page."""
        window = MPI.Win.Allocate_shared(bytes_ + PAGE if self._rank == 0 else 0, comm=self._comm)
        self._windows.append(window)
        whole = np.frombuffer(window.Shared_query(0)[0], np.uint8)
        memory = whole[-whole.ctypes.data % PAGE :][:bytes_]
        # Each rank begins a part, as far as its memory is there when others read it; MPI promises no zeros.
        memory[dsm.split(bytes_, self._size, self._rank)] = 0
        self._comm.Barrier()
        return memory

    def _object(self) -> int:
        """Return the address of counters for a lock, a condition or a barrier."""
        found = next(self._objects, None)
        if found is None:
            start = self._memory(OBJECTS * OBJECT_BYTES).ctypes.data
            self._objects = iter(range(start, start + OBJECTS * OBJECT_BYTES, OBJECT_BYTES))
            found = next(self._objects)
        return found

    def zeros(self, shape: Any, dtype: Any = float, *, page_size: int | None = None) -> np.ndarray:
        """Make an array of zeros.  There are no pages to choose."""
        items = int(np.prod(shape, dtype=np.int64))
        return self._memory(items * np.dtype(dtype).itemsize).view(dtype).reshape(shape)

    def zeros_like(self, a: np.ndarray) -> np.ndarray:
        """Make an array of zeros with the shape and dtype of another."""
        return self.zeros(a.shape, a.dtype)

    def array(self, obj: Any) -> np.ndarray:
        """Make an array with the content that rank 0 passes."""
        made = np.asarray(obj) if self._rank == 0 else None
        shape, dtype = self._comm.bcast(None if made is None else (made.shape, made.dtype))
        shared = self.zeros(shape, dtype)
        if made is not None:
            shared[...] = made
        self.barrier()
        return shared

    def barrier(self) -> None:
        """Wait for all."""
        _barrier(self._barrier, self._size)

    def Lock(self) -> Lock:
        """Make a lock."""
        return Lock(self._object())

    def Condition(self) -> Condition:
        """Make a condition with a lock of its own."""
        return Condition(self._object())

    def Event(self) -> Event:
        """Make an event."""
        return Event(self._object())

    def rank(self) -> int:
        """Return which rank this is."""
        return self._rank

    def size(self) -> int:
        """Return how many ranks there are."""
        return self._size

    split = staticmethod(dsm.split)


def on_one_host(comm: MPI.Intracomm) -> bool:
    """Tell whether all ranks can share memory.  Collective."""
    here = comm.Split_type(MPI.COMM_TYPE_SHARED)
    one = bool(here.size == comm.size)
    here.Free()
    return one


@contextlib.contextmanager
def instead_of_dsm(program: Callable[..., Any], comm: MPI.Intracomm) -> Iterator[None]:
    """Let a dsm program run on the floor: its module's `dsm` is another in the block.  Collective."""
    module: Any = sys.modules[program.__module__]
    kept = module.dsm
    with Floor(comm) as module.dsm:
        try:
            yield
        finally:
            module.dsm = kept
