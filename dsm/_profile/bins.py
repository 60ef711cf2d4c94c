"""Counts of an array's pages as few bins along its first axis, and these as runs of equal values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from dsm._numpy import AnyArray

BINS_MAX = 256
ROWS_LEAST = 64  # an array of fewer rows is divided by its pages, where it has more of these

Runs = list[list[float]]


def bins_of(shape: tuple[int, ...], order: str, pages: int) -> tuple[int, str]:
    """Return the number of bins of an array, and what divides them: "rows" or "pages".  Local."""
    rows = shape[0] if shape else 1
    if order == "C" and rows >= min(ROWS_LEAST, pages):
        return max(1, min(BINS_MAX, rows)), "rows"
    return max(1, min(BINS_MAX, pages)), "pages"


def binned(
    counts: AnyArray, bins: int, bytes_: int, page_bytes: int, best: Callable[[AnyArray], AnyArray] = np.max
) -> AnyArray:
    """Return the largest (or by another rule the best) count of the pages that overlap each bin.  Local.

    Parameters
    ----------
    counts : numpy.ndarray
        A count for each page.
    bins : int
        They divide the bytes evenly.
    bytes_ : int
        Of the array.
    page_bytes : int
        Of a page.
    best : callable, optional
        Makes one number of those of the pages of a bin.
    """
    found = np.zeros(bins, counts.dtype)
    for number in range(bins):
        first = number * bytes_ // bins // page_bytes
        last = max(first, math.ceil((number + 1) * bytes_ / bins / page_bytes) - 1)
        part = counts[first : last + 1]
        if len(part):
            found[number] = best(part)
    return found


def spread(runs: Runs, bins: int) -> AnyArray:
    """Return a value for each bin, given runs of equal values.  Local."""
    values = np.zeros(bins, np.int64)
    for first, length, value in runs:
        values[int(first) : int(first + length)] = value
    return values


def runs_of(values: AnyArray, nothing: float = 0) -> Runs:
    """Return the runs [first, length, value] of equal values, without those of `nothing`.  Local."""
    if not len(values):
        return []
    edges = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    runs = [[a, b - a, values[a].item()] for a, b in itertools.pairwise(edges)]
    return [run for run in runs if run[2] != nothing]
