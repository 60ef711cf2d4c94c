"""Semaphores: a number of places under the lock of a condition."""

from __future__ import annotations

import operator
from types import TracebackType
from typing import SupportsIndex

from dsm._condition import Condition
from dsm._named import MadeByAllRanks, call_text, check_name, shown


class Semaphore(MadeByAllRanks):
    """A number of places that threads of all ranks take and give back.  Collective.

    Used as `threading.Semaphore`.  A thread that takes a place sees all that other threads had written before they gave
    their places back.

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
        self._given = self._condition._words  # places given back minus places taken: starts at 0, as fresh memory

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
