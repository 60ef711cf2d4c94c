"""What a rank of the job runs: the rows that it is told, as the ranks of `micro` do."""

import sys
from pathlib import Path

# Last, so that an installed dsm, or the one that PYTHONPATH names, is the one that is measured.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks.micro.rank import main
from benchmarks.reach import hosts, programs, single

ROWS = single.ROWS | programs.ROWS | hosts.ROWS

if __name__ == "__main__":
    main(ROWS)
