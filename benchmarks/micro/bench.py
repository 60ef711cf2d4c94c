"""What the rows have in common: turns, clocks, checks, arrays that are freed, and the helper in C."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

import dsm

PAGE = 4096


def wrapped(value: int) -> int:
    """Return a whole number as 64 bits with a sign hold it."""
    return (int(value) + 2**63) % 2**64 - 2**63


def word_of(turn: int) -> int:
    """Make a word all of whose bytes differ from those of the turn before, and none of which is 0."""
    return wrapped((turn % 255 + 1) * 0x0101010101010101)


class NotMeasuredError(Exception):
    """What a row needs is not on this machine; raised on all ranks alike."""


class Span:
    """A stretch of time, in seconds once it is stopped."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = time.perf_counter()

    def stop(self) -> None:
        """End it; later calls change nothing."""
        self.seconds = self.seconds or time.perf_counter() - self._start


class Bench:
    """One job's measuring.  Ranks 0 and 1 are the pair of the rows that need two; rank 0's values are the result."""

    def __init__(self, rounds: int, tiny: bool, hosts: bool, per_host: int = 1) -> None:
        dsm.init()
        self.comm = MPI.COMM_WORLD
        self.rank, self.ranks = self.comm.rank, self.comm.size
        self.rounds, self.tiny, self.hosts, self.per_host = rounds, tiny, hosts, per_host
        self.helper = Helper(self.comm)
        self.counters: dict[str, dict[str, int]] = {}
        self._growth: dict[str, int] | None = None

    def size(self, normal: int, tiny: int) -> int:
        """Choose the size of a row: the second one shows only that the row works."""
        return tiny if self.tiny else normal

    def in_turns(self, **measures: Callable[[], float]) -> dict[str, list[float]]:
        """Run each measure once to warm up and then `rounds` times, in turns whose order alternates.  Collective.

        What the statistics of all ranks grew by, in the last `timed` of each measure, is in `counters` afterwards.
        """
        samples: dict[str, list[float]] = {name: [] for name in measures}
        self.counters = {}
        for turn in range(self.rounds + 1):
            for name in list(measures) if turn % 2 else reversed(list(measures)):
                self._growth = None
                value = measures[name]()
                if self._growth is not None:
                    self.counters[name] = self.summed(self._growth)
                if turn > 0:
                    samples[name].append(value)
        return samples

    @contextlib.contextmanager
    def timed(self) -> Iterator[Span]:
        """Start a clock on all ranks at once; it stops at the end of the block, or where the block stops it."""
        self.comm.Barrier()
        before = dict(dsm.stats())
        self.comm.Barrier()
        span = Span()
        yield span
        span.stop()
        self._growth = {name: value - before[name] for name, value in dsm.stats().items()}

    def each_us(self, call: Callable[[], object], times: int) -> float:
        """Return the microseconds of a call, on the slowest rank.  Collective."""
        with self.timed() as span:
            for _ in range(times):
                call()
        return self.slowest(span.seconds / times) * 1e6

    def summed(self, growth: dict[str, int]) -> dict[str, int]:
        """Add up what counters grew by on all ranks; those that did not are left out.  Collective."""
        total = np.array(list(growth.values()), np.int64)
        self.comm.Allreduce(MPI.IN_PLACE, total)
        return {name: int(value) for name, value in zip(growth, total, strict=True) if value}

    def slowest(self, value: float) -> float:
        """Return the largest of the ranks' values.  Collective."""
        return float(self.comm.allreduce(value, MPI.MAX))

    def check(self, right: bool, what: str) -> None:
        """Raise when a result is wrong; the job ends, since a fast wrong answer is no figure."""
        if not right:
            raise AssertionError(f"rank {self.rank}: wrong result: {what}")

    @contextlib.contextmanager
    def arrays(self) -> Iterator[Callable[..., np.ndarray]]:
        """Make zeroed shared arrays that are freed at the end.  Collective."""
        made: list[np.ndarray] = []

        def make(shape: Any, dtype: Any = np.int64, **keywords: Any) -> np.ndarray:
            made.append(dsm.zeros(shape, dtype, **keywords))
            return made[-1]

        yield make
        dsm.barrier()
        gc.collect()
        while made:
            dsm.free(made.pop())

    def fresh(self, items: int) -> np.ndarray:
        """Map a new memfd: the memory that dsm's arrays are made of, never touched, without dsm.  Local."""
        file = os.memfd_create("fresh")
        os.ftruncate(file, items * 8)
        mapping = mmap.mmap(file, items * 8)
        os.close(file)
        return np.frombuffer(mapping, np.int64)


