"""The start and end of dsm in this process, and the way into the core.

The import of dsm starts nothing, not even mpi4py, which initialises MPI when it is imported.  Collective functions call
`started`, which starts dsm if need be.  Functions that make sense only afterwards call `active`.

A call of the core waits in slices (`Runtime.wait`), so that Python serves signals between them; within a slice cffi has
released the GIL.  `Runtime.check` turns error codes into exceptions.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import dataclasses
import faulthandler
import functools
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from dsm import _children, _exit, _mpi, _room
from dsm._errors import DSMError
from dsm._frames import place_of_caller
from dsm._settings import PROGRESS, RACES_BYTES, Settings, settings, unknown

if TYPE_CHECKING:
    from mpi4py import MPI

SLICE_S = 0.1  # Ctrl-C waits for so long at most
_OTHER_SLICE_S = 0.5  # in threads that serve no signals


@dataclass(frozen=True)
class Runtime:
    """The started core, with MPI and the settings of this run."""

    ffi: Any
    lib: Any
    mpi: Any
    rank: int
    size: int
    settings: Settings
    comm: Any  # the ranks that take part

    def check(self, code: int) -> None:
        """Raise the exception for an error code of the core.  Local."""
        if code != self.lib.DSM_OK:
            self._raise(code)

    def wait(self, call: Callable[[float], int]) -> None:
        """Call `call(slice_s)` until the core has an answer; raise the exception for an error.  Local."""
        code = call(SLICE_S)
        while code == self.lib.DSM_AGAIN:  # here, between two slices, Python runs its signal handlers
            code = call(slice_s())
        self.check(code)

    def made_here(self, what: str) -> str:
        """Return the call that makes a thing without a name, as the ranks compare it.  Local.

        Without names, calls in different order on two ranks may look alike.  With DSM_CHECK the ranks therefore compare
        the lines of the program, too.
        """
        return f"{what} at {place_of_caller()}" if self.settings.check else what

    def _raise(self, code: int) -> None:
        lib = self.lib
        kinds: dict[int, type[Exception]] = {
            lib.DSM_E_ARGUMENT: ValueError,
            lib.DSM_E_STATE: RuntimeError,
            lib.DSM_E_VIEWS: BufferError,
            lib.DSM_E_MEMORY: MemoryError,
            lib.DSM_E_ENVIRONMENT: DSMError,
            lib.DSM_E_MEETING: DSMError,
            lib.DSM_E_OVERFLOW: OverflowError,
            lib.DSM_E_MADE: ValueError,
        }
        text = _text(self.ffi, lib.dsm_last_error()) or _text(self.ffi, lib.dsm_error_name(code))
        if code == lib.DSM_E_MADE:
            self.wait(lib.dsm_recount)  # all ranks have this error: they count alike again
        raise kinds.get(code, DSMError)(text)

    def abort(self, text: str, status: int) -> None:
        """Print the rank and the reason, and end all ranks; does not return.  Local."""
        _exit.flush()
        self.lib.dsm_abort(text.encode(errors="replace"), status)


class _Life:
    """The state of this process: not started, active, finalized, or a fork without shared memory."""

    def __init__(self) -> None:
        self.runtime: Runtime | None = None
        self.starting = False  # then other ranks may wait for this one
        self.ended: str | None = None
        self.guard = threading.RLock()

    def forked(self) -> None:
        # The child has neither the memory nor the service thread, and must not use MPI in its parent's name.
        self.guard = threading.RLock()
        self.starting = False
        mpi = sys.modules.get("mpi4py.MPI")
        if self.runtime is not None or (mpi is not None and mpi.Is_initialized()):
            _exit.disarm()
            self.runtime = None
            self.ended = "this process was forked from a rank and has no shared memory; use the start method 'spawn'"


_life = _Life()
after_start: list[Callable[[], None]] = []  # of modules above this one; dsm/__init__.py fills these lists
before_end: list[Callable[[], None]] = []
after_end: list[Callable[[], None]] = []
os.register_at_fork(after_in_child=_life.forked)


def _abort(text: str, status: int) -> None:
    """End all ranks of this job, whether dsm is started or not; return if there is only one.  Local."""
    runtime, mpi = _life.runtime, sys.modules.get("mpi4py.MPI")
    if runtime is not None:
        if runtime.size > 1 and runtime.lib.dsm_active():  # dsm_active() ends with MPI.Finalize()
            runtime.abort(text, status)
        return
    if mpi is None and _mpi.ranks_wait_for_mpi():
        with contextlib.suppress(DSMError):
            mpi = _mpi.import_mpi4py()
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized() and mpi.COMM_WORLD.Get_size() > 1:
        _exit.flush()
        try:
            _mpi.load()[1].dsm_abort(text.encode(errors="replace"), status)
        except DSMError:  # the core does not fit this MPI, which may be the reason for the abort
            world = mpi.COMM_WORLD
            print(f"dsm: rank {world.Get_rank()} of {world.Get_size()}: {text}", file=sys.stderr, flush=True)
            world.Abort(status)


def _text(ffi: Any, pointer: Any) -> str:
    return "" if pointer == ffi.NULL else ffi.string(pointer).decode(errors="replace")


def slice_s() -> float:
    """Return the longest slice of a wait in this thread; only the main thread serves signals.  Local."""
    return SLICE_S if threading.current_thread() is threading.main_thread() else _OTHER_SLICE_S


def is_active() -> bool:
    """Tell whether dsm is started, and not finalized.  Local."""
    return _life.runtime is not None and bool(_life.runtime.lib.dsm_active())


def refuse_if_ended() -> None:
    """Raise RuntimeError after `finalize` and in a child process of a rank.  Local."""
    if _life.ended is not None:
        raise RuntimeError(f"dsm: {_life.ended}")
    if _life.runtime is None:
        _children.refuse(_mpi.in_job(os.environ))


def active() -> Runtime:
    """Return the core, or raise RuntimeError if it is not started.  Local."""
    if _life.runtime is None:
        refuse_if_ended()
        raise RuntimeError("dsm is not started: call dsm.init(), or any collective function, first")
    return _life.runtime


def started() -> Runtime:
    """Return the core; start it on MPI.COMM_WORLD if it is not started yet.  Collective."""
    return _life.runtime or _start(None, None, None, implicit=True)


def init(comm: MPI.Intracomm | None = None, *, page_size: int | None = None, progress: str | None = None) -> None:
    """Start dsm on the ranks of a communicator.  Collective.

    Any collective call starts dsm on ``MPI.COMM_WORLD``, so a program needs `init` only for another communicator or
    other settings.  A process can start dsm once.  Without mpiexec a program runs on one rank.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        The ranks that take part; dsm duplicates it.  Ranks outside of it do not call dsm.
    page_size : int, optional
        Default page size of arrays, the unit of coherence, in bytes: a power of two from 4096 to 64 MiB.
        Default ``DSM_PAGE_SIZE``, then 4096.
    progress : {"doorbell", "spin", "poll"}, optional
        How a rank notices requests while it computes: its service thread sleeps until a datagram arrives, polls all the
        time, or polls every 100 microseconds.  Default ``DSM_PROGRESS``, then "doorbell".

    Raises
    ------
    RuntimeError
        dsm is started already, or is finalized.
    ValueError, TypeError
        A keyword or an environment variable is malformed, or `comm` is not an intracommunicator.
    DSMError
        The machine, the MPI or the launcher does not allow it; the text says the remedy.

    Examples
    --------
    >>> import dsm
    >>> dsm.init(page_size=64 * 1024)
    """
    _start(comm, page_size, progress, implicit=False)


def _start(comm: Any, page_size: int | None, progress: str | None, *, implicit: bool) -> Runtime:
    with _life.guard:
        refuse_if_ended()
        if _life.runtime is not None:
            if implicit:  # by another thread, meanwhile
                return _life.runtime
            raise RuntimeError("dsm is already started (dsm.init() or an earlier collective call did it)")
        chosen = settings(page_size, progress)
        ffi, lib, mpi = _mpi.load()
        comm = _communicator(comm, mpi)
        _mpi.check_threads()
        _mpi.check_launcher(comm)
        options, kept = _options(ffi, lib, chosen)
        runtime = Runtime(ffi, lib, mpi, comm.Get_rank(), comm.Get_size(), chosen, comm)
        _exit.watch_builtin(lib)
        communicator = ffi.cast("void *", mpi._addressof(comm))
        _life.starting = True
        try:
            if not lib.dsm_active():  # else Ctrl-C came just after the start, and this call repeats it
                runtime.wait(lambda slice_s: lib.dsm_init(communicator, options, slice_s))
        except Exception:  # after an interrupt the other ranks are still in the call
            _life.starting = False
            raise
        del kept  # the core has copied the texts that the options point to
        _life.runtime, _life.starting = runtime, False
        for call in after_start:
            call()
        _show_stacks(ffi, lib)
        _end_before_mpi(ffi, lib, mpi)
        _watch_os_exit()
        if runtime.rank == 0:
            _warn_of_unknown(runtime)
        return _life.runtime


def call_through(lib: Any) -> None:
    """Let all later calls of the core go through `lib`, which has its functions.  Local."""
    _life.runtime = dataclasses.replace(active(), lib=lib)


def _watch_os_exit() -> None:
    """Abort the job at `os._exit`, which prints nothing and which some launchers regard as a success.  Local."""
    leave = os._exit

    @functools.wraps(leave)
    def end_and_leave(status: int) -> NoReturn:
        runtime = _life.runtime
        if runtime is not None and runtime.size > 1 and is_active():
            runtime.abort(
                f"os._exit({status!r}) before dsm.finalize()", status & 0xFF or 1 if isinstance(status, int) else 1
            )
        leave(status)

    os._exit = end_and_leave


def _warn_of_unknown(runtime: Runtime) -> None:
    """Warn of variables that dsm does not know, which may be misspelt.  Local."""
    for name, near in unknown(os.environ).items():
        meant = f"; did you mean {near}?" if near else ""
        text = f"dsm: rank 0 of {runtime.size}: {name} is in the environment, but dsm knows no such variable{meant}\n"
        sys.stderr.write(text)


def _show_stacks(ffi: Any, lib: Any) -> None:
    """Let the watchdog find the line in which a thread waits, even a thread in a page fault, which holds the GIL."""
    file = ffi.new("int *")
    number = lib.dsm_stack_signal(file)
    if number:
        faulthandler.register(number, file=int(file[0]), all_threads=False, chain=True)
        own = os.path.join(os.path.dirname(__file__), "")
        lib.dsm_stack_ready(file[0], own.encode(errors="replace"), threading.__file__.encode(errors="replace"))


def _communicator(comm: Any, mpi: Any) -> Any:
    if comm is None:
        return mpi.COMM_WORLD
    if not isinstance(comm, mpi.Comm):
        raise TypeError(f"comm must be an mpi4py communicator, not {type(comm).__name__}")
    if comm == mpi.COMM_NULL:
        raise ValueError("comm is MPI.COMM_NULL: ranks outside of the communicator do not call dsm")
    if comm.Is_inter():
        raise ValueError("comm is an intercommunicator; dsm needs one group of ranks (comm.Merge() makes it)")
    return comm


def _options(ffi: Any, lib: Any, chosen: Settings) -> tuple[Any, Any]:
    trace = ffi.NULL if chosen.trace is None else ffi.new("char[]", os.fsencode(chosen.trace))
    ways = (lib.DSM_PROGRESS_DOORBELL, lib.DSM_PROGRESS_SPIN, lib.DSM_PROGRESS_POLL)
    options = ffi.new(
        "struct dsm_options *",
        {
            "progress": ways[PROGRESS.index(chosen.progress)],
            "check": chosen.check,
            "oversubscribed": -1,
            "watchdog_s": chosen.watchdog_s,
            "range_bytes": chosen.range_bytes,
            "budget_bytes": chosen.collect_bytes,
            "cache_bytes": chosen.cache_bytes,
            "left_bytes": _room.left_bytes(),
            "trace_path": trace,
            "chaos_seed": chosen.chaos_seed,
            "without": chosen.without,
            "node": chosen.node,
            "races_bytes": RACES_BYTES if chosen.races else 0,
            "profile": chosen.profile is not None,
            "watch_address": _address(chosen.watch[0]),
            "watch_port": chosen.watch[1],
        },
    )
    return options, trace


def _address(host: str) -> bytes:
    """Return the IPv4 address of a host as text, "" if it has none."""
    with contextlib.suppress(OSError):
        return socket.gethostbyname(host).encode() if host else b""
    return b""


def finalize() -> None:
    """End dsm.  Collective.

    Waits until every rank has called it, and answers the other ranks meanwhile.  dsm calls it by itself when a program
    ends.  The program may not touch arrays afterwards, and cannot start dsm again in the same process.

    Raises
    ------
    RuntimeError
        dsm is not started, or is finalized already.
    DSMError
        Another rank is in a different collective call, such as a barrier; the text names both.
    """
    runtime = active()
    for call in before_end:
        call()
    while runtime.lib.dsm_active():  # once more if another rank has only reached the end of its program
        runtime.wait(lambda slice_s: runtime.lib.dsm_finalize(False, slice_s))
    for call in after_end:
        call()
    _exit.disarm()
    _life.ended = "it is finalized, and starts once per process"
    _life.runtime = None


def _end_before_mpi(ffi: Any, lib: Any, mpi: Any) -> None:
    """Make dsm end before MPI: at the end of the interpreter, and in a call of MPI.Finalize.  Local."""
    # The last registered function is called first, and mpi4py registered its MPI_Finalize when it was imported.
    end = int(ffi.cast("uintptr_t", ffi.addressof(lib, "dsm_end")))
    ctypes.pythonapi.Py_AtExit(ctypes.c_void_p(end))
    mpi_finalize = mpi.Finalize

    @functools.wraps(mpi_finalize)
    def finalize_both() -> None:
        if is_active():
            finalize()
        mpi_finalize()

    mpi.Finalize = finalize_both


def _at_exit() -> None:
    """Wait for the end of all ranks.  Later code of the interpreter may still use arrays: dsm ends with MPI."""
    _exit.abort_if_failed()
    if _life.starting:
        _abort("it ended while dsm was being started", 1)
    runtime = _life.runtime
    if runtime is None or not runtime.lib.dsm_active():  # not started, or ended by MPI.Finalize()
        return
    try:
        for call in before_end:
            call()
        runtime.wait(lambda slice_s: runtime.lib.dsm_finalize(True, slice_s))
        for call in after_end:
            call()
    except BaseException as error:
        # Python would print the error and go on to MPI_Finalize, which would wait for the other ranks for ever.
        if runtime.size == 1:
            raise
        runtime.abort(f"at the end of the program: {_exit.describe(error)}", 1)


_mpi.ranks_wait_for_mpi()  # marks this process as the rank, before it starts other processes
# Callbacks that the program registers later run earlier.
if not _children.is_child(_mpi.in_job(os.environ)):
    _exit.install(_abort)
atexit.register(_at_exit)


def rank() -> int:
    """Return this process's number among the ranks, from 0.  Local.

    Before `init` it is the rank in ``MPI.COMM_WORLD``.  The call does not start dsm, but imports mpi4py, which starts
    MPI.
    """
    return _life.runtime.rank if _life.runtime is not None else int(_world().Get_rank())


def size() -> int:
    """Return the number of ranks.  Local.

    Before `init` it is the size of ``MPI.COMM_WORLD``.  The call does not start dsm, but imports mpi4py, which starts
    MPI.
    """
    return _life.runtime.size if _life.runtime is not None else int(_world().Get_size())


def _world() -> Any:
    refuse_if_ended()
    _, _, mpi = _mpi.load()
    _mpi.check_launcher(mpi.COMM_WORLD)
    return mpi.COMM_WORLD


def barrier() -> None:
    """Wait for all ranks; afterwards every rank sees all earlier writes.  Collective.

    One thread of each rank calls it; it publishes the writes of all threads of that rank.  Besides barriers only the
    hand-over of a lock publishes writes; an MPI message or ``comm.Barrier()`` does not.

    Raises
    ------
    DSMError
        Another rank is in a different collective call; the text names both.

    Examples
    --------
    >>> import dsm
    >>> a = dsm.zeros(dsm.size())
    >>> a[dsm.rank()] = dsm.rank()
    >>> dsm.barrier()
    >>> int(a.sum()) == sum(range(dsm.size()))
    True
    """
    runtime = started()
    runtime.wait(runtime.lib.dsm_barrier)
