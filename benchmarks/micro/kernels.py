"""Loops that numba compiles, the same for dsm and for its rivals."""

import numba
import numpy as np

compiled = numba.njit(cache=True, nogil=True)


@compiled
def fill(a: np.ndarray, value: int) -> None:
    """Write every item of a flat array, in order."""
    for k in range(a.size):
        a[k] = value


@compiled
def total(a: np.ndarray) -> int:
    """Read every item of a flat array of integers, in order."""
    found = 0
    for k in range(a.size):
        found += a[k]
    return found


@compiled
def total_of_blocks(a: np.ndarray, first: int, width: int, stride: int) -> int:
    """Read `width` items from item `first` on and then from every `stride`-th one."""
    found = 0
    for start in range(first, a.size, stride):
        for k in range(start, start + width):
            found += a[k]
    return found


@compiled
def pack_blocks(a: np.ndarray, first: int, width: int, stride: int, packed: np.ndarray) -> None:
    """Copy the items that `total_of_blocks` reads next to each other."""
    place = 0
    for start in range(first, a.size, stride):
        for k in range(start, start + width):
            packed[place] = a[k]
            place += 1


@compiled
def jacobi(old: np.ndarray, new: np.ndarray, first: int, end: int) -> None:
    """Make rows `first` to `end` of `new` the mean of the four neighbours in `old`; the outer columns stay."""
    for i in range(first, end):
        for j in range(1, old.shape[1] - 1):
            new[i, j] = 0.25 * (old[i - 1, j] + old[i + 1, j] + old[i, j - 1] + old[i, j + 1])


@compiled
def transpose(source: np.ndarray, target: np.ndarray) -> None:
    """Set `target` to the transpose of `source` and 1, in squares that fit the cache.

    Without the 1 every other step would write what is there already, which dsm does not send.
    """
    square = 32
    for i0 in range(0, source.shape[0], square):
        for j0 in range(0, source.shape[1], square):
            for j in range(j0, min(j0 + square, source.shape[1])):
                for i in range(i0, min(i0 + square, source.shape[0])):
                    target[j, i] = source[i, j] + 1
