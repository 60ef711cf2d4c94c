"""Counts the messages and bytes of an mpi4py program by standing in for its communicator.

A collective call is counted as the fewest point-to-point messages that do its work: n - 1 for a broadcast, a
reduction, a gather or a scatter, twice that for a barrier or an allreduce, n (n - 1) for an exchange of all with all.
What an MPI really sends differs with its algorithm; the bytes that must arrive do not.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mpi4py import MPI

_LOCAL = {"rank", "size", "Get_rank", "Get_size", "Get_name", "name", "is_inter", "Get_parent", "py2f", "handle"}
_RECEIVING = {"Recv", "Irecv", "Probe", "Iprobe", "Mprobe", "Improbe", "Recv_init", "recv", "irecv"}


def bytes_of(buffer: Any) -> int:
    """Return how many bytes a buffer argument of mpi4py names: an array, or a list with counts and a type."""
    if buffer is None or buffer is MPI.IN_PLACE:
        return 0
    if isinstance(buffer, (list, tuple)):
        array, *more = buffer
        if more and isinstance(more[-1], MPI.Datatype) and isinstance(more[0], int):
            return more[0] * more[-1].size
        counts = next((part for part in more if isinstance(part, (int, list, tuple, np.ndarray))), None)
        if counts is None:
            return bytes_of(array)
        if isinstance(counts, (list, tuple)) and len(counts) == 2 and np.ndim(counts[0]) == 1:
            counts = counts[0]
        return int(np.sum(counts)) * np.asarray(array).itemsize
    return memoryview(buffer).nbytes


class CountedPrequest(MPI.Prequest):
    """A persistent request whose starts are counted.  Start each: `MPI.Prequest.Startall` cannot be counted."""

    def Start(self) -> None:
        """Start it, and count one message where it sends."""
        self.count()
        super().Start()


class CountedComm:
    """A communicator that counts.  A call that it does not know is an error, so that nothing goes uncounted."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self._comm = comm
        self.reset()

    def reset(self) -> None:
        """Begin again."""
        self.messages = self.bytes = 0

    def counters(self) -> dict[str, int]:
        """Return what this rank sent."""
        return {"messages_sent": self.messages, "bytes_sent": self.bytes}

    def add(self, messages: int, bytes_: int) -> None:
        """Count what was sent otherwise, by one-sided calls for instance."""
        self.messages += messages
        self.bytes += bytes_

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._comm, name)
        if name in _LOCAL:
            return found
        base = name.removeprefix("I").capitalize() if name[:1] == "I" and name not in _RECEIVING else name
        if name in _RECEIVING:
            count: Callable[..., tuple[int, int]] = lambda *_, **__: (0, 0)  # noqa: E731
        elif name.endswith("_init") and hasattr(self, f"_count_{name.removesuffix('_init')}"):
            return self._persistent(found, getattr(self, f"_count_{name.removesuffix('_init')}"))
        elif hasattr(self, f"_count_{base}"):
            count = getattr(self, f"_count_{base}")
        elif name.islower() and hasattr(self, f"_pickled_{name}"):
            count = getattr(self, f"_pickled_{name}")
        else:
            raise AttributeError(f"{name} is not counted: say in benchmarks/counting.py what it sends")

        def call(*arguments: Any, **keywords: Any) -> Any:
            self.add(*count(*arguments, **keywords))
            return found(*arguments, **keywords)

        return call

    def _persistent(self, make: Callable[..., MPI.Prequest], count: Callable[..., tuple[int, int]]) -> Any:
        def made(*arguments: Any, **keywords: Any) -> CountedPrequest:
            request = CountedPrequest(make(*arguments, **keywords))
            request.count = lambda: self.add(*count(*arguments, **keywords))
            return request

        return made

    # ---- what each call sends from this rank: (messages, bytes) ----

    def _others(self) -> int:
        return self._comm.size - 1

    def _count_Send(self, buffer: Any, dest: int, *_: Any, **__: Any) -> tuple[int, int]:
        return (0, 0) if dest == MPI.PROC_NULL else (1, bytes_of(buffer))

    _count_Ssend = _count_Rsend = _count_Bsend = _count_Sendrecv = _count_Sendrecv_replace = _count_Send

    def _count_Barrier(self) -> tuple[int, int]:
        return (2 if self._comm.rank else 0), 0

    def _count_Bcast(self, buffer: Any, root: int = 0) -> tuple[int, int]:
        return (1, bytes_of(buffer)) if self._comm.rank != root else (0, 0)

    def _count_Reduce(self, sent: Any, received: Any = None, op: Any = None, root: int = 0) -> tuple[int, int]:
        return (1, bytes_of(sent)) if self._comm.rank != root else (0, 0)

    def _count_Gather(self, sent: Any, received: Any = None, root: int = 0) -> tuple[int, int]:
        return (1, bytes_of(sent)) if self._comm.rank != root else (0, 0)

    def _count_Scatter(self, sent: Any, received: Any = None, root: int = 0) -> tuple[int, int]:
        return (1, bytes_of(received)) if self._comm.rank != root else (0, 0)

    _count_Gatherv, _count_Scatterv = _count_Gather, _count_Scatter

    def _count_Allreduce(self, sent: Any, received: Any = None, op: Any = None) -> tuple[int, int]:
        bytes_ = bytes_of(received if sent is MPI.IN_PLACE else sent)
        return (2, 2 * bytes_) if self._comm.rank else (0, 0)

    def _count_Scan(self, sent: Any, received: Any = None, op: Any = None) -> tuple[int, int]:
        bytes_ = bytes_of(received if sent is MPI.IN_PLACE else sent)
        return (1, bytes_) if self._comm.rank else (0, 0)

    _count_Exscan = _count_Scan

    def _count_Allgather(self, sent: Any, received: Any) -> tuple[int, int]:
        bytes_ = bytes_of(received) // self._comm.size if sent is MPI.IN_PLACE else bytes_of(sent)
        return self._others(), self._others() * bytes_

    def _count_Allgatherv(self, sent: Any, received: Any) -> tuple[int, int]:
        if sent is not MPI.IN_PLACE:
            return self._others(), self._others() * bytes_of(sent)
        array, counts = received[0], received[1]
        counts = counts[0] if np.ndim(counts[0]) == 1 else counts
        return self._others(), self._others() * int(counts[self._comm.rank]) * np.asarray(array).itemsize

    def _count_Alltoall(self, sent: Any, received: Any) -> tuple[int, int]:
        bytes_ = bytes_of(received if sent is MPI.IN_PLACE else sent)
        return self._others(), bytes_ * self._others() // self._comm.size

    def _count_Alltoallv(self, sent: Any, received: Any) -> tuple[int, int]:
        array, counts = sent[0], sent[1]
        counts = counts[0] if np.ndim(counts[0]) == 1 else counts
        others = sum(int(count) for rank, count in enumerate(counts) if rank != self._comm.rank)
        return self._others(), others * np.asarray(array).itemsize

    def _count_Reduce_scatter(self, sent: Any, received: Any, *_: Any, **__: Any) -> tuple[int, int]:
        return self._others(), bytes_of(sent) * self._others() // self._comm.size

    _count_Reduce_scatter_block = _count_Reduce_scatter

    # ---- the same for pickled objects ----

    def _pickled_send(self, value: Any, dest: int, *_: Any, **__: Any) -> tuple[int, int]:
        return (0, 0) if dest == MPI.PROC_NULL else (1, len(pickle.dumps(value)))

    _pickled_isend = _pickled_ssend = _pickled_send

    def _pickled_bcast(self, value: Any, root: int = 0) -> tuple[int, int]:
        if self._comm.rank != root:
            return 1, 0
        return 0, self._others() * len(pickle.dumps(value))

    def _pickled_reduce(self, value: Any, *_: Any, root: int = 0, **__: Any) -> tuple[int, int]:
        return (1, len(pickle.dumps(value))) if self._comm.rank != root else (0, 0)

    _pickled_gather = _pickled_reduce

    def _pickled_allreduce(self, value: Any, *_: Any, **__: Any) -> tuple[int, int]:
        return (2, 2 * len(pickle.dumps(value))) if self._comm.rank else (0, 0)

    def _pickled_allgather(self, value: Any) -> tuple[int, int]:
        return self._others(), self._others() * len(pickle.dumps(value))

    def _pickled_alltoall(self, values: Sequence[Any]) -> tuple[int, int]:
        return self._others(), sum(len(pickle.dumps(v)) for r, v in enumerate(values) if r != self._comm.rank)