class Helper:
    """helper.c, compiled by rank 0 and loaded by all.  Collective.  Without a C compiler its rows are not measured."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm, self._lib = comm, None
        folder = ""
        if comm.rank == 0 and (compiler := shutil.which("cc") or shutil.which("gcc")):
            folder = tempfile.mkdtemp(prefix="dsm-benchmark-")
            source = str(Path(__file__).with_name("helper.c"))
            subprocess.run(
                [compiler, "-O2", "-std=c11", "-shared", "-fPIC", "-o", f"{folder}/helper.so", source], check=True
            )
        folder = comm.bcast(folder)
        if folder:
            self._lib = ctypes.CDLL(f"{folder}/helper.so")
            self._lib.lock_again.restype = ctypes.c_uint64
            comm.Barrier()  # loaded everywhere, so the file may go
            if comm.rank == 0:
                shutil.rmtree(folder)

    def need(self) -> Any:
        """Return the library, or raise on all ranks alike: a row calls it before ranks part."""
        if self._lib is None:
            raise NotMeasuredError("no C compiler for helper.c")
        return self._lib

    def spin(self, seconds: float) -> None:
        """Compute, without a call of dsm or MPI, for some time."""
        self.need().spin(ctypes.c_uint64(int(seconds * 1e9)))

    def touch_us(self, a: np.ndarray, pages: np.ndarray, pause_us: int = 0) -> float:
        """Read a byte of each of some pages, one after the other: the median time of one access."""
        lib, took = self.need(), np.zeros(pages.size, np.uint64)
        offsets = pages.astype(np.uint64) * PAGE
        lib.touch(
            ctypes.c_void_p(a.ctypes.data),
            ctypes.c_void_p(offsets.ctypes.data),
            pages.size,
            ctypes.c_uint64(pause_us * 1000),
            ctypes.c_void_p(took.ctypes.data),
        )
        return float(np.median(took)) / 1e3

    def fault_us(self, pages: int) -> float:
        """Median time of SIGSEGV, mprotect and retry, over pages in random order."""
        lib, took = self.need(), np.zeros(pages, np.uint64)
        offsets = np.random.default_rng(pages).permutation(pages).astype(np.uint64) * PAGE
        data = [ctypes.c_void_p(array.ctypes.data) for array in (offsets, took)]
        if lib.fault(data[0], pages, ctypes.c_uint64(pages), data[1]) != 0:
            raise OSError("a mapping of memfd was refused")
        return float(np.median(took)) / 1e3

    def round_trip_us(self, request: int, reply: int, times: int) -> float:
        """Median time of MPI's round trip between ranks 0 and 1, called from C.  Collective."""
        lib, took = self.need(), np.zeros(times, np.uint64)
        buffer = np.zeros(max(request, reply), np.uint8)
        mpi = ctypes.CDLL(_mpi_file())
        handles = [ctypes.c_uint64(MPI._handleof(handle) & (2**64 - 1)) for handle in (MPI.BYTE, self.comm)]
        self.comm.Barrier()
        if self.comm.rank < 2:
            lib.round_trips(
                mpi.MPI_Send,
                mpi.MPI_Recv,
                *handles,
                1 - self.comm.rank,
                self.comm.rank == 0,
                request,
                reply,
                ctypes.c_void_p(buffer.ctypes.data),
                times,
                ctypes.c_void_p(took.ctypes.data),
            )
        self.comm.Barrier()
        return float(np.median(took)) / 1e3

    def lock_again_us(self, lock: dsm.Lock, times: int) -> float:
        """Mean time to take and release a lock, called from C."""
        from dsm import _runtime

        lib, core = self.need(), _runtime.active()
        calls = [
            ctypes.c_void_p(int(core.ffi.cast("uintptr_t", core.ffi.addressof(core.lib, name))))
            for name in ("dsm_acquire", "dsm_release")
        ]
        took_ns = lib.lock_again(*calls, ctypes.c_uint32(lock._number), times)
        if took_ns == 0:
            raise RuntimeError("the lock could not be taken")
        return took_ns / times / 1e3


def _mpi_file() -> str:
    """The libmpi that this process has loaded, in the words of the kernel."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "/libmpi" in line and ".so" in line:
            return line.split(maxsplit=5)[5]
    raise NotMeasuredError("no libmpi among the mappings of this process")
