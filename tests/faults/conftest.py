"""Jobs of their own for whatever may crash or hang: started, watched, ended with all their processes, and checked.

Every job, whatever it tests, must leave no process and no file in /dev/shm behind.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from pathlib import Path

import psutil
import pytest

from dsm import _launch, _leftovers

ROOT = Path(__file__).parents[2]
MARK = "DSM_TEST_JOB"
PRELUDE = """\
import os, signal, sys, threading, time
import numpy as np
import dsm
from mpi4py import MPI
"""


class Job:
    """A running job; `out` and `err` grow while it runs, `status` is there when it has ended."""

    def __init__(self, words, environ, folder):
        self.mark = uuid.uuid4().hex
        self.shm_before = set(os.listdir("/dev/shm"))
        self.process = subprocess.Popen(
            words,
            cwd=folder,
            env={**environ, MARK: self.mark},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._lines = {"out": [], "err": []}
        self._readers = [
            threading.Thread(target=self._read, args=[name, stream], daemon=True)
            for name, stream in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()
        self.ended_at = None

    def _read(self, name, stream):
        for line in stream:
            self._lines[name].append(line)

    @property
    def out(self):
        return "".join(self._lines["out"])

    @property
    def err(self):
        return "".join(self._lines["err"])

    @property
    def status(self):
        return self.process.returncode

    def wait_for(self, pattern, times=1, seconds=30):
        """Wait until the job has printed something that matches."""
        end = time.monotonic() + seconds
        while len(found := re.findall(pattern, self.out + self.err)) < times:
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                pytest.fail(f"{pattern!r} {len(found)} times instead of {times}, then {self!r}")
            time.sleep(0.02)

    def wait(self, seconds=40):
        """Wait for the end; a job that hangs is ended, and a failure."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"still running after {seconds} s: {self!r}")
        self.ended_at = time.time()
        for reader in self._readers:
            reader.join(5)
        return self

    def processes(self):
        """All processes of the job, wherever they hang in the tree."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def kill(self):
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.wait(10)
        for reader in self._readers:
            reader.join(5)

    def assert_nothing_is_left(self):
        end = time.monotonic() + 5
        while left := self.processes():
            if time.monotonic() > end:
                text = [" ".join(process.cmdline()) for process in left]
                self.kill()
                pytest.fail(f"processes are left: {text}\n{self!r}")
            time.sleep(0.05)
        # What an MPI leaves of an aborted job is removed.  What somebody uses, or soon removes, is of another job on
        # this machine.
        new = {f"/dev/shm/{name}" for name in set(os.listdir("/dev/shm")) - self.shm_before}
        _leftovers.remove_unused(new & _leftovers.files())
        new -= _leftovers.files()
        while (left := {file for file in new if not in_use(file)}) and time.monotonic() < end:
            time.sleep(0.05)
        assert not left, f"files are left in /dev/shm: {left}\n{self!r}"

    def __repr__(self):
        return f"status {self.status}\n--- out ---\n{self.out}\n--- err ---\n{self.err}"


def in_use(file):
    """Whether some process, perhaps of another job on this machine, has the file open or mapped."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if file in (folder / "maps").read_text():
                return True
            for descriptor in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) == file:
                        return True
    return not os.path.exists(file)


@pytest.fixture
def start(tmp_path):
    """Start a program, given as text or as the words after `python`, on several ranks (0: without mpiexec)."""
    jobs = []

    def start_job(ranks, program, *arguments, env=None):
        if isinstance(program, str):
            file = tmp_path / f"program{len(jobs)}.py"
            file.write_text(PRELUDE + textwrap.dedent(program))
            program = [str(file)]
        words = [sys.executable, "-P", *program, *arguments]
        environ = dict(os.environ)
        if ranks:
            words, environ = _launch.command(ranks, words)
        environ.pop("DSM_COLLECT_BYTES", None)
        jobs.append(Job(words, {**environ, **(env or {})}, tmp_path))
        return jobs[-1]

    yield start_job
    for job in jobs:
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
