"""Starts a job for each layout of ranks, and prints a table for each.

Rows that need two hosts run on virtual ones.  Where these are not allowed, nodes of as many ranks stand for them.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cluster import hosts
from benchmarks.micro import launch, table
from benchmarks.micro.table import FAILED, Case


class Layout(NamedTuple):
    """Which rows run on how many ranks: all on this host, or two hosts with half of them each."""

    rows: tuple[str, ...]
    ranks: int
    two_hosts: bool = False


LAYOUTS = (
    Layout(("memory",), 8),
    Layout(("transpose", "pipeline", "paths", "jacobi", "first-write", "barrier", "lock", "threads", "silence"), 2),
    Layout(("local-rank",), 4, two_hosts=True),
    Layout(("crowd",), 16, two_hosts=True),
)
ROWS = tuple(row for layout in LAYOUTS for row in layout.rows)
PROGRAM = Path(__file__).with_name("rank.py")


def parser() -> argparse.ArgumentParser:
    """Make the parser of `python -m benchmarks reach`."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks reach", description="What hosts as nodes are to reach, beside mpi4py and the floor."
    )
    made.add_argument("--ranks", "-n", type=int, default=2, help="of the rows that say no number (default 2)")
    made.add_argument("--rounds", type=int, default=7, help=f"rounds of each row, {launch.ROUNDS_MIN} or more")
    made.add_argument("--only", type=rows_named, default=ROWS, metavar="ROW,...", help=f"of {', '.join(ROWS)}")
    launch.add_common(made)
    return made


def rows_named(text: str) -> tuple[str, ...]:
    """Read `--only`: rows in the order of the tables, each once."""
    wanted = {word.strip() for word in text.split(",") if word.strip()}
    if not wanted or not wanted <= set(ROWS):
        raise argparse.ArgumentTypeError(f"rows are {', '.join(ROWS)}, not {text!r}")
    return tuple(row for row in ROWS if row in wanted)


def measure(options: argparse.Namespace) -> list[tuple[list[Case], dict[str, Any]]]:
    """Run the rows that were asked for: the cases of each layout, and on what they were measured."""
    made = []
    for layout in LAYOUTS:
        rows = [row for row in layout.rows if row in options.only]
        if rows:
            made.append(_run(layout, rows, options))
    return made


def _run(layout: Layout, rows: list[str], options: argparse.Namespace) -> tuple[list[Case], dict[str, Any]]:
    here = argparse.Namespace(**vars(options))
    here.ranks = options.ranks if layout.ranks == 2 else 4 if options.tiny else layout.ranks
    here.hosts, half = layout.two_hosts, here.ranks // 2
    if layout.two_hosts:
        try:
            with hosts.Hosts(1):
                pass
        except hosts.NoHostsError as why:
            print(f"no virtual hosts, so nodes of {half} ranks stand for them: {why}", file=sys.stderr)
            here.hosts, here.node = False, str(half)
    jobs = launch.Jobs(here, PROGRAM, half if layout.two_hosts else 1)
    return jobs.run(rows), jobs.about


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and tell by the status whether every row ran: 0, or 1."""
    options = parser().parse_args(arguments)
    problem = launch.problem_of(options)
    if problem:
        print(problem, file=sys.stderr)
        return 2
    # The jobs have sessions of their own and would outlive this process.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    made = measure(options)
    for cases, about in made:
        if about:
            table.show(cases, about, counters=options.counters)
    if options.json:
        parts = [json.loads(table.as_json(cases, about)) for cases, about in made]
        Path(options.json).write_text(json.dumps(parts, indent=1) + "\n")
    failed = any(case.verdict_given == FAILED for cases, _ in made for case in cases)
    return int(failed or not all(about for _, about in made))
