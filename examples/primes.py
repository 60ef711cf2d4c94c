"""Number of primes, with blocks of numbers handed out as ranks ask for them.

`dsm.Counter` gives each block to one rank only, and a fast rank takes more of them.  What a rank finds goes into a
shared array, and the barrier makes it visible to all.

    mpiexec -n 4 python primes.py                   # or: python -m dsm run -n 4 primes.py
    mpiexec -n 4 python primes.py --below 100000000
"""

import argparse
import math
import time

import numpy as np

import dsm


def sieve(below):
    """All primes below a number, by Eratosthenes: also the serial reference."""
    is_prime = np.ones(max(below, 2), bool)
    is_prime[:2] = False
    for n in range(2, math.isqrt(max(below - 1, 0)) + 1):
        if is_prime[n]:
            is_prime[n * n :: n] = False
    return np.flatnonzero(is_prime[:below])


def primes_between(first, last, small):
    """Primes in [first, last), given all primes up to the square root of `last`."""
    is_prime = np.ones(last - first, bool)
    for p in small.tolist():
        is_prime[max(p * p, -(-first // p) * p) - first :: p] = False
    return first + np.flatnonzero(is_prime)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--below", type=int, default=10_000_000)
    parser.add_argument("--block", type=int, default=100_000, help="numbers that a rank takes at a time")
    options = parser.parse_args()
    blocks = range(2, options.below, options.block)
    small = sieve(math.isqrt(options.below) + 1)
    found = dsm.zeros((len(blocks), 2), int, name="primes, and rank, of each block")
    tickets = dsm.Counter()
    start = time.perf_counter()
    while (ticket := tickets.next()) < len(blocks):
        primes = primes_between(blocks[ticket], min(blocks[ticket] + options.block, options.below), small)
        found[ticket] = len(primes), dsm.rank()
    dsm.barrier()
    seconds = time.perf_counter() - start
    if dsm.rank() == 0:
        count = int(found[:, 0].sum())
        assert count == len(sieve(options.below))
        print(f"primes: {count} below {options.below}, as by the serial sieve")
        print(f"  blocks of each rank {np.bincount(found[:, 1], minlength=dsm.size()).tolist()} in {seconds:.2f} s")
        print(f"  {dsm.stats()}")


if __name__ == "__main__":
    main()
