"""Runs the command of a job, and ends the job with whatever ends this process."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO

TIMED_OUT = -1
NODES = "host, rank or a number of ranks"


def node_environ(node: str) -> dict[str, str]:
    """Return what the environment of a job tells dsm about which ranks make a node, or raise ValueError."""
    if node not in ("host", "rank") and not (node.isascii() and node.isdecimal() and int(node) > 0):
        raise ValueError(f"a node is {NODES}, not {node!r}")
    return {"DSM_NODE": node}


def wait(words: Sequence[str], environ: Mapping[str, str], timeout_s: float, output: IO[str] | None = None) -> int:
    """Run a command to its end and return its status, or TIMED_OUT.  Whatever ends this ends the job.

    What it prints goes to `output`, or to where this process prints.
    """
    job = subprocess.Popen(
        list(words),
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        return job.wait(timeout_s)
    except BaseException as error:
        # Ctrl-C does not reach a session of its own; mpiexec ends its ranks.
        job.terminate()
        try:
            job.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            job.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            print(f"ended after {timeout_s:g} s: {shlex.join(words)}", file=sys.stderr)
            return TIMED_OUT
        raise
