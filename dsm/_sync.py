"""Locks and counters, as threading users know them.

A lock of the core belongs to a rank; which thread of the rank holds it is Python's affair and matters only to RLock.
A thread that waits keeps its place in the queue with a ticket, from slice to slice, and gives it back when a timeout or
an exception (Ctrl-C) ends the waiting.
"""

from __future__ import annotations

import collections
import operator
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType, TracebackType
from typing import Any, SupportsIndex

from dsm import _frames, _runtime
from dsm._named import check_name
from dsm._runtime import SLICE_S

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_SITES_MAX = 4096

_lock_labels: dict[int, str] = {}
_sites: dict[tuple[int, int], tuple[CodeType, Any]] = {}  # the code is kept, so that its number stays its own


def lock_labels() -> dict[int, str]:
    """Name every lock of this job, each name once.  Local."""
    found = dict(_lock_labels)
    often = collections.Counter(found.values())
    return {lock: label if often[label] == 1 else f"{label} #{lock}" for lock, label in found.items()}


def call_text(kind: str, name: str | None, *arguments: str) -> str:
    """Write a call that makes something, to compare it between ranks and to show it.  Local."""
    return f"{kind}({', '.join([*arguments, *([] if name is None else [f'name={name!r}'])])})"


def shown(name: str | None) -> str:
    """Write a name into the repr of what has it.  Local."""
    return "" if name is None else f" {name!r}"


def _site_of(runtime: _runtime.Runtime, frame: FrameType) -> Any:
    """Say where in the program a lock is taken, as a text that stays for the core; of so many places, and no more."""
    while _frames.is_own(frame) and frame.f_back is not None:
        frame = frame.f_back  # of a lock inside something else: where that was called
    code, at = frame.f_code, frame.f_lasti
    if (id(code), at) not in _sites:
        if len(_sites) >= _SITES_MAX:
            return runtime.ffi.NULL
        text = runtime.ffi.new("char[]", f"{code.co_filename}:{frame.f_lineno}".encode(errors="replace"))
        _sites.setdefault((id(code), at), (code, text))  # another thread may have been faster
    return _sites[id(code), at][1]


