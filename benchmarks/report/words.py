"""How the report writes quantities: three digits that count, units a reader thinks in, lists as in a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from benchmarks.micro.table import number
from benchmarks.results import Interval

DASH = "\N{EN DASH}"
MICRO = "\N{MICRO SIGN}"
NOTHING = DASH  # what stands in a cell without a value


def seconds(value: float) -> str:
    """Write a time in microseconds, milliseconds or seconds."""
    for unit, scale in ((f"{MICRO}s", 1e-6), ("ms", 1e-3)):
        if value < 1000 * scale:
            return f"{number(value / scale)} {unit}"
    return f"{number(value)} s"


def size(bytes_: float) -> str:
    """Write a number of bytes in the largest unit of which there is one."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if bytes_ >= 1 << shift:
            return f"{number(bytes_ / (1 << shift))} {unit}"
    return f"{number(bytes_)} B"


def ratio(value: float) -> str:
    """Write a ratio with two places, or two digits where it is small."""
    if value >= 0.1:
        return f"{value:.2f}" if value < 10 else number(value)
    return f"{value:.3f}" if value >= 0.01 else f"{value:.2g}"


def interval(found: Interval) -> str:
    """Write from where to where it goes."""
    return f"{ratio(found.low)}{DASH}{ratio(found.high)}"


def power_of_two(value: float) -> str:
    """Write a power of two, a half as 1/2."""
    return f"{value:g}" if value >= 1 else f"1/{1 / value:g}"


def percent(share: float) -> str:
    """Write a share in whole percent."""
    if 0 < share < 0.005:
        return "less than 1 %"
    return f"{100 * share:.0f} %"


def listed(words: Iterable[str]) -> str:
    """Join words as in a sentence: "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def counted(n: int, noun: str) -> str:
    """Write a number with its noun, which takes an s unless there is one."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean, which is the mean for ratios."""
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))
