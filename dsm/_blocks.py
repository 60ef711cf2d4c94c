"""Blocks: the ranks share out the items of an array, one block for each."""

from __future__ import annotations

import operator
from typing import SupportsIndex

import numpy as np

from dsm import _runtime
from dsm._numpy import AnyArray


def split(n: SupportsIndex, parts: SupportsIndex | None = None, index: SupportsIndex | None = None) -> slice:
    """Return the block of ``range(n)`` that belongs to one of several parts.  Local.

    Blocks are contiguous and in order.  Their lengths differ by at most one; longer blocks come first.

    Parameters
    ----------
    n : int
        Number of items, 0 or more.
    parts : int, optional
        Number of blocks.  Default `size`.
    index : int, optional
        The number of the block, from 0.  Default `rank`.

    Returns
    -------
    slice
        With start and stop; empty if there are more parts than items.

    Raises
    ------
    ValueError
        `n` is negative, `parts` is not positive, or `index` is not one of the parts.

    Examples
    --------
    >>> import dsm
    >>> [dsm.split(10, 3, index) for index in range(3)]
    [slice(0, 4, None), slice(4, 7, None), slice(7, 10, None)]
    """
    items = operator.index(n)
    blocks = _runtime.size() if parts is None else operator.index(parts)
    block = _runtime.rank() if index is None else operator.index(index)
    if items < 0:
        raise ValueError(f"n must be 0 or more, not {items}")
    if blocks < 1:
        raise ValueError(f"parts must be 1 or more, not {blocks}")
    if not 0 <= block < blocks:
        raise ValueError(f"index must be from 0 to {blocks - 1}, not {block}")
    length, longer = divmod(items, blocks)
    start = block * length + min(block, longer)
    return slice(start, start + length + (block < longer))


def local(a: AnyArray, axis: int = 0) -> AnyArray:
    """Return this rank's block of an array, a view.  Local.

    Parameters
    ----------
    a : numpy.ndarray
        Shared or not.
    axis : int, optional
        The dimension that `split` divides among the ranks; negative counts from the last.

    Returns
    -------
    numpy.ndarray
        A view of `a`, shorter along `axis`.

    Raises
    ------
    ValueError
        `a` has no such axis.

    Examples
    --------
    >>> import dsm
    >>> a = dsm.zeros((100, 10))
    >>> dsm.local(a)[...] = dsm.rank()
    """
    if not isinstance(a, np.ndarray):
        raise TypeError(f"dsm.local takes an array, not {type(a).__name__}")
    dimension = operator.index(axis)
    if not -a.ndim <= dimension < a.ndim:
        raise ValueError(f"axis {dimension} is out of bounds for an array of {a.ndim} dimensions")
    dimension %= a.ndim
    return a[(slice(None),) * dimension + (split(a.shape[dimension]),)]
