"""Conditions, and what threading makes of them: semaphores, events, barriers among threads.

A notification must reach one thread of one rank, which must not ask for it again and again, and nobody knows in advance
who will send it; so it cannot be the hand-over of a lock, which only its holder can give.  It is a `Counter` for each
rank, at home on that rank: to notify is to add to it, which is one message to the waiter, and to wait is to wait until
a number in this process changes, which sends nothing (`dsm_counter_await`).

Who waits is told in shared memory that the condition's lock guards: a number of waiting threads for each rank.  Which
of a rank's threads a notification is for, that rank decides alone, in the order in which they came.  So nothing can be
overtaken: a waiter has registered when it lets the lock go, because who takes the lock sees what was written under it;
and who notifies has the answer of the counter before it lets the lock go, so that a waiter whose time is over, and
which has taken the lock again, knows whether it was notified all the same.
"""

from __future__ import annotations

import operator
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, SupportsIndex, TypeVar

import numpy as np

from dsm import _runtime
from dsm._creation import zeros
from dsm._named import check_name
from dsm._numpy import AnyArray
from dsm._settings import PAGE_BYTES_MIN
from dsm._sync import Counter, Lock, RLock, call_text, seconds_of, shown

T = TypeVar("T")


def _end_s(timeout: float | None) -> float | None:
    """Check a timeout in seconds; return when it ends, or None for never."""
    if timeout is None:
        return None
    if timeout != timeout:
        raise ValueError("timeout value must not be NaN")
    if timeout > threading.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return time.monotonic() + max(float(timeout), 0.0)


def _left_s(end_s: float | None) -> float | None:
    return None if end_s is None else end_s - time.monotonic()


class _Waiter:
    """A thread that waits: has it been notified?  A lock that it sleeps on is opened when there is something to see."""

    __slots__ = ("asleep", "notified")

    def __init__(self) -> None:
        self.notified = False
        self.asleep = threading.Lock()
        self.asleep.acquire()

    def wake(self) -> None:
        if self.asleep.locked():
            self.asleep.release()


class _Queue:
    """The threads of all ranks that wait.  All but `block` is called under the lock of the condition.

    In shared memory: waiting threads of each rank, the rank whose turn it is, and `words` numbers for the caller's use.

    Of a rank one thread, the leader, waits in the core, and wakes those that a notification is for; the others sleep.
    """

    def __init__(self, label: str, words: int) -> None:
        self._size = _runtime.started().size
        self._rank = _runtime.rank()
        memory = zeros(self._size + 1 + words, np.int64, page_size=PAGE_BYTES_MIN, name=label)
        self._waiting, self._turn, self.words = np.split(memory, [self._size, self._size + 1])
        self._counters: dict[int, Counter] = {}  # by the rank where they are at home
        while len(self._counters) < self._size:
            counter = Counter(name=label)
            self._counters.setdefault(counter._number % self._size, counter)
        self._own = self._counters[self._rank]._number
        self._guard = threading.Lock()  # of what follows, among the threads of this rank
        self._threads: deque[_Waiter] = deque()
        self._leader: _Waiter | None = None
        self._sleepers: dict[_Waiter, None] = {}  # who could lead, in order
        self._seen = 0  # notifications

    def enter(self) -> _Waiter:
        waiter = _Waiter()
        self._take()
        with self._guard:
            self._threads.append(waiter)
            self._waiting[self._rank] = len(self._threads)
        return waiter

    def block(self, waiter: _Waiter, end_s: float | None) -> None:
        """Wait until notified, or until the end."""
        try:
            while True:
                with self._guard:
                    if waiter.notified:
                        return
                    self._leader = self._leader or waiter
                    leads, seen = self._leader is waiter, self._seen
                    if not leads:
                        self._sleepers[waiter] = None
                left_s = _left_s(end_s)
                if left_s is not None and left_s <= 0:
                    return
                if leads:
                    slice_s = _runtime.slice_s()
                    self._take(seen, slice_s if left_s is None else min(left_s, slice_s))
                else:
                    waiter.asleep.acquire(timeout=-1 if left_s is None else left_s)
        finally:
            with self._guard:
                self._sleepers.pop(waiter, None)
                if self._leader is waiter:
                    self._leader = next(iter(self._sleepers), None)
                    if self._leader is not None:
                        del self._sleepers[self._leader]
                        self._leader.wake()

    def leave(self, waiter: _Waiter) -> bool:
        """Tell whether it was notified."""
        self._take()
        with self._guard:
            if not waiter.notified:
                self._threads.remove(waiter)
                self._waiting[self._rank] = len(self._threads)
            return waiter.notified

    def abandon(self, waiter: _Waiter) -> None:
        """Leave without the lock; the number of waiting threads is put right by the next one that comes or goes."""
        with self._guard:
            if not waiter.notified:
                self._threads.remove(waiter)

    def notify(self, n: int) -> None:
        ranks = np.flatnonzero(self._waiting)
        if not len(ranks):
            return
        for rank in np.roll(ranks, -int(np.searchsorted(ranks, self._turn[0]))).tolist():
            if n <= 0:
                return
            here = min(n, int(self._waiting[rank]))
            n -= here
            self._waiting[rank] -= here
            self._turn[0] = rank + 1
            self._counters[rank]._add(here)

    def notify_all(self) -> None:
        self.notify(int(self._waiting.sum()))

    def _take(self, seen: int | None = None, slice_s: float = 0.0) -> None:
        """Give the notifications that have come to the threads that waited longest; wait for one beyond `seen`."""
        runtime = _runtime.active()
        value = runtime.ffi.new("int64_t *")
        beside = len(self._sleepers)
        code = runtime.lib.dsm_counter_await(self._own, self._seen if seen is None else seen, beside, slice_s, value)
        if code != runtime.lib.DSM_AGAIN:
            runtime.check(code)
        with self._guard:
            for _ in range(min(int(value[0]) - self._seen, len(self._threads))):
                waiter = self._threads.popleft()
                waiter.notified = True
                waiter.wake()
            self._seen = max(self._seen, int(value[0]))


