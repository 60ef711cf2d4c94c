"""The random numbers of the NAS Parallel Benchmarks (Bailey et al., RNR-94-007, section 2.3): x -> 5^13 x mod 2^46.

2^46 divides 2^64, so the product of two words is right in its last 46 bits whatever is lost above.
"""

from __future__ import annotations

import numpy as np

from benchmarks.app import kernel

FACTOR = 5**13
SEED = 314159265  # of CG, FT and IS; EP has its own
MASK = 2**46 - 1
UNIT = 2.0**-46


@kernel
def after(seed: int, factor: int, count: int) -> int:
    """Return the number that `count` steps with `factor` reach from `seed`."""
    x, power = np.uint64(seed), np.uint64(factor)
    while count:
        if count & 1:
            x = x * power & np.uint64(MASK)
        power = power * power & np.uint64(MASK)
        count >>= 1
    return x


@kernel
def uniforms(first: int, count: int) -> np.ndarray:
    """Return numbers `first` to `first + count` of those that follow SEED, as float64 between 0 and 1."""
    x, factor, mask = after(SEED, FACTOR, first), np.uint64(FACTOR), np.uint64(MASK)
    drawn = np.empty(count)
    for i in range(count):
        x = x * factor & mask
        drawn[i] = UNIT * np.float64(x)
    return drawn
