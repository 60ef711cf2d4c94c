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


@pytest.fixture
def start(tmp_path):
    """Start a program, given as text or as the words after `python`, on several ranks (0: without mpiexec)."""
    started = []

    def start_job(ranks, program, *arguments, env=None):
        if isinstance(program, str):
            file = tmp_path / f"program{len(started)}.py"
            file.write_text(PRELUDE + textwrap.dedent(program))
            program = [str(file)]
        started.append(jobs.start(tmp_path, ranks, [*program, *arguments], env))
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