class Condition:
    """Threads of all ranks wait until one of them says that something has changed.  Collective.

    Used as `threading.Condition`.  Who returns from `wait` holds the lock again, and so sees all that the notifier had
    written under it.

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
    Making one takes one collective call for each rank.

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
        self._queue = _Queue(label, words)
        return self

    @classmethod
    def _of(cls, what: str, name: str | None, words: int) -> Condition:
        """Make one for something else, made by the call `what`, with numbers that its lock guards."""
        return cls.__new__(cls)._make(Lock._of(what, name), name or what, name, words)

    @property
    def _words(self) -> AnyArray:
        return self._queue.words

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; as its own `acquire`.  Local."""
        return self._lock._take(sys._getframe(1), seconds_of(blocking, timeout))

    def release(self) -> None:
        """Let the lock go; as its own `release`.  Local."""
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Let the lock go, wait to be notified, and take the lock again.  Local.

        Parameters
        ----------
        timeout : float, optional
            The longest wait for a notification, in seconds; None waits for ever.  The lock is waited for longer.

        Returns
        -------
        bool
            False if the time was over first.

        Raises
        ------
        RuntimeError
            This thread does not hold the lock.
        """
        end_s = _end_s(timeout)
        self._check_held("wait on")
        waiter = self._queue.enter()
        count = self._lock._release_all()
        try:
            self._queue.block(waiter, end_s)
        except BaseException:
            if self._return(waiter, count):
                self._queue.notify(1)  # it is somebody else's now
            raise
        return self._return(waiter, count)

    def _return(self, waiter: _Waiter, count: int) -> bool:
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
            What `predicate` returned last; false if the time was over first.

        Raises
        ------
        RuntimeError
            This thread does not hold the lock.
        """
        end_s = _end_s(timeout)
        self._check_held("wait on")
        while not (result := predicate()):
            left_s = _left_s(end_s)
            if left_s is not None and left_s <= 0:
                break
            self.wait(left_s)
        return result

    def notify(self, n: int = 1) -> None:
        """Wake some of the threads that wait, wherever they are.  Local.

        The ranks take turns; of each rank, the threads that waited longest are woken.

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
        """Wake all threads that wait.  Local.

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

    def __reduce__(self) -> Any:
        raise _not_pickled(self)


def _not_pickled(thing: object) -> TypeError:
    return TypeError(f"a dsm.{type(thing).__name__} cannot be pickled: every rank makes it, in the same order")


