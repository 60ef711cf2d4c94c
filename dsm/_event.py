"""Events: a flag that one thread sets and threads of all ranks wait for."""

from __future__ import annotations

from collections.abc import Callable

from dsm import _runtime
from dsm._named import MadeByAllRanks, call_text, check_name, made, shown
from dsm._timeout import end_of, left_of


class Event(MadeByAllRanks):
    """A flag that threads of all ranks wait for.  Collective.

    Used as `threading.Event`.  A thread that finds it set sees all that had been written before it was set.

    Parameters
    ----------
    name : str, optional
        Shown in messages; the same on every rank.

    Notes
    -----
    Making an event sends nothing.  A set event is sent to the hosts that wait for it, as one message each.  A wait for
    an event that is known as set on this host sends nothing.  Events last until `finalize`.

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
        new = _runtime.started().lib.dsm_flag_new
        self._number, self._name = made(new, call_text("Event", name), name, name or ""), name

    def is_set(self) -> bool:
        """Tell whether the flag is set, as far as this rank has synchronised.  Local.

        A rank that asks again and again will see that it was set.
        """
        runtime = _runtime.active()
        found = runtime.ffi.new("bool *")
        runtime.check(runtime.lib.dsm_flag_is_set(self._number, found))
        return bool(found[0])

    def set(self) -> None:
        """Set the flag, and wake all threads that wait for it.  Local."""
        self._change(_runtime.active().lib.dsm_flag_set)

    def clear(self) -> None:
        """Clear the flag: from now on `wait` waits.  Local."""
        self._change(_runtime.active().lib.dsm_flag_clear)

    def _change(self, change: Callable[[int, float], int]) -> None:
        runtime = _runtime.active()
        if change(self._number, _runtime.SLICE_S) != runtime.lib.DSM_OK:
            runtime.wait(lambda slice_s: change(self._number, slice_s))

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
        runtime = _runtime.active()
        lib, end_s = runtime.lib, end_of(timeout)
        if lib.dsm_flag_is_here(self._number):
            return True
        ticket = runtime.ffi.new("uint64_t *")
        slice_s = _runtime.SLICE_S
        while True:  # between two slices Python runs its signal handlers
            left_s = left_of(end_s)
            now_s = slice_s if left_s is None else min(max(left_s, 0.0), slice_s)
            code = lib.dsm_flag_wait(self._number, ticket, now_s)
            if code != lib.DSM_AGAIN:
                runtime.check(code)
                return True
            if left_s is not None and left_s <= slice_s:
                return False
            slice_s = _runtime.slice_s()

    def __repr__(self) -> str:
        return f"<dsm.Event {self._number}{shown(self._name)}>"
