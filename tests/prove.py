"""Run every kind of proof for a given time, and print what was tried.

    python tests/prove.py --minutes 10 [--seed S] [--only WORD]

A part is a command that is repeated with new seeds until its share of the time is over.  One that fails prints what
the command said, with its seed, and makes the status 1; the other parts still run.  Seeds are new in every run unless
one is given; the first line names it.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import secrets
import subprocess
import sys
import time
import typing

import rich.box
import rich.console
import rich.table

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "prove"
GRACE_S = 900  # beyond what is left of its share, for a batch; then it hangs
LONG_MINUTES = 8
SEED_STEP = 1 << 32  # between batches: programs of one batch have neighbouring seeds


class Part(typing.NamedTuple):
    """One kind of proof."""

    name: str
    share: int  # of the time
    command: tuple[str, ...]  # a batch; {seed}, {seconds}, {build} are filled in
    figures: dict[str, str]  # what the output counts: summed over the batches
    make: str = ""  # what to make first: a makefile of tests/native, a target and its directory for results
    environment: dict[str, str] = {}  # noqa: RUF012  (never written to)
    parallel: bool = False  # a batch for every processor at a time; False: one fills the machine
    again: bool = True  # with another seed it does something else; False: once, and only in runs of LONG_MINUTES


# A test may take as long as its share: the limit for a batch is here, and a busy machine is no failure.
PYTEST = (sys.executable, "-P", "-m", "pytest", "-q", "--color=no", "--timeout=0", "--rootdir", str(ROOT))
PASSED = {"tests": r"(\d+) passed"}
SIMULATED = {
    "programs": r"  programs +(\d+)",
    "steps": r"  steps +(\d+)",
    "reads checked": r"  reads +(\d+)",
    "of them racy": r"  peeks +(\d+)",
    "messages": r"  deliveries +(\d+)",
    "cuts": r"  cuts +(\d+)",
}
SIMULATE = ("--seed={seed}", "--seconds={seconds}")


def unit(*names: str) -> tuple[str, ...]:
    """Command of tests of tests/unit, with a seed for hypothesis."""
    return (*PYTEST, "--hypothesis-seed={seed}", *(str(ROOT / f"tests/unit/test_{name}.py") for name in names))


def job(ranks: int, node: str, *names: str) -> tuple[str, ...]:
    """Command of tests of tests/mpi on some ranks, of which several or each are a node."""
    files = (str(ROOT / f"tests/mpi/test_{name}.py") for name in names)
    run = (sys.executable, "-P", "-m", "dsm", "run", "-n", str(ranks), "--node", node)
    return (*run, *PYTEST, "--capture=sys", "--with-mpi", *files)


def chaos(ranks: int, node: str, page_bytes: int) -> Part:
    """Return the part with programs of known result on a bad network."""
    return Part(
        f"chaos under MPI: {ranks} ranks, --node {node}, pages of {page_bytes >> 10} KiB",
        6,
        job(ranks, node, "invariants", "random"),
        PASSED,
        environment={
            "DSM_CHAOS": "{seed}",
            "DSM_PAGE_SIZE": str(page_bytes),
            "DSM_CHECK": "1",
            "DSM_TEST_PROGRAMS": "4",
        },
    )


PARTS = (
    Part(
        "every schedule of small programs and litmus programs",
        0,
        unit("exhaustive", "litmus"),
        PASSED,
        again=False,
    ),
    Part(
        "litmus programs under MPI, 3 ranks, a thousand times",
        0,
        job(3, "rank", "litmus"),
        PASSED,
        environment={"DSM_TEST_LITMUS": "1000"},
        again=False,
    ),
    Part(
        "random programs, simulated",
        30,
        ("{build}/sim", *SIMULATE),
        SIMULATED,
        make="sim.mk sim SIM_BUILD",
        parallel=True,
    ),
    Part(
        "the same, all invariants after every step",
        10,
        ("{build}/sim", *SIMULATE, "--check=2"),
        SIMULATED,
        make="sim.mk sim SIM_BUILD",
        parallel=True,
    ),
    Part(
        "the same, address and undefined-behaviour sanitizers",
        10,
        ("{build}/sim-asan", *SIMULATE),
        SIMULATED,
        make="sim.mk sim-asan SIM_BUILD",
        parallel=True,
    ),
    Part(
        "schedules chosen and shrunk by hypothesis",
        6,
        unit("stateful"),
        PASSED,
        environment={"DSM_TEST_EXAMPLES": "60"},
        parallel=True,
    ),
    Part(
        "messages from a fuzzer, sanitizers",
        10,
        ("{build}/fuzz", "--seed={seed}", "--runs=100000"),
        {"inputs": r"  total (\d+)"},
        make="fuzz.mk build-plain FUZZ_BUILD",
        parallel=True,
    ),
    Part(
        "the runtime's threads, thread sanitizer",
        16,
        ("make", "-s", "-f", str(ROOT / "tests/native/race.mk"), "run", "RACE_BUILD={build}", "SECONDS={seconds}"),
        {"steps": r": (\d+) steps", "faults": r"(\d+) read and", "messages": r"(\d+) messages"},
        make="race.mk race RACE_BUILD",
    ),
    chaos(4, "2", 4 << 10),
    chaos(3, "rank", 64 << 10),
    chaos(2, "rank", 1 << 20),
)


def run_batch(part: Part, seed: int, seconds: float) -> tuple[int, str]:
    """Run the command once; its status and all that it printed."""
    filled = [word.format(seed=seed, seconds=max(1, round(seconds)), build=BUILD) for word in part.command]
    environment = os.environ | {key: text.format(seed=seed) for key, text in part.environment.items()}
    try:
        done = subprocess.run(
            filled,
            env=environment,
            cwd=BUILD,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds + GRACE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return 1, f"{late.stdout or ''}\nno end after {seconds + GRACE_S:.0f} s"
    return done.returncode, done.stdout


def run_part(part: Part, seed: int, seconds: float) -> tuple[dict[str, int], str]:
    """Repeat the part until its time is over, or it fails; its figures, and what the failing batch printed."""
    if part.make:
        makefile, target, build = part.make.split()
        command = ["make", "-s", "-f", str(ROOT / "tests/native" / makefile), target, f"{build}={BUILD}"]
        subprocess.run(command, check=True, cwd=ROOT)
    totals = dict.fromkeys(part.figures, 0)
    workers = (os.cpu_count() or 1) if part.parallel else 1
    end = time.monotonic() + seconds
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        while True:
            left = max(1.0, end - time.monotonic())
            seeds = [seed + SEED_STEP * i for i in range(workers)]
            seed += SEED_STEP * workers
            for status, text in pool.map(run_batch, [part] * workers, seeds, [left] * workers):
                if status:
                    return totals, text
                for name, pattern in part.figures.items():
                    counts = [int(count.replace(",", "")) for count in re.findall(pattern, text)]
                    if not counts:
                        return totals, f"{text}\nnothing in this output says how many {name}"
                    totals[name] += sum(counts)
            if not part.again or time.monotonic() >= end - 1:
                return totals, ""


def main() -> int:
    """Print the table; the status is the number of parts that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31))
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    long = arguments.minutes >= LONG_MINUTES
    parts = [part for part in PARTS if arguments.only in part.name and (part.again or long)]
    shares = sum(part.share for part in parts) or 1
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    print(f"commit {commit or 'unknown'}, --seed {arguments.seed}, {arguments.minutes:g} minutes", flush=True)
    table = rich.table.Table(box=rich.box.SIMPLE, title="what was tried")
    for column in ("part", "seconds", "figures", ""):
        table.add_column(column)
    failed = 0
    for part in parts:
        start = time.monotonic()
        figures, failure = run_part(part, arguments.seed, 60 * arguments.minutes * part.share / shares)
        took_s = time.monotonic() - start
        failed += bool(failure)
        said = ", ".join(f"{count:,} {name}" for name, count in figures.items())
        print(f"{part.name}: {took_s:.0f} s, {said}", flush=True)
        if failure:
            print(f"FAILED\n{failure}", flush=True)
        table.add_row(part.name, f"{took_s:.0f}", said, "FAILED" if failure else "no failure")
    rich.console.Console(width=150).print(table)
    return failed


if __name__ == "__main__":
    sys.exit(main())
