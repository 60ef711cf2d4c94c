"""Temperature of a square plate whose edges are held at given temperatures, by Jacobi's method.

Each rank renews its block of rows; the rows of its neighbours are simply there, and a barrier after each step makes the
new ones visible.  One edge follows a half sine and the others are at zero, so that the exact answer is known too:
sin(pi x) sinh(pi y) / sinh(pi).  The result is the same as the serial one, bit by bit.

    mpiexec -n 4 python heat.py                     # or: python -m dsm run -n 4 heat.py
    mpiexec -n 4 python heat.py --size 1024 --steps 500
"""

import argparse
import time

import numpy as np

import dsm


def set_edges(plate):
    """Half a sine wave of 100 degrees along the last row; the other three edges, and the plate, are at zero."""
    plate[-1] = 100 * np.sin(np.linspace(0, np.pi, plate.shape[1]))
    plate[-1, -1] = 0


def renew(old, new, rows):
    """Each inner point of `rows` becomes the mean of its four neighbours."""
    above, here, below = (slice(rows.start + k, rows.stop + k) for k in (0, 1, 2))
    new[here, 1:-1] = 0.25 * (old[above, 1:-1] + old[below, 1:-1] + old[here, :-2] + old[here, 2:])


def solve(size, steps):
    """The plate after `steps` steps, computed by all ranks.  Collective."""
    old = dsm.zeros((size, size), name="plate, even steps")
    new = dsm.zeros((size, size), name="plate, odd steps")
    if dsm.rank() == 0:
        set_edges(old)
        set_edges(new)
    dsm.barrier()
    rows = dsm.split(size - 2)  # of the inner rows, this rank's block
    for _ in range(steps):
        renew(old, new, rows)
        dsm.barrier()
        old, new = new, old
    return old


def solve_alone(size, steps):
    """The same in private memory: the serial reference."""
    old, new = np.zeros((size, size)), np.zeros((size, size))
    set_edges(old)
    set_edges(new)
    for _ in range(steps):
        renew(old, new, slice(0, size - 2))
        old, new = new, old
    return old


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="points along an edge")
    parser.add_argument("--steps", type=int, default=200, help="Jacobi steps")
    options = parser.parse_args()
    dsm.init()
    start = time.perf_counter()
    plate = solve(options.size, options.steps)
    seconds = time.perf_counter() - start
    if dsm.rank() == 0:
        start = time.perf_counter()
        reference = solve_alone(options.size, options.steps)
        serial_seconds = time.perf_counter() - start
        assert np.array_equal(plate, reference)
        x = np.linspace(0, 1, options.size)
        exact = 100 * np.sin(np.pi * x) * (np.sinh(np.pi * x) / np.sinh(np.pi))[:, None]
        print(f"heat: {options.size} x {options.size} points, {options.steps} steps, the same as serial bit by bit")
        print(f"  mean {plate.mean():.6f} degrees; farthest from equilibrium by {abs(plate - exact).max():.3f}")
        print(f"  {dsm.size()} ranks {seconds:.2f} s, serial {serial_seconds:.2f} s")
        print(f"  {dsm.stats()}")


if __name__ == "__main__":
    main()