def seconds_of(blocking: bool, timeout: float) -> float | None:
    """Check the arguments of `acquire` as threading does; None stands for ever.  Local."""
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

    Parameters
    ----------
    name : str, optional
        Shown in messages and statistics; the same on every rank.

    Examples
    --------
    >>> import dsm
    >>> lock = dsm.Lock()
    >>> total = dsm.zeros(1)
    >>> with lock:
    ...     total[0] += 1
    """

    def __init__(self, *, name: str | None = None) -> None:
        check_name(name)
        self._make(call_text(type(self).__name__, name), name, name or "")

    def _make(self, what: str, name: str | None, label: str) -> None:
        """Make the lock of a call; `label` is what the core calls it."""
        runtime = _runtime.started()
        number = runtime.ffi.new("uint32_t *")
        what = runtime.made_here(what) if name is None else what
        texts = [runtime.ffi.new("char[]", text.encode(errors="replace")) for text in (what, label)]
        runtime.wait(lambda slice_s: runtime.lib.dsm_lock_new(*texts, slice_s, number))
        self._number, self._name = int(number[0]), name
        _lock_labels[self._number] = f"{type(self).__name__} {self._number}" if name is None else name

    @classmethod
    def _of(cls, what: str, name: str | None) -> Lock:
        """Make one for something else."""
        lock = cls.__new__(cls)
        lock._make(what, name, what if name is None else name)
        return lock

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
        return self._take(sys._getframe(1), seconds_of(blocking, timeout))

    def _take(self, frame: FrameType, seconds: float | None) -> bool:
        """Acquire for who runs in `frame`, and wait for so long; None stands for ever."""
        runtime, known = _runtime.active(), _sites.get((id(frame.f_code), frame.f_lasti))
        lib, number, site = runtime.lib, self._number, known[1] if known else _site_of(runtime, frame)
        if lib.dsm_acquire_here(number, site) == lib.DSM_OK:
            return True
        ticket = runtime.ffi.new("uint64_t *")
        try:
            if seconds == 0.0:
                while (code := lib.dsm_try_acquire(number, site, ticket, SLICE_S)) == lib.DSM_AGAIN:
                    if ticket[0] == 0:  # the answer was no
                        return False
            elif seconds is None:
                code = lib.dsm_acquire(number, site, ticket, SLICE_S)
                while code == lib.DSM_AGAIN:  # here Python runs its signal handlers
                    code = lib.dsm_acquire(number, site, ticket, _runtime.slice_s())
            else:
                code = self._take_until(time.monotonic() + seconds, runtime, site, ticket)
                if code == lib.DSM_AGAIN:
                    runtime.check(lib.dsm_acquire_cancel(number, ticket))
                    return False
        except BaseException:
            if ticket[0] != 0:
                lib.dsm_acquire_cancel(number, ticket)
            raise
        runtime.check(code)
        return True

    def _take_until(self, end_s: float, runtime: _runtime.Runtime, site: Any, ticket: Any) -> int:
        slice_s = _runtime.slice_s()
        while True:
            left_s = end_s - time.monotonic()
            code: int = runtime.lib.dsm_acquire(self._number, site, ticket, min(max(left_s, 0.0), slice_s))
            if code != runtime.lib.DSM_AGAIN or left_s <= slice_s:
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
        return self._take(sys._getframe(1), None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or _runtime.is_active():  # else dsm has ended, which is what the error says
            self.release()

    def __repr__(self) -> str:
        return f"<dsm.{type(self).__name__} {self._number}{shown(self._name)} {self._state()}>"

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
        self._take(sys._getframe(1), None)


class RLock(Lock):
    """A lock that the thread which holds it may acquire again.  Collective.

    Used as `threading.RLock`: it is free again after as many calls of `release` as of `acquire`, all by one thread.

    Parameters
    ----------
    name : str, optional
        As for `Lock`.

    Examples
    --------
    >>> import dsm
    >>> lock = dsm.RLock()
    >>> with lock, lock:
    ...     lock.locked()
    True
    """

    def _make(self, what: str, name: str | None, label: str) -> None:
        super()._make(what, name, label)
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
        return self._take(sys._getframe(1), seconds_of(blocking, timeout))

    def _take(self, frame: FrameType, seconds: float | None) -> bool:
        _runtime.active()
        me = threading.get_ident()
        if self._owner == me:  # nobody but this thread can make that true or untrue
            self._count += 1
            return True
        if not super()._take(frame, seconds):
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
        self._take(sys._getframe(1), None)
        self._count = count


class Counter:
    """A number that every rank can count up, for sharing work out.  Collective.

    It is atomic, but publishes nothing: after `next`, memory that another rank wrote before its own `next` may
    still be seen as it was.  Publish with a lock or a barrier.

    Parameters
    ----------
    start : int, optional
        The first number; 64 bits, signed.
    name : str, optional
        As for `Lock`.

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

    def __init__(self, start: SupportsIndex = 0, *, name: str | None = None) -> None:
        first = operator.index(start)
        if not _INT64_MIN <= first <= _INT64_MAX:
            raise ValueError(f"start must fit 64 bits: {first}")
        check_name(name)
        runtime = _runtime.started()
        number = runtime.ffi.new("uint32_t *")
        what = call_text("Counter", name, f"start={first}")
        what = runtime.made_here(what) if name is None else what
        texts = [runtime.ffi.new("char[]", text.encode(errors="replace")) for text in (what, name or "")]
        runtime.wait(lambda slice_s: runtime.lib.dsm_counter_new(first, *texts, slice_s, number))
        self._number, self._name = int(number[0]), name

    def next(self) -> int:
        """Return the number and add one to it, in one step.  Local.

        Raises
        ------
        OverflowError
            One more does not fit 64 bits; the number stays.
        """
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
        return f"<dsm.Counter {self._number}{shown(self._name)}>"

    def __reduce__(self) -> Any:
        raise TypeError("a dsm.Counter cannot be pickled: every rank makes it, in the same order")
