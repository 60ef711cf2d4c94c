"""Conditions: threads of all ranks wait, under a lock, until another thread notifies them."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from dsm import _runtime
from dsm._lock import Lock, RLock
from dsm._named import MadeByAllRanks, call_text, check_name, shown
from dsm._notifications import NotificationQueue, Waiter
from dsm._numpy import AnyArray
from dsm._timeout import end_of, left_of, seconds_of

T = TypeVar("T")


class Condition(MadeByAllRanks):
    """A lock under which threads of all ranks wait for a notification.  Collective.

    Used as `threading.Condition`.  A thread that returns from `wait` holds the lock again, and sees all that the
    notifier had written under it.

    Parameters
    ----------
    lock : Lock or RLock, optional
        The same on every rank.  Default: a new `RLock`.
    name : str, optional
        Shown in messages and statistics; the same on every rank.

    Raises
    ------
    TypeError
        `lock` is not a lock of dsm.
    ValueError
        Ranks pass different locks.

    Notes
    -----
    A waiting thread sends nothing and, after a millisecond, sleeps.  Like locks, conditions last until `finalize`.

    Examples
    --------
    >>> import dsm
    >>> changed, box = dsm.Condition(), dsm.zeros(1)
    >>> if dsm.rank() == dsm.size() - 1:
    ...     with changed:
    ...         box[0] = 7
    ...         changed.notify_all()
    >>> with changed:
    ...     changed.wait_for(lambda: bool(box[0] == 7))
    True
    """

    def __init__(self, lock: Lock | None = None, *, name: str | None = None) -> None:
        if lock is not None and not isinstance(lock, Lock):
            raise TypeError(f"lock must be a dsm.Lock or dsm.RLock, not {type(lock).__name__}")
        check_name(name)
        own = RLock._of(call_text("Condition", name), name) if lock is None else lock
        label = f"Condition({type(own).__name__} {own._number})"
        if lock is not None:
            label = _runtime.started().made_here(label)
        self._make(own, name or label, name, 0)

    def _make(self, lock: Lock, label: str, name: str | None, words: int) -> Condition:
        self._lock, self._name = lock, name
        self._queue = NotificationQueue(label, words)
        return self

    @classmethod
    def _of(cls, what: str, name: str | None, words: int) -> Condition:
        """Make a condition for another thing, which the call `what` makes, with numbers that the lock guards."""
        return cls.__new__(cls)._make(Lock._of(what, name), name or what, name, words)

    @property
    def _words(self) -> AnyArray:
        return self._queue.words

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquire the lock; as its own `acquire`.  Local."""
        return self._lock._take(sys._getframe(1), seconds_of(blocking, timeout))

    def release(self) -> None:
        """Release the lock; as its own `release`.  Local."""
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock, wait for a notification, and acquire the lock again.  Local.

        Parameters
        ----------
        timeout : float, optional
            The longest wait for a notification, in seconds; None waits for ever.  The wait for the lock is not limited.

        Returns
        -------
        bool
            False if the time was over first.

        Raises
        ------
        RuntimeError
            This thread does not hold the lock.
        """
        end_s = end_of(timeout)
        self._check_held("wait on")
        waiter = self._queue.enter()
        count = self._lock._release_all()
        try:
            self._queue.block(waiter, end_s)
        except BaseException:
            if self._return(waiter, count):
                self._queue.notify(1)  # this thread does not use it, so another one must
            raise
        return self._return(waiter, count)

    def _return(self, waiter: Waiter, count: int) -> bool:
        try:
            self._lock._acquire_again(count)
        except BaseException:
            self._queue.abandon(waiter)
            raise
        return self._queue.leave(waiter)

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """Wait until `predicate()`, called under the lock, is true.  Local.

        Parameters
        ----------
        predicate : callable
            Without arguments.
        timeout : float, optional
            The longest wait in all, in seconds.

        Returns
        -------
        object
            The last result of `predicate`; false if the time was over first.

        Raises
        ------
        RuntimeError
            This thread does not hold the lock.
        """
        end_s = end_of(timeout)
        self._check_held("wait on")
        while not (result := predicate()):
            left_s = left_of(end_s)
            if left_s is not None and left_s <= 0:
                break
            self.wait(left_s)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake some of the waiting threads, on any ranks.  Local.

        The ranks take turns; within a rank, the threads that waited longest wake first.

        Parameters
        ----------
        n : int, optional
            How many at most.

        Raises
        ------
        RuntimeError
            This thread does not hold the lock.
        """
        self._check_held("notify on")
        self._queue.notify(operator.index(n))

    def notify_all(self) -> None:
        """Wake all waiting threads.  Local.

        Raises
        ------
        RuntimeError
            This thread does not hold the lock.
        """
        self._check_held("notify on")
        self._queue.notify_all()

    def _check_held(self, what: str) -> None:
        if not self._lock._is_mine():
            raise RuntimeError(f"cannot {what} {self!r}: acquire its lock first")

    def __enter__(self) -> bool:
        return self._lock._take(sys._getframe(1), None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<dsm.Condition{shown(self._name)} with {self._lock!r}>"
