"""Events: a flag under the lock of a condition."""

from __future__ import annotations

from dsm._condition import Condition
from dsm._named import MadeByAllRanks, call_text, check_name, shown


class Event(MadeByAllRanks):
    """A flag that threads of all ranks wait for.  Collective.

    Used as `threading.Event`.  A thread that finds it set sees all that had been written before it was set.  A rank
    that asks again sends nothing as long as no other rank has asked or set the flag meanwhile.

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
        """Set the flag, and wake all threads that wait for it.  Local."""
        with self._condition:
            self._flag[0] = 1
            self._condition.notify_all()

    def clear(self) -> None:
        """Clear the flag: from now on `wait` waits.  Local."""
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
            Whether it was set, even if it has been cleared again since; False if the time was over first.
        """
        with self._condition:
            return bool(self._flag[0]) or self._condition.wait(timeout)

    def __repr__(self) -> str:
        return f"<dsm.Event{shown(self._condition._name)} with {self._condition._lock!r}>"
