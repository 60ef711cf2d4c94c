"""Where particles hit a detector: one-byte counters of different ranks side by side in one page of memory.

The detector has 64 x 64 pixels, one page in all, and rank r counts the hits in columns r, r + size, r + 2 size and so
on: each byte's neighbours belong to other ranks, and all of them write the page at the same time.  A barrier puts the
bytes together; nobody's are lost.

    mpiexec -n 4 python histogram.py                # or: python -m dsm run -n 4 histogram.py
    mpiexec -n 4 python histogram.py --hits 1000000
"""

import argparse
import time

import numpy as np

import dsm

PIXELS = 64


def make_hits(count, batch):
    """Row and column of the particles of a batch: two beams on a uniform background; the same on every rank."""
    random = np.random.default_rng(batch)
    centers = np.array([[20, 20], [40, 45]])[random.integers(2, size=count)]
    beams = random.normal(centers, 6).round().astype(int)
    background = random.integers(PIXELS, size=(count // 4, 2))
    hits = np.concatenate([beams, background])
    return hits[((hits >= 0) & (hits < PIXELS)).all(axis=1)].T


def count_hits(counts, rows, columns):
    """Add hits to counters of one byte; a full one stays at 255."""
    more = np.zeros(counts.shape, int)
    np.add.at(more, (rows, columns), 1)
    counts[:] = np.minimum(counts + more, 255)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hits", type=int, default=20_000, help="particles in a batch")
    parser.add_argument("--batches", type=int, default=20)
    options = parser.parse_args()
    counts = dsm.zeros((PIXELS, PIXELS), np.uint8, name="counts")
    mine = counts[:, dsm.rank() :: dsm.size()]  # a view: every size-th byte
    start = time.perf_counter()
    for batch in range(options.batches):
        rows, columns = make_hits(options.hits, batch)
        own = columns % dsm.size() == dsm.rank()
        count_hits(mine, rows[own], columns[own] // dsm.size())
        dsm.barrier()
    seconds = time.perf_counter() - start
    reference = np.zeros((PIXELS, PIXELS), np.uint8)
    for batch in range(options.batches):
        count_hits(reference, *make_hits(options.hits, batch))
    assert np.array_equal(counts, reference)  # on every rank
    if dsm.rank() == 0:
        row, column = divmod(int(counts.argmax()), PIXELS)
        print(f"histogram: {counts.sum()} hits in {options.batches} batches, the same as serial on every rank")
        print(f"  {(counts == 255).sum()} of {counts.size} pixels are full, first row {row}, column {column}")
        print(f"  {dsm.size()} ranks {seconds:.2f} s")
        print(f"  {dsm.stats()}")


if __name__ == "__main__":
    main()
