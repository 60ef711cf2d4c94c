"""`python -m benchmarks`: what dsm costs beside the same work by message passing.

run [APPS]       applications, serial, with mpi4py and with dsm, verified
sweep WHAT       the same over page sizes, ranks or networks, or the map of page size and granularity
list             the applications
compare OLD NEW  two files of results
ablation [APPS]  what programs send and wait for without one optimisation at a time
report [FILE]    a page with tables and pictures
micro            single operations
reach            what hosts as nodes are to reach, beyond the applications
"""

from __future__ import annotations

import importlib
import sys

USAGE = 2


def main() -> int:
    """Carry out the command that the first word names."""
    if sys.argv[1:2] in (["micro"], ["reach"]):
        return importlib.import_module(f"benchmarks.{sys.argv[1]}.launch").main(sys.argv[2:])
    try:
        from benchmarks import cli
    except ModuleNotFoundError as missing:
        print(f"not installed: {missing.name}. `pip install '.[bench]'` brings what the suite needs", file=sys.stderr)
        return USAGE
    return cli.main(sys.argv[1:], __doc__)


if __name__ == "__main__":
    sys.exit(main())
