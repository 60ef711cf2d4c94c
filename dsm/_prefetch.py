"""The hint that this rank will soon read a view: its bytes, as few runs."""

from __future__ import annotations

import itertools

from dsm import _runtime
from dsm._numpy import AnyArray
from dsm._regions import page_bytes_of


def runs_of(
    shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int, gap_bytes: int
) -> tuple[int, int, list[tuple[int, int]]]:
    """Return the bytes of a view as runs with gaps of at least `gap_bytes` between them.  Local.

    Parameters
    ----------
    shape, strides : tuple of int
        Of the view, which is not empty; strides in bytes.
    itemsize : int
        Bytes of an element.
    gap_bytes : int
        The page size: a shorter gap between two runs contains no whole page, so they become one run.

    Returns
    -------
    offset, length, axes : int, int, list of (int, int)
        The offset of the first run from the first element, in bytes; the bytes of a run; and the other runs as
        (stride, number) for each remaining dimension, the longest stride first.
    """
    offset = sum(min(0, stride * (length - 1)) for stride, length in zip(strides, shape, strict=True))
    run, axes = itemsize, list[tuple[int, int]]()
    for stride, length in sorted((abs(stride), length) for stride, length in zip(strides, shape, strict=True)):
        if length == 1 or stride == 0:
            continue
        if not axes and stride - run < gap_bytes:
            run = stride * (length - 1) + run
        else:
            axes.insert(0, (stride, length))
    return offset, run, axes


def prefetch(view: AnyArray) -> None:
    """Start to fetch the writes of other nodes to a view, in the background.  Local.

    The call is a hint and returns at once.  A thread that touches a page meanwhile waits for that page as always.  It
    saves time if this rank has other work to do first, or touches pages in an order that cannot be predicted.

    Parameters
    ----------
    view : numpy.ndarray
        A shared array or a part of one.  Of a strided view only pages that contain elements are fetched.

    Raises
    ------
    ValueError
        `view` is not shared.

    Notes
    -----
    Call it after the lock or barrier that publishes the writes: a page that becomes stale later is not fetched again.
    At most about 1 MiB is under way at a time, so that other requests do not wait long behind it.

    Examples
    --------
    >>> import dsm
    >>> a = dsm.zeros((1000, 1000))
    >>> dsm.prefetch(a[::2])
    """
    page_bytes = page_bytes_of(view, "prefetch")
    if view.size == 0 or view.itemsize == 0:
        return
    runtime = _runtime.active()
    offset, length, axes = runs_of(view.shape, view.strides, view.itemsize, page_bytes)
    stride, runs = axes.pop() if axes else (0, 1)
    first = int(view.__array_interface__["data"][0]) + offset
    for steps in itertools.product(*[range(0, stride * number, stride) for stride, number in axes]):
        address = runtime.ffi.cast("void *", first + sum(steps))
        runtime.check(runtime.lib.dsm_prefetch(address, length, stride, runs))