class Semaphore:
    """A number of places that threads of all ranks take and give back.  Collective.

    Used as `threading.Semaphore`.  Who takes a place sees all that those who gave places back before had written.

    Parameters
    ----------
    value : int, optional
        Places at first, 0 or more.
    name : str, optional
        As for `Condition`.

    Raises
    ------
    ValueError
        `value` is negative, or ranks differ in it.

    Examples
    --------
    >>> import dsm
    >>> places = dsm.Semaphore(2)
    >>> with places:
    ...     pass  # at most two threads of the job are here
    """

    def __init__(self, value: SupportsIndex = 1, *, name: str | None = None) -> None:
        self._first = operator.index(value)
        if self._first < 0:
            raise ValueError("semaphore initial value must be >= 0")
        check_name(name)
        self._condition = Condition._of(call_text(type(self).__name__, name, str(self._first)), name, 1)
        self._given = self._condition._words  # more than taken; 0 at first, so that nobody has to write it

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a place, waiting for one if need be.  Local.

        Parameters
        ----------
        blocking : bool, optional
            False does not wait for a place.
        timeout : float, optional
            The longest wait for a place, in seconds.

        Returns
        -------
        bool
            Whether a place was taken.

        Raises
        ------
        ValueError
            A timeout is given together with ``blocking=False``.
        """
        if not blocking and timeout is not None:
            raise ValueError("can't specify timeout for non-blocking acquire")
        with self._condition:
            free = self._condition.wait_for(self._is_free, timeout if blocking else 0.0)
            if free:
                self._given[0] -= 1
            return free

    def release(self, n: int = 1) -> None:
        """Give places back, or make new ones.  Local.

        Parameters
        ----------
        n : int, optional
            How many, 1 or more.

        Raises
        ------
        ValueError
            `n` is less than 1; or, for a `BoundedSemaphore`, there would be more places than at first.
        """
        number = operator.index(n)
        if number < 1:
            raise ValueError("n must be one or more")
        with self._condition:
            self._check_release(number)
            self._given[0] += number
            self._condition.notify(number)

    def _is_free(self) -> bool:
        return bool(self._first + self._given[0] > 0)

    def _check_release(self, n: int) -> None:
        pass

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        name = shown(self._condition._name)
        return f"<dsm.{type(self).__name__}{name} of {self._first} with {self._condition._lock!r}>"

    def __reduce__(self) -> Any:
        raise _not_pickled(self)


class BoundedSemaphore(Semaphore):
    """A semaphore that never has more places than at first.  Collective.

    Used as `threading.BoundedSemaphore`: more calls of `release` than of `acquire` are an error.

    Parameters
    ----------
    value : int, optional
        Places, 0 or more.
    name : str, optional
        As for `Condition`.

    Raises
    ------
    ValueError
        As `Semaphore`.

    Examples
    --------
    >>> import dsm
    >>> places = dsm.BoundedSemaphore(2)
    >>> places.acquire(timeout=60)
    True
    >>> places.release()
    """

    def _check_release(self, n: int) -> None:
        if self._given[0] + n > 0:
            raise ValueError("Semaphore released too many times")


class Event:
    """A flag that threads of all ranks wait for.  Collective.

    Used as `threading.Event`.  Who finds it set sees all that had been written before it was set.  Asking again where
    it was asked last sends nothing as long as no other rank asks or sets it.

    Parameters
    ----------
    name : str, optional
        As for `Condition`.

    Examples
    --------
    >>> import dsm
    >>> ready = dsm.Event()
    >>> if dsm.rank() == 0:
    ...     ready.set()
    >>> ready.wait()
    True
    """

    def __init__(self, *, name: str | None = None) -> None:
        check_name(name)
        self._condition = Condition._of(call_text("Event", name), name, 1)
        self._flag = self._condition._words

    def is_set(self) -> bool:
        """Tell whether the flag is set.  Local."""
        with self._condition:
            return bool(self._flag[0])

    def set(self) -> None:
        """Set the flag, and wake all that wait for it.  Local."""
        with self._condition:
            self._flag[0] = 1
            self._condition.notify_all()

    def clear(self) -> None:
        """Take the flag back: from now on `wait` waits.  Local."""
        with self._condition:
            self._flag[0] = 0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set.  Local.

        Parameters
        ----------
        timeout : float, optional
            The longest wait, in seconds; None waits for ever.

        Returns
        -------
        bool
            Whether it was set, even if it has been cleared again meanwhile; False if the time was over first.
        """
        with self._condition:
            return bool(self._flag[0]) or self._condition.wait(timeout)

    def __repr__(self) -> str:
        return f"<dsm.Event{shown(self._condition._name)} with {self._condition._lock!r}>"

    def __reduce__(self) -> Any:
        raise _not_pickled(self)


