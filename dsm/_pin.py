"""Pins: pages that stay accessible while the kernel or MPI, which cannot fault them in, use them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from dsm import _runtime
from dsm._numpy import ArrayT, byte_bounds
from dsm._regions import shared_region


def pinned(view: ArrayT, mode: str = "r") -> AbstractContextManager[ArrayT]:
    """Keep a view resident and accessible to the kernel and to MPI.  Local.

    When the program touches a protected page, dsm fetches it.  When the kernel does, the system call fails: read,
    write, `numpy.save`, `tofile`, sockets and MPI return EFAULT or short counts.  With a pinned view they succeed.
    In a job on one host most of them succeed without a pin, too; with the second host they fail.

    Parameters
    ----------
    view : numpy.ndarray
        A shared array or a part of one.  The pin covers all bytes from the first to the last, including the gaps of a
        strided view.
    mode : {"r", "w", "rw"}
        "r" if the call only reads the view, "w" or "rw" if it writes.

    Returns
    -------
    context manager
        Its value is `view`.

    Raises
    ------
    ValueError
        `view` is not shared, or `mode` is none of the three.
    MemoryError
        The machine's memory is exhausted.

    Examples
    --------
    >>> import dsm, io
    >>> a = dsm.ones(4)
    >>> with dsm.pinned(a, "r") as view:
    ...     io.BytesIO().write(view)
    32
    """
    if mode not in ("r", "w", "rw"):
        raise ValueError(f"mode must be 'r', 'w' or 'rw', not {mode!r}")
    shared_region(view, "pinned")
    return _pinned(view, "w" in mode)


@contextmanager
def _pinned(view: ArrayT, write: bool) -> Iterator[ArrayT]:
    if view.size == 0:
        yield view
        return
    runtime = _runtime.active()
    low, high = byte_bounds(view)
    address = runtime.ffi.cast("void *", low)
    runtime.check(runtime.lib.dsm_pin(address, high - low, write))
    try:
        yield view
    finally:
        runtime.check(runtime.lib.dsm_unpin(address, high - low, write))
