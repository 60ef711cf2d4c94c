"""S1 to S3, S6, S7: one page from another rank, what others notice of it, and data of one's own."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import dsm
from benchmarks.micro import kernels
from benchmarks.micro.bench import PAGE, Bench, word_of
from benchmarks.micro.companion import compute
from benchmarks.micro.table import Case, Reach
from dsm._launch import outside_of_job

WORDS = PAGE // 8
APART = 16  # pages from one that is touched to the next: neighbours in a piece of up to 32 KiB would come with it


def pages_apart(turn: int, count: int) -> np.ndarray:
    """Numbers of the pages to touch, in an order of which nothing can be guessed."""
    return APART * np.random.default_rng(turn).permutation(count)


def not_all_cold(counters: dict[str, int], accesses: int) -> str:
    """Say so when pages had come before they were touched: what is measured then is not a fault."""
    faults = counters.get("faults_read", 0)
    return "" if faults >= 0.9 * accesses else f"only {faults} faults in {accesses} accesses"


def cold_page(bench: Bench) -> list[Case]:
    """S1: pages in random order, each used once, so that nothing can be known of them before."""
    bench.helper.need()
    count = bench.size(256, 16)
    section = count * APART * WORDS
    with bench.arrays() as make:
        resident = make((bench.rounds + 1) * section, page_size=PAGE)
        fresh = make((bench.rounds + 1) * section, page_size=PAGE)
        if bench.rank == 0:
            kernels.fill(resident, 1)
        dsm.barrier()

        def fetch(a: np.ndarray, turns: itertools.count) -> float:
            turn = next(turns)
            took, part = 0.0, slice(turn * section, (turn + 1) * section)
            if bench.rank == 1:
                kernels.fill(a[part], word_of(turn + 1))
            dsm.barrier()
            with bench.timed():
                if bench.rank == 0:
                    pages = pages_apart(turn, count)
                    took = bench.helper.touch_us(a[part], pages)
                    touched = a[part].reshape(-1, WORDS)[pages]
                    bench.check((touched == word_of(turn + 1)).all(), "a page that was fetched")
                dsm.barrier()
            return took

        turns = {"resident": itertools.count(), "fresh": itertools.count()}
        samples = bench.in_turns(
            fault=lambda: bench.helper.fault_us(count),
            rtt=lambda: bench.helper.round_trip_us(16, PAGE, count),
            resident=lambda: fetch(resident, turns["resident"]),
            fresh=lambda: fetch(fresh, turns["fresh"]),
        )
    sums = [fault + rtt for fault, rtt in zip(samples["fault"], samples["rtt"], strict=True)]
    what = "cold random page of 4 KiB, its holder waiting"
    return [
        Case("S1", "fault: SIGSEGV, mprotect, retry, without dsm", "us", samples["fault"]),
        Case("S1", "RTT: 16 B there, 4 KiB back, MPI in C", "us", samples["rtt"]),
        *(
            Case(
                "S1",
                f"{what}, {kind} backing",
                "us",
                samples[kind],
                {"fault + RTT": sums},
                Reach("ratio", limit),
                not_all_cold(bench.counters[kind], count),
                bench.counters[kind],
            )
            for kind, limit in (("resident", 1.3), ("fresh", 1.6))
        ),
    ]


def computing_holder(bench: Bench) -> list[Case]:
    """S2: the holder computes and looks for a message of MPI's, not of dsm's, every 5 ms only."""
    bench.helper.need()
    count = bench.size(64, 8)
    section = count * APART * WORDS
    turns = itertools.count()
    with bench.arrays() as make:
        a = make((bench.rounds + 1) * section, page_size=PAGE)
        if bench.rank == 0:
            kernels.fill(a, 1)
        dsm.barrier()

        def fetch() -> float:
            turn = next(turns)
            took, part = 0.0, slice(turn * section, (turn + 1) * section)
            if bench.rank == 1:
                kernels.fill(a[part], word_of(turn + 1))
            dsm.barrier()
            with bench.timed():
                if bench.rank == 0:
                    # Pauses, so that the holder's service thread is asleep again when the next request comes.
                    took = bench.helper.touch_us(a[part], pages_apart(turn, count), pause_us=500)
                    bench.comm.Send(bytearray(1), 1)
                elif bench.rank == 1:
                    while not bench.comm.Iprobe(0):
                        bench.helper.spin(5e-3)
                    bench.comm.Recv(bytearray(1), 0)
                dsm.barrier()
            return took

        samples = bench.in_turns(dsm=fetch, rtt=lambda: bench.helper.round_trip_us(16, PAGE, count))
    return [
        Case(
            "S2",
            "the same, holder computing without calling dsm",
            "us",
            samples["dsm"],
            {"RTT": samples["rtt"]},
            Reach("value", 70, hosts=140),
            not_all_cold(bench.counters["dsm"], count),
            bench.counters["dsm"],
        )
    ]


def slowdown(bench: Bench) -> list[Case]:
    """S3: the same loop in a rank, and in a process beside it that has neither dsm nor MPI, with the rank stopped."""
    seconds = bench.size(500, 20) / 1e3
    dsm.barrier()
    root = str(Path(__file__).resolve().parents[2])
    start = f"import sys; sys.path.append({root!r}); from benchmarks.micro.companion import main; main()"
    other = subprocess.Popen(
        [sys.executable, "-P", "-c", start],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=outside_of_job(os.environ),
    )

    def without() -> float:
        bench.comm.Barrier()
        other.stdin.write(f"{seconds}\n")
        other.stdin.flush()
        return bench.slowest(float(other.stdout.readline()))

    def beside_dsm() -> float:
        with bench.timed():
            took = compute(seconds)
        return bench.slowest(took)

    try:
        samples = bench.in_turns(dsm=beside_dsm, without=without)
    finally:
        other.communicate()
    return [
        Case(
            "S3",
            "computing while nobody asks: one sweep of 4 MiB",
            "ms",
            samples["dsm"],
            {"no dsm, no MPI": samples["without"]},
            Reach("ratio", 1.015),
            counters=bench.counters["dsm"],
        )
    ]


def first_write(bench: Bench) -> list[Case]:
    """S6: every round has memory that was never touched; all ranks write at once, each its own."""
    pages = bench.size(64 << 20, 1 << 20) // PAGE
    with bench.arrays() as make:
        a = make((bench.rounds + 1, bench.ranks, pages * WORDS), page_size=PAGE)
        turns = itertools.count()

        def write_shared() -> float:
            turn = next(turns)
            with bench.timed() as span:
                kernels.fill(a[turn, bench.rank], turn + 1)
            return bench.slowest(span.seconds) / pages * 1e6

        def write_fresh() -> float:
            memory = bench.fresh(pages * WORDS)
            with bench.timed() as span:
                kernels.fill(memory, 1)
            return bench.slowest(span.seconds) / pages * 1e6

        samples = bench.in_turns(dsm=write_shared, memfd=write_fresh)
    return [
        Case(
            "S6",
            f"first write to own data, {pages * PAGE >> 20} MiB in order, per page",
            "us",
            samples["dsm"],
            {"fresh memfd mapping": samples["memfd"]},
            Reach("ratio", 1.3),
            counters=bench.counters["dsm"],
        )
    ]


def own_data(bench: Bench) -> list[Case]:
    """S7: later intervals of data that their writer keeps to itself."""
    words, intervals = bench.size(16 << 20, 1 << 20) // 8, bench.size(20, 3)
    private = np.ones(words, np.int64)
    with bench.arrays() as make:
        a = make((bench.ranks, words), page_size=PAGE)

        def write(mine: np.ndarray) -> float:
            took = 0.0
            with bench.timed():
                for k in range(intervals):
                    start = time.perf_counter()
                    kernels.fill(mine, k)
                    took += time.perf_counter() - start
                    dsm.barrier()
            return bench.slowest(took / intervals) * 1e3

        samples = bench.in_turns(dsm=lambda: write(a[bench.rank]), private=lambda: write(private))
        counted, empty = bench.counters["dsm"], bench.counters["private"]
    faults = counted.get("faults_read", 0) + counted.get("faults_write", 0)
    messages = counted.get("messages_sent", 0) - empty.get("messages_sent", 0)
    what = "data that only its writer uses, later intervals"
    return [
        Case(
            "S7",
            f"{what}: writing {words * 8 >> 20} MiB",
            "ms",
            samples["dsm"],
            {"private numpy array": samples["private"]},
            Reach("ratio", 1.03),
            counters=counted,
        ),
        Case("S7", f"{what}: faults, all ranks", "per interval", [faults / intervals], reach=Reach("value", 0)),
        Case(
            "S7",
            f"{what}: messages beyond those of empty barriers",
            "per interval",
            [messages / intervals],
            reach=Reach("value", 0),
        ),
    ]


ROWS = {"S1": cold_page, "S2": computing_holder, "S3": slowdown, "S6": first_write, "S7": own_data}
