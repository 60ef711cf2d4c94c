"""What a rank of the job runs: the rows that it is told, one line of JSON per case into a file that rank 0 writes."""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

# Last, so that an installed dsm, or the one that PYTHONPATH names, is the one that is measured.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from mpi4py import MPI

from benchmarks.micro import apps, faults, fetch, memory, sync
from benchmarks.micro.bench import Bench, NotMeasuredError
from benchmarks.micro.table import NOT_MEASURED, Case
from dsm._launch import cores

ROWS = faults.ROWS | fetch.ROWS | sync.ROWS | apps.ROWS | memory.ROWS


def main(rows: Mapping[str, Callable[[Bench], list[Case]]]) -> None:
    """Run the rows one after the other; a row that raises ends the job, and who started it knows which one it was."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", required=True)
    parser.add_argument("--results", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--hosts", action="store_true")
    parser.add_argument("--per-host", type=int, default=1)
    options = parser.parse_args()
    bench = Bench(options.rounds, options.tiny, options.hosts, options.per_host)
    about = {
        "ranks": bench.ranks,
        "cores": cores(),
        "hosts": options.hosts,
        "per_host": options.per_host,
        "oversubscribed": bench.ranks > cores(),
        "mpi": " ".join(filter(None, [MPI.get_vendor()[0], ".".join(map(str, MPI.get_vendor()[1]))])),
        "rounds": options.rounds,
        "load": os.getloadavg()[0],
    }
    with open(options.results, "a") if bench.rank == 0 else open(os.devnull, "w") as file:
        print(json.dumps(about), file=file, flush=True)
        for row in options.rows.split(","):
            start = time.perf_counter()
            try:
                cases = rows[row](bench)
            except NotMeasuredError as why:
                cases = [Case(row, rows[row].__name__.replace("_", " "), note=str(why), verdict_given=NOT_MEASURED)]
            for case in cases:
                print(json.dumps(dataclasses.asdict(case)), file=file, flush=True)
            if bench.rank == 0:
                print(f"{row}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(ROWS)
