"""The hint that pages will be wanted: which bytes a view reaches, as few runs."""

from __future__ import annotations

import itertools

from dsm import _runtime
from dsm._numpy import AnyArray
from dsm._regions import page_bytes_of


def runs_of(
    shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int, gap_bytes: int
) -> tuple[int, int, list[tuple[int, int]]]:
    """Tell where the bytes of a view lie, as runs with gaps of at least `gap_bytes` between them.  Local.

    Parameters
    ----------
    shape, strides : tuple of int
        Of the view, which has elements; strides in bytes.
    itemsize : int
        Bytes of an element.
    gap_bytes : int
        Of a shorter gap between two runs no whole page is passed over, so they are one.

    Returns
    -------
    offset, length, axes : int, int, list of (int, int)
        Where the first run begins, in bytes from the first element; the bytes of a run; and how the others follow:
        (stride, number) for each dimension that is left, the longest stride first.
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
    """Start to fetch what other ranks wrote of a view, in the background.  Local.

    A hint: it returns at once, and whoever touches a page meanwhile waits for that page as always.  It pays where this
    rank has something else to do first, or touches pages in an order that cannot be foreseen.

    Parameters
    ----------
    view : numpy.ndarray
        A shared array or a part of one.  Of a strided view the pages that it has elements in are fetched.

    Raises
    ------
    ValueError
        `view` is not shared.

    Notes
    -----
    Call it after the lock or barrier that publishes what is to be read: what becomes stale later is not fetched again.
    At most about 1 MiB is under way at a time, so that others do not wait long behind it.

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
