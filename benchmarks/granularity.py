"""Runs the sweep over page sizes and granularities: a job for each pattern, whose points are kept as far as it came."""

from __future__ import annotations

import sys
import time

from benchmarks import results, synthetic
from benchmarks.run import ONE_THREAD, Runner

TIMEOUT_S = 1800.0


def sweep(runner: Runner, ranks: int, tiny: bool) -> None:
    """Measure all patterns.  Points of all of them are appended to the runner's results."""
    with runner.progress(len(synthetic.PATTERNS)) as advance:
        for pattern in synthetic.PATTERNS:
            start = time.perf_counter()
            advance(pattern, 0)
            points, trouble = one(runner, pattern, ranks, tiny)
            if trouble:
                runner.failures.append(f"{pattern}: {trouble}")
            told = trouble or f"{points} points"
            advance(f"{pattern}: {told}  [{time.perf_counter() - start:.0f} s]", 1)


def one(runner: Runner, pattern: str, ranks: int, tiny: bool) -> tuple[int, str]:
    """Measure a pattern: how many points were kept, and what went wrong."""
    program = [sys.executable, "-P", str(results.ROOT / "benchmarks" / "synthetic_rank.py"), "--patterns", pattern]
    program += ["--repetitions", str(runner.repetitions)] + ["--tiny"] * tiny
    records, trouble = runner.job(ranks, program, ONE_THREAD, TIMEOUT_S, lambda _: {"kind": "granularity"})
    return len(records), trouble
