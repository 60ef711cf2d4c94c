"""Quantities as a reader wants them: a number with its unit, three digits."""

from __future__ import annotations

from collections.abc import Sequence


def seconds(value: float) -> str:
    """Write a time.  Local."""
    if value >= 100:
        return f"{value:,.0f} s"
    if value >= 0.9995:  # what prints as 1000 ms is a second
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    if value >= 0.9995e-3:
        return f"{value * 1e3:.3g} ms"
    return f"{value * 1e6:.3g} \N{MICRO SIGN}s" if value > 0 else "0 s"


def size(value: float) -> str:
    """Write a number of bytes.  Local."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} TiB"


def count(value: float) -> str:
    """Write a number of things.  Local."""
    return f"{value:,.0f}"


def share(value: float) -> str:
    """Write a part of a whole.  Local."""
    percent = value * 100
    if 0 < percent < 1:
        return "less than 1 %"
    return f"{percent:.0f} %"


def counted(number: int, noun: str) -> str:
    """Write a number with its noun, in the plural where need be.  Local."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listed(names: Sequence[str]) -> str:
    """Write names with commas and an `and`.  Local."""
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)


def ranks(numbers: Sequence[int]) -> str:
    """Write ranks with runs together: `ranks 0 to 3 and 7`.  Local."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [f"{a}" if a == b else f"{a} and {b}" if b == a + 1 else f"{a} to {b}" for a, b in runs]
    return ("rank " if len(numbers) == 1 else "ranks ") + listed(parts)
