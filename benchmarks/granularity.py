"""Runs the sweep over page sizes and granularities: a job for each pattern, whose points are kept as far as it came."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import job, results, synthetic
from benchmarks.run import ONE_THREAD, Runner, trouble_of

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
    with tempfile.TemporaryDirectory(prefix="dsm-benchmark-") as folder:
        file, output = Path(folder) / "results", Path(folder) / "output"
        file.touch()
        program = [sys.executable, "-P", str(results.ROOT / "benchmarks" / "synthetic_rank.py"), "--patterns", pattern]
        program += ["--results", str(file), "--repetitions", str(runner.repetitions)] + ["--tiny"] * tiny
        try:
            with runner.place.command(ranks, program) as (words, environ), output.open("w") as said:
                status = job.wait(words, environ | ONE_THREAD, TIMEOUT_S, said)
        finally:  # Ctrl-C does not take away what was measured
            records = [_record(runner, json.loads(line)) for line in file.read_text().splitlines()]
            results.append(runner.path, records)
            runner.kept += len(records)
        return len(records), trouble_of(status, output.read_text(errors="replace"), TIMEOUT_S)


def _record(runner: Runner, measured: dict[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"kind": "granularity", "time": now, **runner.about, "load": os.getloadavg()[0], **measured}
