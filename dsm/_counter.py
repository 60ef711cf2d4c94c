"""A number that ranks count up without a lock."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import SupportsIndex

from dsm import _runtime
from dsm._named import MadeByAllRanks, call_text, check_name, made, shown

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


class Counter(MadeByAllRanks):
    """A number that every rank can count up, for sharing work out.  Collective.

    It is atomic, but publishes nothing: after `next`, a rank may still see memory as it was before another rank wrote
    to it and called `next`.  Publish with a lock or a barrier.

    Parameters
    ----------
    start : int, optional
        The first number; 64 bits, signed.
    name : str, optional
        As for `Lock`.

    Raises
    ------
    ValueError
        `start` does not fit 64 bits.

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
        new = functools.partial(_runtime.started().lib.dsm_counter_new, first)
        self._number, self._name = made(new, call_text("Counter", name, f"start={first}"), name, name or ""), name

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
        """The number as it is now; another rank may change it at any time."""
        return self._add(0)

    def _add(self, delta: int) -> int:
        runtime = _runtime.active()
        ticket, before = runtime.ffi.new("uint64_t *"), runtime.ffi.new("int64_t *")
        add: Callable[..., int] = runtime.lib.dsm_counter_add
        runtime.wait(lambda slice_s: add(self._number, delta, ticket, slice_s, before))
        return int(before[0])

    def __repr__(self) -> str:
        return f"<dsm.Counter {self._number}{shown(self._name)}>"
