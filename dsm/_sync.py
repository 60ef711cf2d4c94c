"""Locks and counters, as threading users know them.

A lock of the core belongs to a rank; which thread of the rank holds it is Python's affair and matters only to RLock.
A thread that waits keeps its place in the queue with a ticket, from slice to slice, and gives it back when a timeout or
an exception (Ctrl-C) ends the waiting.
"""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, SupportsIndex

from dsm import _runtime
from dsm._runtime import SLICE_S

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1

_lock_kinds: dict[int, str] = {}


def lock_labels() -> dict[int, str]:
    """Name every lock of this job.  Local."""
    return {lock: f"{kind} {lock}" for lock, kind in list(_lock_kinds.items())}


def _seconds(blocking: bool, timeout: float) -> float | None:
    """Check the arguments of `acquire` as threading does; None stands for ever."""
    if timeout != timeout:
        raise ValueError("timeout value must not be NaN")
    if not blocking:
        if timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        return 0.0
    if timeout == -1:
        return None
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > threading.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return float(timeout)


class Lock:
    """A lock among all threads of all ranks.  Collective.

    Used as `threading.Lock`.  Who acquires it sees all that the one who released it last had written or seen.  Its
    token rests where it was last used, so that acquiring it again there costs no message.

    Examples
    --------
    >>> import dsm
    >>> lock = dsm.Lock()
    >>> total = dsm.zeros(1)
    >>> with lock:
    ...     total[0] += 1
    """

    def __init__(self) -> None:
        runtime = _runtime.started()
        number = runtime.ffi.new("uint32_t *")
        what = runtime.ffi.new("char[]", runtime.made_here(f"{type(self).__name__}()").encode())
        runtime.wait(lambda slice_s: runtime.lib.dsm_lock_new(what, slice_s, number))
        self._number = int(number[0])
        _lock_kinds[self._number] = type(self).__name__

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, waiting for it if need be.  Local.

        Parameters
        ----------
        blocking : bool, optional
            False asks once: True is returned if the lock is free, wherever its token rests.
        timeout : float, optional
            The longest wait, in seconds; -1 waits for ever.

        Returns
        -------
        bool
            Whether the lock is held now.

        Raises
        ------
        ValueError
            The timeout is negative, or given together with ``blocking=False``.
        OverflowError
            The timeout is larger than `threading.TIMEOUT_MAX`.
        """
        seconds = _seconds(blocking, timeout)
        runtime = _runtime.active()
        ticket = runtime.ffi.new("uint64_t *")
        lib, number, site = runtime.lib, self._number, runtime.ffi.NULL
        try:
            if seconds == 0.0:
                while (code := lib.dsm_try_acquire(number, site, ticket, SLICE_S)) == lib.DSM_AGAIN:
                    if ticket[0] == 0:  # the answer was no
                        return False
            elif seconds is None:
                while (code := lib.dsm_acquire(number, site, ticket, SLICE_S)) == lib.DSM_AGAIN:
                    pass  # here Python runs its signal handlers
            else:
                code = self._acquire_until(time.monotonic() + seconds, runtime, ticket)
                if code == lib.DSM_AGAIN:
                    runtime.check(lib.dsm_acquire_cancel(number, ticket))
                    return False
        except BaseException:
            if ticket[0] != 0:
                lib.dsm_acquire_cancel(number, ticket)
            raise
        runtime.check(code)
        return True

    def _acquire_until(self, end_s: float, runtime: _runtime.Runtime, ticket: Any) -> int:
        while True:
            left_s = end_s - time.monotonic()
            code: int = runtime.lib.dsm_acquire(self._number, runtime.ffi.NULL, ticket, min(max(left_s, 0.0), SLICE_S))
            if code != runtime.lib.DSM_AGAIN or left_s <= SLICE_S:
                return code

    def release(self) -> None:
        """Let the lock go; any thread of the rank that holds it may.  Local.

        Raises
        ------
        RuntimeError
            No thread of this rank holds it.
        """
        runtime = _runtime.active()
        runtime.check(runtime.lib.dsm_release(self._number))

    def locked(self) -> bool:
        """Tell whether a thread of this rank holds the lock.  Local."""
        runtime = _runtime.active()
        return bool(runtime.lib.dsm_locked(self._number))

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<dsm.{type(self).__name__} {self._number} {self._state()}>"

    def _state(self) -> str:
        if not _runtime.is_active():
            return "finalized"
        return "held by this rank" if self.locked() else "not held by this rank"

    def __reduce__(self) -> Any:
        raise TypeError(f"a dsm.{type(self).__name__} cannot be pickled: every rank makes it, in the same order")

    # For Condition, as far as a plain lock can tell.
    def _is_mine(self) -> bool:
        return self.locked()

    def _release_all(self) -> int:
        self.release()
        return 1

    def _acquire_again(self, count: int) -> None:
        self.acquire()


class RLock(Lock):
    """A lock that the thread which holds it may acquire again.  Collective.

    Used as `threading.RLock`: it is free again after as many calls of `release` as of `acquire`, all by one thread.

    Examples
    --------
    >>> import dsm
    >>> lock = dsm.RLock()
    >>> with lock, lock:
    ...     lock.locked()
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self._owner: int | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, waiting for it if need be, or once more if this thread has it.  Local.

        Parameters
        ----------
        blocking, timeout
            As for `Lock.acquire`.

        Returns
        -------
        bool
            Whether this thread holds the lock now.

        Raises
        ------
        ValueError, OverflowError
            As `Lock.acquire`.
        """
        _seconds(blocking, timeout)
        _runtime.active()
        me = threading.get_ident()
        if self._owner == me:  # nobody but this thread can make that true or untrue
            self._count += 1
            return True
        if not super().acquire(blocking, timeout):
            return False
        self._owner, self._count = me, 1
        return True

    def release(self) -> None:
        """Undo one `acquire` of this thread.  Local.

        Raises
        ------
        RuntimeError
            This thread does not hold the lock.
        """
        _runtime.active()
        if self._owner != threading.get_ident():
            raise RuntimeError(f"cannot release {self!r}: this thread has not acquired it")
        if self._count == 1:
            self._owner, self._count = None, 0
            super().release()
        else:
            self._count -= 1

    def _state(self) -> str:
        state = super()._state()
        return f"{state}, {self._count} times" if self._count > 1 else state

    def _is_mine(self) -> bool:
        _runtime.active()
        return self._owner == threading.get_ident()

    def _release_all(self) -> int:
        count, self._count = self._count, 1
        self.release()
        return count

    def _acquire_again(self, count: int) -> None:
        self.acquire()
        self._count = count


class Counter:
    """A number that every rank can count up, for sharing work out.  Collective.

    It is atomic, but publishes nothing: after `next`, memory that another rank wrote before its own `next` may
    still be seen as it was.  Publish with a lock or a barrier.

    Parameters
    ----------
    start : int, optional
        The first number; 64 bits, signed.

    Raises
    ------
    ValueError
        `start` does not fit 64 bits, or ranks differ in it.

    Examples
    --------
    >>> import dsm
    >>> task = dsm.Counter()
    >>> while (i := task.next()) < 1000:
    ...     pass  # compute task i
    """

    def __init__(self, start: SupportsIndex = 0) -> None:
        first = operator.index(start)
        if not _INT64_MIN <= first <= _INT64_MAX:
            raise ValueError(f"start must fit 64 bits: {first}")
        runtime = _runtime.started()
        number = runtime.ffi.new("uint32_t *")
        what = runtime.ffi.new("char[]", runtime.made_here(f"Counter(start={first})").encode())
        runtime.wait(lambda slice_s: runtime.lib.dsm_counter_new(first, what, slice_s, number))
        self._number = int(number[0])

    def next(self) -> int:
        """Return the number and add one to it, in one step.  Local."""
        return self._add(1)

    @property
    def value(self) -> int:
        """The number as it is now; another rank may have changed it by the time it is looked at."""
        return self._add(0)

    def _add(self, delta: int) -> int:
        runtime = _runtime.active()
        ticket, before = runtime.ffi.new("uint64_t *"), runtime.ffi.new("int64_t *")
        add: Callable[..., int] = runtime.lib.dsm_counter_add
        runtime.wait(lambda slice_s: add(self._number, delta, ticket, slice_s, before))
        return int(before[0])

    def __repr__(self) -> str:
        return f"<dsm.Counter {self._number}>"

    def __reduce__(self) -> Any:
        raise TypeError("a dsm.Counter cannot be pickled: every rank makes it, in the same order")
