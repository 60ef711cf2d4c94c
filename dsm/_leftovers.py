"""The files that an MPI leaves in /dev/shm when its job is aborted, and their removal when the job has ended.

MPICH makes a file of some megabytes for the ranks of a host and removes it in MPI_Finalize, which an aborted job does
not reach.  Its name tells nothing of the job.  But the kernel tells whether anybody, in whatever container, has a file
open or mapped: it gives a lease to nobody else then.  What appeared while the job ran, belongs to this user and is used
by nobody any more is of no use to anybody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import sys
import time

FOLDER = "/dev/shm"
NAMES = ("mpich_shm_", "sm_segment.", "vader_segment.", "Intel_MPI_")
_ENDED_S = 5.0  # the longest that ranks outlive their mpiexec


def files(folder: str = FOLDER) -> set[str]:
    """Return the files of MPIs that there are now.  Local."""
    with contextlib.suppress(OSError):
        return {os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(NAMES)}
    return set()


def remove_unused(found: set[str]) -> set[str]:
    """Remove those of these files that nobody uses, and return the others.  Local."""
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
        fcntl.fcntl(opened, fcntl.F_SETLEASE, fcntl.F_WRLCK)  # refused while any other process has the file
        os.unlink(file)
    except OSError:
        return False
    finally:
        os.close(opened)
    return True


def remove_afterwards() -> None:
    """Start a process that removes what this one's job leaves, whatever this one becomes.  Local.

    It belongs to nobody, hears no signal of the terminal and holds no descriptor of this one.  Where the kernel cannot
    tell of the end of a process (before Linux 5.3) it ends at once.
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
        return  # what was there before is known, and so the job may begin
    select.select([first], [], [])
    left, end = files(folder) - before, time.monotonic() + _ENDED_S
    while (left := remove_unused(left)) and time.monotonic() < end:
        time.sleep(0.05)


if __name__ == "__main__":
    _main()
