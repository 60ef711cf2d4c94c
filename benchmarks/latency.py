"""What one operation costs, beside MPI's round trip in the same run.

    python -m dsm run -n 2 benchmarks/latency.py [--rounds 7] [--times 200]

Every figure is a median over the rounds of the mean of `times` operations; the rounds take turns, so that all of
them see the same machine.  Rank 0 measures; the columns after the median are the smallest and the largest round.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from mpi4py import MPI

import dsm

comm = MPI.COMM_WORLD
PAGE = 4096


def ping_pong(size: int, times: int) -> float:
    """Mean time of one MPI round trip of `size` bytes each way, in microseconds."""
    buffer = np.zeros(size, np.uint8)
    comm.Barrier()
    start = time.perf_counter()
    for _ in range(times):
        if comm.rank == 0:
            comm.Send(buffer, 1)
            comm.Recv(buffer, 1)
        elif comm.rank == 1:
            comm.Recv(buffer, 0)
            comm.Send(buffer, 0)
    return (time.perf_counter() - start) / times * 1e6


def remote_faults(pages: np.ndarray, times: int, computing: bool, stride: int) -> float:
    """Mean time to read one page that rank 1 has just written whole; rank 1 waits in a barrier, or computes."""
    if comm.rank == 1:
        pages[:times] += 1
    dsm.barrier()
    took = 0.0
    if comm.rank == 0:
        order = [(k * stride) % times for k in range(times)]
        start = time.perf_counter()
        for k in order:
            pages[k, 0]
        took = (time.perf_counter() - start) / times * 1e6
        if computing:
            comm.send(None, 1)
    elif comm.rank == 1 and computing:
        while not comm.iprobe(0):
            end = time.perf_counter() + 2e-3
            while time.perf_counter() < end:
                pass
        comm.recv(source=0)
    dsm.barrier()
    return took


def turns(lock: dsm.Lock, cell: np.ndarray, times: int, with_data: bool) -> float:
    """Mean time of one turn with the lock that ranks 0 and 1 want all the time; without data many turns are local."""
    dsm.barrier()
    start = time.perf_counter()
    if comm.rank < 2:
        done = 0
        while done < times:
            with lock:
                done += 1
                if with_data:
                    cell[0] += 1
    took = (time.perf_counter() - start) / (2 * times) * 1e6
    dsm.barrier()
    return took


def strict_turns(lock: dsm.Lock, cell: np.ndarray, times: int) -> float:
    """Mean time from one rank's increment under the lock to the other's; who comes out of turn tries again."""
    if comm.rank == 0:
        cell[0] = 0
    dsm.barrier()
    start = time.perf_counter()
    done = comm.rank >= 2
    while not done:
        with lock:
            done = cell[0] >= 2 * times
            if not done and cell[0] % 2 == comm.rank:
                cell[0] += 1
    took = (time.perf_counter() - start) / (2 * times) * 1e6
    dsm.barrier()
    return took


def mean_of(operation: Callable[[], object], times: int) -> float:
    comm.Barrier()
    start = time.perf_counter()
    for _ in range(times):
        operation()
    return (time.perf_counter() - start) / times * 1e6


def dirty_barrier(pages: np.ndarray, times: int) -> float:
    """Mean time of a barrier after which 64 pages of each other rank are stale here."""
    mine = pages[comm.rank * 64 : comm.rank * 64 + 64]
    other = pages[(comm.rank + 1) % comm.size * 64 : (comm.rank + 1) % comm.size * 64 + 64]
    took = 0.0
    for _ in range(times):
        mine[:, 0] += 1
        start = time.perf_counter()
        dsm.barrier()
        took += time.perf_counter() - start
        other[:, 0].sum()
        dsm.barrier()
    return took / times * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--times", type=int, default=200)
    args = parser.parse_args()
    times = args.times
    pages = dsm.zeros((max(times, 64 * comm.size), PAGE), np.uint8, page_size=PAGE, name="pages")
    cell = dsm.zeros(1, int, name="cell")
    lock = dsm.Lock()
    rows: dict[str, Callable[[], float]] = {
        "MPI round trip, 8 B": lambda: ping_pong(8, times),
        "MPI round trip, 4 KiB": lambda: ping_pong(PAGE, times),
        "remote fault, 4 KiB, peer waits, scattered": lambda: remote_faults(pages, times, False, 7),
        "remote fault, 4 KiB, peer waits, sequential": lambda: remote_faults(pages, times, False, 1),
        "remote fault, 4 KiB, peer computes, scattered": lambda: remote_faults(pages, times, True, 7),
        "lock taken, two ranks compete (mostly local)": lambda: turns(lock, cell, times, False),
        "lock turn with one value, two ranks compete": lambda: turns(lock, cell, times, True),
        "lock hand-over with one value, strict turns": lambda: strict_turns(lock, cell, times),
        "MPI barrier": lambda: mean_of(comm.Barrier, times),
        "dsm barrier, clean": lambda: mean_of(dsm.barrier, times),
        "dsm barrier, 64 pages dirty on each rank": lambda: dirty_barrier(pages, max(1, times // 10)),
    }
    results: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(args.rounds):
        for name, measure in rows.items():
            results[name].append(measure())
    if comm.rank == 0:
        unit = statistics.median(results["MPI round trip, 8 B"])
        print(f"{comm.size} ranks, {MPI.get_vendor()[0]}, {args.rounds} rounds of {times}; microseconds")
        print(f"{'':48}{'median':>9}{'min':>9}{'max':>9}{'x MPI 8 B':>11}")
        for name, values in results.items():
            median = statistics.median(values)
            print(f"{name:48}{median:9.1f}{min(values):9.1f}{max(values):9.1f}{median / unit:11.1f}")
        print(dsm.stats())


main()
