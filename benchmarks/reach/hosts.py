"""Faults of several ranks of one host on pages of another: on two hosts, whose first one has written the pages.

Ranks fill one host after the other.  Those that do not fault sleep, and so does rank 0, which holds the pages.
"""

from __future__ import annotations

import itertools

import numpy as np

import dsm
from benchmarks.micro import kernels
from benchmarks.micro.bench import PAGE, Bench, word_of
from benchmarks.micro.faults import APART, WORDS, not_all_cold, pages_apart
from benchmarks.micro.table import Case, Reach
from benchmarks.suite_rank import wait_asleep


class Pages:
    """Pages of rank 0, in each turn a section for each rank of the other host, so that nothing is known of them."""

    def __init__(self, bench: Bench) -> None:
        bench.helper.need()
        self.bench, self.count = bench, bench.size(64, 16)
        self.local = bench.rank - bench.per_host  # among those of the other host, from 0
        self.turns = itertools.count()
        self.shape = (2 * (bench.rounds + 1), bench.per_host, self.count * APART * WORDS)

    def touch_us(self, all_: np.ndarray, locals_: range) -> tuple[float, float]:
        """Let some ranks of the other host read their sections at once.  Collective.

        Returns the median time of an access, on the slowest rank, and the time of all over the number of accesses.
        """
        bench, turn = self.bench, next(self.turns)
        a = all_[turn]
        if bench.rank == 0:
            kernels.fill(a.reshape(-1), word_of(turn))
        dsm.barrier()
        took, pages = 0.0, pages_apart(turn, self.count)
        with bench.timed() as span:
            if self.local in locals_:
                took = bench.helper.touch_us(a[self.local], pages)
            else:
                span.seconds = 1e-9
            span.stop()
            wait_asleep()
        if self.local in locals_:
            touched = a[self.local].reshape(-1, WORDS)[pages]
            bench.check((touched == word_of(turn)).all(), "a page of the other host")
        dsm.barrier()
        return bench.slowest(took), bench.slowest(span.seconds) * 1e6 / (self.count * len(locals_))


def local_rank(bench: Bench) -> list[Case]:
    """A fault of local rank 1 beside one of local rank 0."""
    pages = Pages(bench)
    with bench.arrays() as make:
        a = make(pages.shape, page_size=PAGE)
        samples = bench.in_turns(
            first=lambda: pages.touch_us(a, range(1))[0], second=lambda: pages.touch_us(a, range(1, 2))[0]
        )
    counters = bench.counters["second"]
    rivals = {"local rank 0": samples["first"]}
    what, note = "fault of local rank 1 on a page of another host", not_all_cold(counters, pages.count)
    return [Case("local-rank", what, "us", samples["second"], rivals, Reach("ratio", 1.2), note, counters)]


def crowd(bench: Bench) -> list[Case]:
    """All ranks of a host fault at once, on different pages: the time of all over the number of pages."""
    pages = Pages(bench)
    with bench.arrays() as make:
        a = make(pages.shape, page_size=PAGE)
        samples = bench.in_turns(
            one=lambda: pages.touch_us(a, range(1))[1], all=lambda: pages.touch_us(a, range(bench.per_host))[1]
        )
    counters = bench.counters["all"]
    rivals = {"one process": samples["one"]}
    what = f"{bench.per_host} processes of a host that fault at once on pages of another, a page"
    note = not_all_cold(counters, pages.count * bench.per_host)
    return [Case("crowd", what, "us", samples["all"], rivals, Reach("ratio", 0.5), note, counters)]


ROWS = {"local-rank": local_rank, "crowd": crowd}
