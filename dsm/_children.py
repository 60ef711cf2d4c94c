"""Processes that multiprocessing starts from a rank: they are no ranks, and must not start MPI in its name.

Such a child has the environment of the rank, the launcher's variables included, and imports the main program again
unless it was forked.  What that does outside of ``if __name__ == "__main__":`` it does in the child, too: it would
start MPI, be killed by it, and a `Pool` would start the next child, for ever.

A child of a program that is no rank of a job is left alone once it runs what it was made for: it may be a world of one
rank of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

_CURE = (
    'Put the program under `if __name__ == "__main__":`, with all its calls of dsm, and give the child private copies '
    "of what it needs"
)


def _processes() -> Any:
    return sys.modules.get("multiprocessing.process")  # whoever is a child of it has loaded it


def _imports_main() -> bool:
    """Tell whether this child is still importing the main program.  Local."""
    processes = _processes()
    return processes is not None and getattr(processes.current_process(), "_inheriting", False)


def is_child(in_job: bool) -> bool:
    """Tell whether this process is a child that may not start MPI.  Local.

    Parameters
    ----------
    in_job : bool
        Its environment is that of a rank of a job.
    """
    processes = _processes()
    return processes is not None and (_imports_main() or (in_job and processes.parent_process() is not None))


def refuse(in_job: bool) -> None:
    """Raise RuntimeError in a child that may not start MPI.  Local.

    While it imports the main program, a worker of a `Pool` also interrupts the process that the pool belongs to, which
    would start another one for each that ends, and never ask why.
    """
    if not is_child(in_job):
        return
    name = _processes().current_process().name
    text = f"dsm: process {os.getpid()} ({name}) is a child that multiprocessing has started, and no rank"
    if not _imports_main():
        raise RuntimeError(f"{text}: it has no shared memory. {_CURE}")
    text = f"{text}: it was about to call dsm while importing the main program. {_CURE}"
    if "PoolWorker" in name:
        print(f"{text}. Its pool would start the next one: interrupted", file=sys.stderr, flush=True)
        owner = _owner_of_pool(name)
        if owner > 1:  # it is there still
            with contextlib.suppress(OSError):
                os.kill(owner, signal.SIGINT)
    raise RuntimeError(text)


def _owner_of_pool(name: str) -> int:
    parent = os.getppid()
    if not name.startswith("ForkServer"):
        return parent
    fields = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1])  # the parent of the fork server