class Barrier:
    """A place where a number of threads, of any ranks, wait for each other.  Collective.

    Used as `threading.Barrier`; `dsm.barrier` is faster where exactly one thread of every rank takes part.  Who leaves
    it sees all that the others had written before they came.

    Parameters
    ----------
    parties : int, optional
        Threads that wait for each other.  Default `size`.
    action : callable, optional
        Called by the thread that comes last, before the others leave; every rank passes it.
    timeout : float, optional
        Of `wait` where it names none, in seconds.
    name : str, optional
        As for `Condition`.

    Raises
    ------
    ValueError
        `parties` is not positive, or ranks differ in it.

    Examples
    --------
    >>> import dsm
    >>> together = dsm.Barrier()
    >>> 0 <= together.wait() < dsm.size()
    True
    """

    def __init__(
        self,
        parties: SupportsIndex | None = None,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        number = None if parties is None else operator.index(parties)
        if number is not None and number < 1:
            raise ValueError(f"parties must be 1 or more, not {number}")
        if action is not None and not callable(action):
            raise TypeError(f"action must be callable, not {type(action).__name__}")
        _end_s(timeout)
        check_name(name)
        self._parties = _runtime.started().size if number is None else number
        self._action, self._timeout = action, timeout
        self._condition = Condition._of(call_text("Barrier", name, str(self._parties)), name, 5)
        # Threads that have come; rounds ended; is it broken; the last round that began with a reset, and how many
        # threads of the one before have not learnt of that.  Until they have, nobody comes.
        self._come, self._round, self._broken, self._spoilt, self._learning = np.split(self._condition._words, 5)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all parties have come.  Local.

        Parameters
        ----------
        timeout : float, optional
            The longest wait, in seconds; afterwards the barrier is broken.  Default: that of the barrier.

        Returns
        -------
        int
            From 0 to ``parties - 1``, different for each thread.

        Raises
        ------
        threading.BrokenBarrierError
            The barrier is broken, or was reset while this thread waited.
        """
        end_s = _end_s(self._timeout if timeout is None else timeout)
        with self._condition:
            while self._learning[0] and not self._broken[0]:
                self._wait_until(end_s)
            if self._broken[0]:
                raise threading.BrokenBarrierError
            index = int(self._come[0])
            self._come[0] = index + 1
            if index + 1 == self._parties:
                self._open()
            else:
                self._wait_for_others(int(self._round[0]), end_s)
            return index

    def _open(self) -> None:
        """All have come."""
        try:
            if self._action is not None:
                self._action()
        except BaseException:
            self._come[0] -= 1
            self._break()
            raise
        self._round[0] += 1
        self._come[0] = 0
        self._condition.notify_all()

    def _wait_for_others(self, own: int, end_s: float | None) -> None:
        try:
            while self._round[0] == own and not self._broken[0]:
                self._wait_until(end_s)
        except BaseException:
            if _runtime.is_active():  # else dsm has ended under this thread, and its memory with it
                self._break()
                self._leave(own)
            raise
        if not self._leave(own):
            raise threading.BrokenBarrierError

    def _leave(self, own: int) -> bool:
        if self._round[0] == own:
            self._come[0] -= 1
            return False
        if self._spoilt[0] == own + 1:
            self._learning[0] -= 1
            self._condition.notify_all()
            return False
        return True

    def _wait_until(self, end_s: float | None) -> None:
        left_s = _left_s(end_s)
        if not self._condition.wait(left_s) and left_s is not None:
            self._break()

    def _break(self) -> None:
        self._broken[0] = 1
        self._condition.notify_all()

    def reset(self) -> None:
        """Make it as new; threads that wait get `threading.BrokenBarrierError`.  Local."""
        with self._condition:
            if self._come[0]:
                self._round[0] += 1
                self._spoilt[0] = self._round[0]
                self._learning[0] = self._come[0]
                self._come[0] = 0
            self._broken[0] = 0
            self._condition.notify_all()

    def abort(self) -> None:
        """Break it: threads that wait, or come, get `threading.BrokenBarrierError`.  Local."""
        with self._condition:
            self._break()

    @property
    def parties(self) -> int:
        """Threads that wait for each other."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """Threads that wait now."""
        with self._condition:
            return int(self._come[0])

    @property
    def broken(self) -> bool:
        """Whether it is broken."""
        with self._condition:
            return bool(self._broken[0])

    def __repr__(self) -> str:
        name = shown(self._condition._name)
        return f"<dsm.Barrier{name} of {self._parties} with {self._condition._lock!r}>"

    def __reduce__(self) -> Any:
        raise _not_pickled(self)
