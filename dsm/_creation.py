"""Functions that make shared arrays, with the names and arguments of NumPy's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dsm import _runtime
from dsm._blocks import split
from dsm._exchange import Exchange
from dsm._fill_value import fill_value_of, text_of
from dsm._layout import (
    Bare,
    ShapeLike,
    call_of,
    check_keywords,
    check_order,
    layout_of,
    order_like,
    page_bytes_or_default,
    shareable,
)
from dsm._numpy import AnyArray
from dsm._regions import allocate
from dsm._settings import PAGE_BYTES_MIN


def make(
    function: str, shape: ShapeLike, dtype: npt.DTypeLike, order: str, page_size: int | None, name: str | None
) -> AnyArray:
    """Make a shared array of zeros for `function`.  Collective."""
    layout = layout_of(shape, dtype, order, page_size, name)
    return allocate(layout, layout.call(function), function)


def zeros(
    shape: ShapeLike,
    dtype: npt.DTypeLike = float,
    *,
    order: str = "C",
    page_size: int | None = None,
    name: str | None = None,
) -> AnyArray:
    """Make a shared array of zeros, at the same address on every rank.  Collective.

    The result is a plain `numpy.ndarray`, and so are its views; NumPy's results of computations with it are private as
    usual.  A rank has memory only for pages that it touches, so the array may be larger than the memory of one rank.
    The memory lasts until `free` or `finalize`, even if the array object ends before.

    Parameters
    ----------
    shape : int or sequence of int
        Lengths of the dimensions; () and lengths of 0 are allowed.
    dtype : data-type, optional
        Any dtype without Python objects in it.
    order : {"C", "F"}, optional
        Row-major or column-major.
    page_size : int, optional
        Unit of coherence in bytes: a power of two from 4096 to 64 MiB.  Default: that of `init`.
    name : str, optional
        Shown in messages and statistics.

    Returns
    -------
    numpy.ndarray
        Of shape `shape`.

    Raises
    ------
    ValueError
        The shape is negative or too large, or the page size or order is not possible.  Or ranks differ in any argument;
        then every rank raises, and nothing is allocated.
    TypeError
        The dtype holds Python objects.
    MemoryError
        The address range or the machine's memory is exhausted.

    Examples
    --------
    >>> import dsm
    >>> a = dsm.zeros((1000, 3), order="F", name="positions")
    >>> a.shape, float(a.sum())
    ((1000, 3), 0.0)
    """
    return make("zeros", shape, dtype, order, page_size, name)


def empty(
    shape: ShapeLike,
    dtype: npt.DTypeLike = float,
    *,
    order: str = "C",
    page_size: int | None = None,
    name: str | None = None,
) -> AnyArray:
    """Make a shared array of unspecified content.  Collective.

    In fact it holds zeros, because fresh pages cost nothing.

    Parameters
    ----------
    shape, dtype, order, page_size, name
        As for `zeros`.

    Returns
    -------
    numpy.ndarray
        Of shape `shape`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `zeros`.
    """
    return make("empty", shape, dtype, order, page_size, name)


def ones(
    shape: ShapeLike,
    dtype: npt.DTypeLike = float,
    *,
    order: str = "C",
    page_size: int | None = None,
    name: str | None = None,
) -> AnyArray:
    """Make a shared array of ones.  Collective.

    Parameters
    ----------
    shape, dtype, order, page_size, name
        As for `zeros`.

    Returns
    -------
    numpy.ndarray
        Of shape `shape`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `zeros`.

    Notes
    -----
    As for `full`.
    """
    return _filled("ones", shape, 1, dtype, order, page_size, name)


def full(
    shape: ShapeLike,
    fill_value: object,
    dtype: npt.DTypeLike | None = None,
    *,
    order: str = "C",
    page_size: int | None = None,
    name: str | None = None,
) -> AnyArray:
    """Make a shared array that holds one value everywhere.  Collective.

    Parameters
    ----------
    shape, order, page_size, name
        As for `zeros`.
    fill_value : scalar
        The value, or a tuple of fields for a structured dtype.  For an array, see `array`.
    dtype : data-type, optional
        Default: that of `fill_value`, as in `numpy.full`.

    Returns
    -------
    numpy.ndarray
        Of shape `shape`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `zeros`; ranks may not differ in `fill_value` either, and it must fit the dtype.

    Notes
    -----
    Fresh pages hold the value, so no rank writes a page or sends anything.  That needs items whose size is a power of
    two up to 4096 bytes, because all pages must be the same.  For other items (of a structured dtype of 24 bytes, say)
    every rank writes its block, `dsm.split` of all items.

    Examples
    --------
    >>> import dsm
    >>> dsm.full(3, 7, dtype="int32").tolist()
    [7, 7, 7]
    """
    if dtype is None:
        dtype = np.asarray(fill_value).dtype
    return _filled("full", shape, fill_value, dtype, order, page_size, name)


def _filled(
    function: str,
    shape: ShapeLike,
    fill_value: object,
    dtype: npt.DTypeLike,
    order: str,
    page_size: int | None,
    name: str | None,
) -> AnyArray:
    kind = shareable(dtype)
    value = fill_value_of(fill_value, kind)
    layout = layout_of(shape, kind, order, page_size, name)
    what = layout.call(function, **({} if function == "ones" else {"fill_value": Bare(text_of(value))}))
    pattern = value.tobytes()
    if not any(pattern):
        return allocate(layout, what, function)
    if PAGE_BYTES_MIN % len(pattern) == 0:
        return allocate(layout, what, function, pattern)
    array = allocate(layout, what, function)
    flat = array.reshape(-1, order="F" if layout.order == "F" else "C")
    flat[split(flat.size)] = value
    _runtime.barrier()
    return array


def zeros_like(
    prototype: npt.ArrayLike,
    dtype: npt.DTypeLike | None = None,
    *,
    order: str = "K",
    page_size: int | None = None,
    name: str | None = None,
) -> AnyArray:
    """Make a shared array of zeros with the shape and dtype of another array.  Collective.

    Parameters
    ----------
    prototype : array_like
        Shared or not; its shape and dtype must be the same on every rank.
    dtype : data-type, optional
        Default: that of `prototype`.
    order : {"K", "C", "F"}, optional
        "K" keeps column-major order where `prototype` has it.
    page_size, name
        As for `zeros`; not those of `prototype`.

    Returns
    -------
    numpy.ndarray
        Of the shape of `prototype`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `zeros`.
    """
    return _like("zeros_like", prototype, dtype, order, page_size, name)


def empty_like(
    prototype: npt.ArrayLike,
    dtype: npt.DTypeLike | None = None,
    *,
    order: str = "K",
    page_size: int | None = None,
    name: str | None = None,
) -> AnyArray:
    """Make a shared array of unspecified content, with the shape and dtype of another array.  Collective.

    Parameters
    ----------
    prototype, dtype, order, page_size, name
        As for `zeros_like`.

    Returns
    -------
    numpy.ndarray
        Of the shape of `prototype`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `zeros`.
    """
    return _like("empty_like", prototype, dtype, order, page_size, name)


def _like(
    function: str,
    prototype: npt.ArrayLike,
    dtype: npt.DTypeLike | None,
    order: str,
    page_size: int | None,
    name: str | None,
) -> AnyArray:
    model = np.asarray(prototype)
    check_order(order, "KCF")
    kind = model.dtype if dtype is None else dtype
    return make(function, model.shape, kind, order_like(order, model), page_size, name)


def array(
    obj: npt.ArrayLike | None,
    dtype: npt.DTypeLike | None = None,
    *,
    order: str = "K",
    page_size: int | None = None,
    name: str | None = None,
) -> AnyArray:
    """Make a shared array with the content that rank 0 passes.  Collective.

    Parameters
    ----------
    obj : array_like
        The content.  Only rank 0 looks at it; other ranks may pass None.
    dtype : data-type, optional
        Default: that of `obj`.
    order : {"K", "C", "F"}, optional
        "K" keeps column-major order where `obj` has it.
    page_size, name
        As for `zeros`.

    Returns
    -------
    numpy.ndarray
        Of the shape of `obj` on rank 0; the content is visible to every rank.

    Raises
    ------
    ValueError, TypeError
        Rank 0 cannot make an array of `obj`, or it holds Python objects: raised on every rank.  Or as `zeros`.
    MemoryError
        As `zeros`.

    Examples
    --------
    >>> import dsm
    >>> a = dsm.array([[1, 2], [3, 4]] if dsm.rank() == 0 else None)
    >>> a.tolist()
    [[1, 2], [3, 4]]
    """
    given = None if dtype is None else shareable(dtype)
    check_order(order, "KCF")
    check_keywords(page_size, name)
    arguments = {
        "dtype": None if given is None else Bare(given),
        "order": order,
        "page_size": page_bytes_or_default(page_size),
        "name": name,
    }
    source: AnyArray | None = None

    def look() -> tuple[tuple[int, ...], np.dtype[Any], str]:
        nonlocal source
        source = np.asarray(obj, given)
        return source.shape, shareable(source.dtype), order_like(order, source)

    with Exchange(_runtime.active(), "array()", call_of("array", arguments)) as exchange:
        shape, kind, kept_order = exchange.first(look)
    made = make("array", shape, kind, kept_order, page_size, name)
    if source is not None:
        made[...] = source
    _runtime.barrier()
    return made
