"""Distributed shared memory: NumPy arrays shared by all ranks of an MPI job.

    import dsm

    a = dsm.zeros((n, m))           # the same array on every rank
    dsm.local(a)[...] = compute()   # plain NumPy; a rank may write any part
    dsm.barrier()                   # now every rank sees everything

Importing dsm starts nothing.  All ranks call functions marked "Collective." in the same order.  The first of these
calls starts dsm on ``MPI.COMM_WORLD``; `init` starts it on another communicator.

A write becomes visible to another rank in two ways only.  The writer releases a lock, and the other rank acquires it:
then the other rank also sees all that the writer had seen.  Or both ranks pass a barrier.  Nothing else publishes a
write: not an MPI message, ``comm.Barrier()`` or a `Counter`.  Two ranks may write different bytes of one page at the
same time.  Ranks of one host share memory and may see writes earlier; ``python -m dsm run --node rank`` shows what
ranks of different hosts would see.
"""

from dsm import _exit, _races, _recorder, _runtime, _stats, _unpinned
from dsm._barrier import Barrier
from dsm._blocks import local, split
from dsm._broadcast import broadcast
from dsm._condition import Condition
from dsm._counter import Counter
from dsm._creation import array, empty, empty_like, full, ones, zeros, zeros_like
from dsm._errors import DSMError
from dsm._event import Event
from dsm._files import load, save
from dsm._free import free
from dsm._info import Info, info, is_shared
from dsm._lock import Lock, RLock
from dsm._pin import pinned
from dsm._prefetch import prefetch
from dsm._ref import Ref, ref
from dsm._runtime import barrier, finalize, init, rank, size
from dsm._semaphore import BoundedSemaphore, Semaphore
from dsm._stats import Stats, stats

# The start and the end of dsm use modules that are built upon them.  Assigned, since a module may be loaded again.
_exit.before_traceback[:] = [_unpinned.note]
_runtime.after_start[:] = [_unpinned.watch_threads, _races.begin]
_runtime.before_end[:] = [_stats.print_summary, _recorder.before_end]
_runtime.after_end[:] = []
if _recorder.ON:  # else its modules are not imported
    from dsm._profile import output as _output

    _runtime.after_start.append(_output.begin)
    _runtime.after_end.append(_output.end)
    _recorder.install(globals())

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Counter",
    "DSMError",
    "Event",
    "Info",
    "Lock",
    "RLock",
    "Ref",
    "Semaphore",
    "Stats",
    "array",
    "barrier",
    "broadcast",
    "empty",
    "empty_like",
    "finalize",
    "free",
    "full",
    "info",
    "init",
    "is_shared",
    "load",
    "local",
    "ones",
    "pinned",
    "prefetch",
    "rank",
    "ref",
    "save",
    "size",
    "split",
    "stats",
    "zeros",
    "zeros_like",
]
