"""Processes that multiprocessing starts from a rank: they are no ranks, and must not start MPI in the rank's name.

Such a child has the environment of the rank, including the launcher's variables.  Unless it was forked, it imports the
main program again, and runs all code outside of ``if __name__ == "__main__":``.  Calls of dsm there would start MPI,
which would kill the child, and a `Pool` would start the next child, for ever.

If the parent is not a rank of a job, the child may use dsm after it has imported the main program: it is then the only
rank of a world of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

_REMEDY = (
    'Put the program under `if __name__ == "__main__":`, with all its calls of dsm, and give the child private copies '
    "of what it needs"
)


def _processes() -> Any:
    return sys.modules.get("multiprocessing.process")  # every child of multiprocessing has loaded it


def _imports_main() -> bool:
    """Tell whether this child is still importing the main program.  Local."""
    processes = _processes()
    return processes is not None and getattr(processes.current_process(), "_inheriting", False)


def is_child(in_job: bool) -> bool:
    """Tell whether this process is a child that may not start MPI.  Local.

    Parameters
    ----------
    in_job : bool
        The environment is that of a rank of a job.
    """
    processes = _processes()
    return processes is not None and (_imports_main() or (in_job and processes.parent_process() is not None))


def refuse(in_job: bool) -> None:
    """Raise RuntimeError in a child that may not start MPI.  Local.

    A worker of a `Pool` that still imports the main program also interrupts the owner of the pool.  Otherwise the owner
    would start a new worker for each one that ends.
    """
    if not is_child(in_job):
        return
    name = _processes().current_process().name
    text = f"dsm: process {os.getpid()} ({name}) is a child that multiprocessing started, not a rank"
    if not _imports_main():
        raise RuntimeError(f"{text}: it has no shared memory. {_REMEDY}")
    text = f"{text}: it was about to call dsm while importing the main program. {_REMEDY}"
    if "PoolWorker" in name:
        print(
            f"{text}. Its pool would start the next one for ever, so the owner of the pool is interrupted",
            file=sys.stderr,
            flush=True,
        )
        owner = _owner_of_pool(name)
        if owner > 1:  # else the owner has ended
            with contextlib.suppress(OSError):
                os.kill(owner, signal.SIGINT)
    raise RuntimeError(text)


def _owner_of_pool(name: str) -> int:
    parent = os.getppid()
    if not name.startswith("ForkServer"):
        return parent
    fields = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])  # the parent of the fork server
