"""The files that an MPI leaves in /dev/shm when its job is aborted, and their removal after the job.

MPICH makes a file of some megabytes for the ranks of a host and removes it in MPI_Finalize, which an aborted job does
not reach.  The name of the file does not say which job made it.  But the kernel knows whether any process, in whatever
container, has the file open or mapped: then it refuses a lease.  So a file is removed that appeared while the job ran,
belongs to this user, and is not used by any process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time

FOLDER = "/dev/shm"
NAMES = ("mpich_shm_", "sm_segment.", "vader_segment.", "Intel_MPI_")
_ENDED_S = 5.0  # ranks may outlive their mpiexec for so long


def files(folder: str = FOLDER) -> set[str]:
    """Return the files of MPIs that exist now.  Local."""
    with contextlib.suppress(OSError):
        return {os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(NAMES)}
    return set()


def remove_unused(found: set[str]) -> set[str]:
    """Remove those files that no process uses, and return the others.  Local."""
    return {file for file in found if not _removed(file)}


def _removed(file: str) -> bool:
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if os.fstat(opened).st_uid != os.geteuid():
            return False
        # Else a process that opens the leased file kills this one (SIGIO).
        fcntl.fcntl(opened, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_WRLCK)  # fails while any other process has the file open
        os.unlink(file)
    except OSError:
        return False
    finally:
        os.close(opened)
    return True


def remove_afterwards() -> None:
    """Start a process that removes the files of this process's job after the job, however it ends.  Local.

    The new process has no parent, gets no signals of the terminal and holds no descriptor of this process.  It ends at
    once on kernels that cannot report the end of a process (before Linux 5.3).
    """
    nothing = subprocess.DEVNULL
    words = [sys.executable, "-I", "-S", __file__, str(os.getpid()), FOLDER]
    with contextlib.suppress(OSError):
        subprocess.run(words, stdin=nothing, stdout=nothing, stderr=nothing, cwd="/", check=False)


def _main() -> None:
    folder = sys.argv[2]
    before = files(folder)
    first = os.pidfd_open(int(sys.argv[1]))
    os.setsid()
    if os.fork() > 0:
        return  # the files from before the job are known, so the job may begin
    select.select([first], [], [])
    left, end = files(folder) - before, time.monotonic() + _ENDED_S
    while (left := remove_unused(left)) and time.monotonic() < end:
        time.sleep(0.05)


if __name__ == "__main__":
    _main()
