"""Barriers among any threads, which break and reset as those of threading do."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from typing import SupportsIndex

import numpy as np

from dsm import _runtime
from dsm._condition import Condition
from dsm._named import MadeByAllRanks, call_text, check_name, shown
from dsm._timeout import end_of, left_of


class Barrier(MadeByAllRanks):
    """A place where a number of threads, of any ranks, wait for each other.  Collective.

    Used as `threading.Barrier`; `dsm.barrier` is faster where exactly one thread of every rank takes part.  A thread
    that leaves it sees all that the others had written before they arrived.

    Parameters
    ----------
    parties : int, optional
        Threads that wait for each other.  Default `size`.
    action : callable, optional
        Called by the last thread that arrives, before the others leave; every rank passes it.
    timeout : float, optional
        The timeout of `wait` calls that name none, in seconds.
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
        end_of(timeout)
        check_name(name)
        self._parties = _runtime.started().size if number is None else number
        self._action, self._timeout = action, timeout
        self._condition = Condition._of(call_text("Barrier", name, str(self._parties)), name, 5)
        # Threads that have arrived; rounds that are over; is it broken; the last round that began with a reset, and how
        # many threads of the round before have not noticed the reset yet.  Until they have, no thread arrives.
        self._arrived, self._round, self._broken, self._reset_round, self._unaware = np.split(self._condition._words, 5)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all parties have arrived.  Local.

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
        end_s = end_of(self._timeout if timeout is None else timeout)
        with self._condition:
            while self._unaware[0] and not self._broken[0]:
                self._wait_until(end_s)
            if self._broken[0]:
                raise threading.BrokenBarrierError
            index = int(self._arrived[0])
            self._arrived[0] = index + 1
            if index + 1 == self._parties:
                self._open()
            else:
                self._wait_for_others(int(self._round[0]), end_s)
            return index

    def _open(self) -> None:
        """Let all threads go: the last one has arrived."""
        try:
            if self._action is not None:
                self._action()
        except BaseException:
            self._arrived[0] -= 1
            self._break()
            raise
        self._round[0] += 1
        self._arrived[0] = 0
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
            self._arrived[0] -= 1
            return False
        if self._reset_round[0] == own + 1:
            self._unaware[0] -= 1
            self._condition.notify_all()
            return False
        return True

    def _wait_until(self, end_s: float | None) -> None:
        left_s = left_of(end_s)
        if not self._condition.wait(left_s) and left_s is not None:
            self._break()

    def _break(self) -> None:
        self._broken[0] = 1
        self._condition.notify_all()

    def reset(self) -> None:
        """Make the barrier as new; threads that wait get `threading.BrokenBarrierError`.  Local."""
        with self._condition:
            if self._arrived[0]:
                self._round[0] += 1
                self._reset_round[0] = self._round[0]
                self._unaware[0] = self._arrived[0]
                self._arrived[0] = 0
            self._broken[0] = 0
            self._condition.notify_all()

    def abort(self) -> None:
        """Break the barrier: threads that wait or arrive get `threading.BrokenBarrierError`.  Local."""
        with self._condition:
            self._break()

    @property
    def parties(self) -> int:
        """Number of threads that wait for each other."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """Number of threads that wait now."""
        with self._condition:
            return int(self._arrived[0])

    @property
    def broken(self) -> bool:
        """Whether the barrier is broken."""
        with self._condition:
            return bool(self._broken[0])

    def __repr__(self) -> str:
        name = shown(self._condition._name)
        return f"<dsm.Barrier{name} of {self._parties} with {self._condition._lock!r}>"
