"""Locks for all threads of all ranks, used as those of threading.

In the core a rank holds a lock, not a thread.  Only an `RLock` remembers which thread of the rank acquired it.  A
thread waits in slices, and its ticket keeps its place in the queue from one slice to the next.  The thread cancels the
ticket when a timeout or an exception (Ctrl-C) ends the wait.
"""

from __future__ import annotations

import collections
import sys
import threading
import time
from types import CodeType, FrameType, TracebackType
from typing import Any

from dsm import _frames, _runtime
from dsm._named import MadeByAllRanks, call_text, check_name, made, shown
from dsm._runtime import SLICE_S
from dsm._timeout import seconds_of

_SITES_MAX = 4096  # places in the program that acquire locks; the core has no name for further ones

_lock_labels: dict[int, str] = {}
_lock_kinds: dict[int, str] = {}
_sites: dict[tuple[int, int], tuple[CodeType, Any]] = {}  # holds the code, because another could get its id()


def lock_labels() -> dict[int, str]:
    """Name every lock of this job, each name once.  Local."""
    found = dict(_lock_labels)
    often = collections.Counter(found.values())
    return {lock: label if often[label] == 1 else f"{label} #{lock}" for lock, label in found.items()}


def lock_kinds() -> dict[int, str]:
    """Name the class of every lock of this job.  Local."""
    return dict(_lock_kinds)


def _site_of(runtime: _runtime.Runtime, frame: FrameType) -> Any:
    """Return the place in the program that acquires a lock, as a text that the core may keep."""
    while _frames.is_own(frame) and frame.f_back is not None:
        frame = frame.f_back  # a condition acquires its lock: the place is where the program calls the condition
    code, at = frame.f_code, frame.f_lasti
    if (id(code), at) not in _sites:
        if len(_sites) >= _SITES_MAX:
            return runtime.ffi.NULL
        text = runtime.ffi.new("char[]", f"{code.co_filename}:{frame.f_lineno}".encode(errors="replace"))
        _sites.setdefault((id(code), at), (code, text))  # another thread may have been faster
    return _sites[id(code), at][1]


class Lock(MadeByAllRanks):
    """A lock among all threads of all ranks.  Collective.

    Used as `threading.Lock`.  The thread that acquires it sees all that the last holder had written or seen.  The token
    of the lock stays on the node that used it last; acquiring it again there costs no message.

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
        """Make the lock in the core: `what` is the call that ranks compare, `label` its name in messages."""
        self._number, self._name = made(_runtime.started().lib.dsm_lock_new, what, name, label), name
        _lock_kinds[self._number] = type(self).__name__
        _lock_labels[self._number] = f"{type(self).__name__} {self._number}" if name is None else name

    @classmethod
    def _of(cls, what: str, name: str | None) -> Lock:
        """Make a lock for another thing, which the call `what` makes."""
        lock = cls.__new__(cls)
        lock._make(what, name, what if name is None else name)
        return lock

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, waiting for it if need be.  Local.

        A thread that holds an `RLock` acquires it once more.

        Parameters
        ----------
        blocking : bool, optional
            False does not wait for a holder: it asks once, on whatever rank the token is.
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
        """Acquire the lock on behalf of the code that runs in `frame`, and wait so long at most; None is for ever."""
        runtime, known = _runtime.active(), _sites.get((id(frame.f_code), frame.f_lasti))
        lib, number, site = runtime.lib, self._number, known[1] if known else _site_of(runtime, frame)
        if lib.dsm_acquire_here(number, site) == lib.DSM_OK:
            return True
        ticket = runtime.ffi.new("uint64_t *")
        try:
            code = self._wait(lib, site, ticket, seconds)
            if code == lib.DSM_AGAIN:
                if ticket[0] != 0:
                    runtime.check(lib.dsm_acquire_cancel(number, ticket))
                return False
        except BaseException:
            if ticket[0] != 0:
                lib.dsm_acquire_cancel(number, ticket)
            raise
        runtime.check(code)
        return True

    def _wait(self, lib: Any, site: Any, ticket: Any, seconds: float | None) -> int:
        """Return the code of the core; it is DSM_AGAIN where the lock was not free, or not free in time."""
        if seconds == 0.0:
            code: int = lib.dsm_try_acquire(self._number, site, ticket, SLICE_S)
            while code == lib.DSM_AGAIN and ticket[0] != 0:  # no ticket: the answer has come, and is no
                code = lib.dsm_try_acquire(self._number, site, ticket, SLICE_S)
            return code
        if seconds is None:
            code = lib.dsm_acquire(self._number, site, ticket, SLICE_S)
            while code == lib.DSM_AGAIN:  # between two slices Python runs its signal handlers
                code = lib.dsm_acquire(self._number, site, ticket, _runtime.slice_s())
            return code
        end_s, slice_s = time.monotonic() + seconds, _runtime.slice_s()
        while True:
            left_s = end_s - time.monotonic()
            code = lib.dsm_acquire(self._number, site, ticket, min(max(left_s, 0.0), slice_s))
            if code != lib.DSM_AGAIN or left_s <= slice_s:
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
        if kind is None or _runtime.is_active():  # else the error is that dsm has ended, and says so
            self.release()

    def __repr__(self) -> str:
        return f"<dsm.{type(self).__name__} {self._number}{shown(self._name)} {self._state()}>"

    def _state(self) -> str:
        if not _runtime.is_active():
            return "finalized"
        return "held by this rank" if self.locked() else "not held by this rank"

    # For Condition.  A plain lock knows its rank only, not its thread.
    def _is_mine(self) -> bool:
        return self.locked()

    def _release_all(self) -> int:
        self.release()
        return 1

    def _acquire_again(self, count: int) -> None:
        self._take(sys._getframe(1), None)


class RLock(Lock):
    """A lock that its holder, a thread, may acquire again.  Collective.

    Used as `threading.RLock`: the thread calls `release` as often as it called `acquire`.

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

    def _take(self, frame: FrameType, seconds: float | None) -> bool:
        _runtime.active()
        me = threading.get_ident()
        if self._owner == me:  # only this thread itself can change that
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
