"""A first program with dsm: rows of a field are renewed in steps, and each step's sum is kept.

It does what its author thought of first: rows are dealt out in turn, and each row is added to the sum under the lock.
The report names both faults; `--sum` and `--blocks` follow its advice (docs/insight.md).

    python -m dsm run --node rank --profile -n 2 rows.py
"""

import argparse
import time

import numpy as np

import dsm

ROWS, COLUMNS, STEPS = 512, 64, 60  # a row has 512 bytes: eight rows in a page


def renew(field, row, step):
    """Renew a row, and return its sum."""
    field[row] = np.sin(field[row] + row + step)
    return field[row].sum()


def main():
    """Time the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sum", action="store_true", help="take the lock once in a step, as advised first")
    parser.add_argument("--blocks", action="store_true", help="give each rank a block of rows, as advised then")
    options = parser.parse_args()
    field = dsm.zeros((ROWS, COLUMNS), name="field")
    total, lock = dsm.zeros(STEPS, name="total"), dsm.Lock(name="total")
    rows = range(ROWS)[dsm.split(ROWS)] if options.blocks else range(dsm.rank(), ROWS, dsm.size())
    dsm.barrier()
    start = time.perf_counter()
    for step in range(STEPS):
        part = 0.0
        for row in rows:
            part += renew(field, row, step)
            if not options.sum:
                with lock:
                    total[step] += part
                part = 0.0
        if options.sum:
            with lock:
                total[step] += part
        dsm.barrier()
    if dsm.rank() == 0:
        print(f"rows: sum {total.sum():.6f} in {time.perf_counter() - start:.3f} s")


if __name__ == "__main__":
    main()
