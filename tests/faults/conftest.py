"""Fixtures that start jobs, for whatever may crash or hang.

Every job, whatever it tests, must leave no process and no file in /dev/shm behind.
"""

import os
import re
import signal
import textwrap
from pathlib import Path

import jobs
import pytest

ROOT = Path(__file__).parents[2]
PRELUDE = """\
import os, signal, sys, threading, time
import numpy as np
import dsm
from mpi4py import MPI
"""


# Files about what passes between nodes, or about faults for it: in the default mode the ranks of one host are one node,
# which has neither.  The jobs of all other files are a user's: starts, ends, exits, children run as they do for a user.
# A test asks for another mode with the marker `node`.
BETWEEN_NODES = {
    "test_chaos",  # the network is what it disturbs
    "test_crashes",  # a handler that was stolen matters where pages are fetched
    "test_jobs",  # optimisations, collections and progress of messages; the examples ask for the default
    "test_signals",  # SIGSEGV blocked or stolen, while pages are fetched
    "test_unpinned",  # on one node the kernel and MPI find all pages accessible
    "test_waits",  # roll calls, trails of locks and answers that do not come travel as messages
    "test_wire",  # damaged messages
}


@pytest.fixture
def node(request):
    """The ranks that are a node in the jobs of the test: DSM_NODE, or "" for the default."""
    marker = request.node.get_closest_marker("node")
    if marker:
        return marker.args[0]
    return "rank" if request.path.stem in BETWEEN_NODES else ""


@pytest.fixture
def start(tmp_path, node):
    """Start a program, given as text or as the words after `python`, on several ranks (0: without mpiexec)."""
    started = []

    def start_job(ranks, program, *arguments, env=None):
        if isinstance(program, str):
            file = tmp_path / f"program{len(started)}.py"
            file.write_text(PRELUDE + textwrap.dedent(program))
            program = [str(file)]
        started.append(jobs.start(tmp_path, ranks, [*program, *arguments], {"DSM_NODE": node, **(env or {})}))
        return started[-1]

    yield start_job
    for job in started:
        if job.process.poll() is None:
            job.kill()
        job.assert_nothing_is_left()


@pytest.fixture
def run(start):
    """Run a program to its end."""

    def run_job(ranks, program, *arguments, env=None, seconds=40):
        return start(ranks, program, *arguments, env=env).wait(seconds)

    return run_job


@pytest.fixture
def run_again(run):
    """Run files of tests/mpi, by their names without `test_`, in a job with these settings; all must pass."""

    def run_files(ranks, names, settings):
        files = [str(ROOT / "tests" / "mpi" / f"test_{name}.py") for name in names]
        # What dsm itself says at a bad end must not be captured.
        words = ["-m", "pytest", "--with-mpi", "-q", "--capture=sys", "--rootdir", str(ROOT), *files]
        job = run(ranks, words, env=settings, seconds=240)
        assert job.status == 0, job
        assert re.search(r"\d+ passed", job.out), job
        assert "failed" not in job.out

    return run_files


@pytest.fixture
def interrupt():
    """Press Ctrl-C: the terminal sends SIGINT to every process of the foreground group."""
    return lambda job: os.killpg(job.process.pid, signal.SIGINT)
