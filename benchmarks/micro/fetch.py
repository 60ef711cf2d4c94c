"""S4, S5, S12, S15: many pages from other ranks, beside the messages that carry the same bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

import dsm
from benchmarks.micro import kernels
from benchmarks.micro.bench import PAGE, Bench, word_of, wrapped
from benchmarks.micro.table import NOT_YET, Case, Reach

WORDS = PAGE // 8
MESSAGE_WORDS = (1 << 20) // 8


def by_messages(bench: Bench, source: np.ndarray, target: np.ndarray, ahead: bool) -> int:
    """Send `source` of rank 1 to `target` of rank 0 in messages of 1 MiB, and read each when it is there: the sum.

    `ahead` posts all of them at once; otherwise one after the other.
    """
    pieces = [slice(k, k + MESSAGE_WORDS) for k in range(0, source.size, MESSAGE_WORDS)]
    found = 0
    if bench.rank == 1 and ahead:
        for request in [bench.comm.Isend(source[piece], 0) for piece in pieces]:
            request.Wait()
    elif bench.rank == 1:
        for piece in pieces:
            bench.comm.Send(source[piece], 0)
    elif bench.rank == 0:
        requests = [bench.comm.Irecv(target[piece], 1) for piece in pieces] if ahead else []
        for k, piece in enumerate(pieces):
            if ahead:
                requests[k].Wait()
            else:
                bench.comm.Recv(target[piece], 1)
            found += kernels.total(target[piece])
    return wrapped(found)


def sequential(bench: Bench) -> list[Case]:
    """S4: the clock starts when the other rank has written, so what a barrier sends ahead counts."""
    words = bench.size(64 << 20, 2 << 20) // 8
    value = itertools.count(1)
    source, warm = np.ones(words, np.int64), np.ones(words, np.int64)

    def read(a: np.ndarray) -> float:
        written = word_of(next(value))
        if bench.rank == 1:
            kernels.fill(a, written)
        with bench.timed() as span:
            dsm.barrier()
            found = kernels.total(a) if bench.rank == 0 else 0
            span.stop()
            dsm.barrier()
        bench.check(bench.rank != 0 or found == wrapped(written * words), "the sum of what was fetched")
        return words * 8 / span.seconds / 1e9

    def receive(fresh: bool, ahead: bool) -> float:
        target = warm
        if fresh and bench.rank == 0:
            target = bench.fresh(words)
        with bench.timed() as span:
            found = by_messages(bench, source, target, ahead)
        bench.check(bench.rank != 0 or found == words, "the sum of what was received")
        return words * 8 / span.seconds / 1e9

    def rivals(fresh: bool) -> dict[str, Callable[[], float]]:
        return {"Send/Recv": lambda: receive(fresh, False), "Isend/Irecv": lambda: receive(fresh, True)}

    cases = []
    what = f"sequential read of {words * 8 >> 20} MiB that another rank"
    for page_bytes, limit in ((PAGE, 0.7), (256 << 10, 0.9)):
        with bench.arrays() as make:
            a = make(words, page_size=page_bytes)
            samples = bench.in_turns(dsm=lambda a=a: read(a), **rivals(fresh=False))
            measured = samples.pop("dsm")
            text = f"{what} rewrote, {page_bytes >> 10} KiB pages"
            reach = Reach("ratio", limit, hosts=0.9)
            cases.append(Case("S4", text, "GB/s", measured, samples, reach, counters=bench.counters["dsm"]))
    with bench.arrays() as make:
        # All of them live to the end, so that no round has backing that an earlier one left.
        arrays = iter([make(words, page_size=PAGE) for _ in range(bench.rounds + 1)])
        samples = bench.in_turns(dsm=lambda: read(next(arrays)), **rivals(fresh=True))
        measured = samples.pop("dsm")
        text = f"{what} wrote, first read ever, 4 KiB pages"
        samples = {f"{name}, fresh memfd": values for name, values in samples.items()}
        cases.append(Case("S4", text, "GB/s", measured, samples, Reach("ratio", 0.9), counters=bench.counters["dsm"]))
    return cases


def strided(bench: Bench) -> list[Case]:
    """S5: a part of each stretch of pages; the rival packs that part and sends only it."""
    words = bench.size(64 << 20, 2 << 20) // 8
    value = itertools.count(1)
    cases = []
    # A row of 4,096 numbers is eight pages; a quarter of its columns is two of them.
    shapes = (("every 4th page", 0, WORDS, 4 * WORDS), ("a block of 1,024 of 4,096 columns", 1024, 1024, 4096))
    for what, first, width, stride in shapes:
        blocks = words // stride
        source, packed, target = (np.ones(n, np.int64) for n in (words, blocks * width, blocks * width))
        used_bytes = packed.nbytes

        def read(a: np.ndarray, first: int = first, width: int = width, stride: int = stride) -> float:
            written = word_of(next(value))
            if bench.rank == 1:
                kernels.fill(a, written)
            with bench.timed() as span:
                dsm.barrier()
                found = kernels.total_of_blocks(a, first, width, stride) if bench.rank == 0 else 0
                span.stop()
                dsm.barrier()
            right = wrapped(written * (words // stride) * width)
            bench.check(bench.rank != 0 or found == right, "the sum of what was fetched")
            return words // stride * width * 8 / span.seconds / 1e9

        def receive(ahead: bool, first=first, width=width, stride=stride, arrays=(source, packed, target)) -> float:
            source, packed, target = arrays
            with bench.timed() as span:
                if bench.rank == 1:
                    kernels.pack_blocks(source, first, width, stride, packed)
                found = by_messages(bench, packed, target, ahead)
            bench.check(bench.rank != 0 or found == packed.size, "the sum of what was received")
            return packed.nbytes / span.seconds / 1e9

        with bench.arrays() as make:
            a = make(words, page_size=PAGE)
            samples = bench.in_turns(
                dsm=lambda a=a, read=read: read(a),
                **{
                    "packed, Send/Recv": lambda receive=receive: receive(False),
                    "packed, Isend/Irecv": lambda receive=receive: receive(True),
                },
            )
        measured = samples.pop("dsm")
        text = f"strided cold read, {what}: {used_bytes >> 10} KiB"
        cases.append(Case("S5", text, "GB/s", measured, samples, Reach("ratio", 0.25), counters=bench.counters["dsm"]))
    return cases


def false_sharing(bench: Bench) -> list[Case]:
    """S12: word k of every page belongs to rank k modulo ranks; all write theirs, then all read everything."""
    value = itertools.count(1)
    cases = []
    for pages, limit in ((16, 25), (256, 12)):
        words = pages * WORDS // bench.ranks * bench.ranks
        private, mine = np.zeros(words, np.int64), np.zeros(words // bench.ranks, np.int64)
        everybody = np.zeros((bench.ranks, mine.size), np.int64)
        steps = bench.size(20, 2)

        def share(a: np.ndarray, pages: int = pages, words: int = words, steps: int = steps) -> float:
            took = 0.0
            for _ in range(steps):
                written = word_of(next(value))
                with bench.timed() as span:
                    a[bench.rank : words : bench.ranks] = written
                    dsm.barrier()
                    found = kernels.total(a[:words])
                    span.stop()
                    dsm.barrier()
                took += span.seconds
                bench.check(found == wrapped(written * words), "words of other ranks")
            return bench.slowest(took / steps / pages) * 1e6

        def exchange(pages=pages, steps=steps, arrays=(private, mine, everybody)) -> float:
            private, mine, everybody = arrays
            took = 0.0
            for k in range(steps):
                with bench.timed() as span:
                    private[bench.rank :: bench.ranks] = k
                    mine[:] = private[bench.rank :: bench.ranks]
                    bench.comm.Allgather(mine, everybody)
                    for rank in range(bench.ranks):
                        if rank != bench.rank:
                            private[rank :: bench.ranks] = everybody[rank]
                    found = kernels.total(private)
                took += span.seconds
                bench.check(found == k * private.size, "words that were exchanged")
            return bench.slowest(took / steps / pages) * 1e6

        with bench.arrays() as make:
            a = make(pages * WORDS, page_size=PAGE)
            samples = bench.in_turns(dsm=lambda a=a, share=share: share(a), mpi=lambda exchange=exchange: exchange())
        cases.append(
            Case(
                "S12",
                f"false sharing, alternating words of {pages} pages, per page",
                "us",
                samples["dsm"],
                {"packed, Allgather": samples["mpi"]},
                Reach("value", limit),
                counters=bench.counters["dsm"],
            )
        )
    return cases


def table_for_all(bench: Bench) -> list[Case]:
    """S15: all ranks read, rank 0 as well; both sides have fresh memory on the receiving ranks."""
    words = bench.size(256 << 20, 2 << 20) // 8
    value = itertools.count(1)
    filled = np.ones(words, np.int64)
    has_broadcast = hasattr(dsm, "broadcast")

    def read(broadcast: bool) -> float:
        written = word_of(next(value))
        with bench.arrays() as make:
            a = make(words)
            if bench.rank == 0:
                kernels.fill(a, written)
            with bench.timed() as span:
                if broadcast:
                    dsm.broadcast(a)
                else:
                    dsm.barrier()
                found = kernels.total(a)
                span.stop()
                dsm.barrier()
        bench.check(found == wrapped(written * words), "the sum of the table")
        return bench.slowest(span.seconds) * 1e3

    def by_mpi() -> float:
        table = filled if bench.rank == 0 else np.empty(words, np.int64)
        with bench.timed() as span:
            bench.comm.Bcast(table)
            found = kernels.total(table)
        bench.check(found == words, "the sum of what was broadcast")
        return bench.slowest(span.seconds) * 1e3

    measures = {"faults": lambda: read(False), "Bcast": by_mpi}
    if has_broadcast:
        measures["broadcast"] = lambda: read(True)
    samples = bench.in_turns(**measures)
    what = f"table of {words * 8 >> 20} MiB that rank 0 filled, read by all"
    rivals = {"Bcast into a fresh array": samples["Bcast"]}
    ahead = Case("S15", f"{what} after dsm.broadcast", "ms", reach=Reach("ratio", 1.1), verdict_given=NOT_YET)
    if has_broadcast:
        ahead = Case("S15", ahead.what, "ms", samples["broadcast"], rivals, ahead.reach)
        ahead.counters = bench.counters["broadcast"]
    return [
        Case("S15", what, "ms", samples["faults"], rivals, Reach("ratio", 2), counters=bench.counters["faults"]),
        ahead,
    ]


ROWS = {"S4": sequential, "S5": strided, "S12": false_sharing, "S15": table_for_all}
