"""A job of its own for what may crash or hang: started, watched, ended with all its processes, and checked.

Every job, whatever it tests, must leave no process and no file in /dev/shm behind.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import psutil

from dsm import _launch, _leftovers

MARK = "DSM_TEST_JOB"


class Job:
    """A running job; `out` and `err` grow while it runs, `status` is there when it has ended."""

    def __init__(self, words, environ, folder):
        self.mark = uuid.uuid4().hex
        self.shm_before = set(os.listdir("/dev/shm"))
        # A launcher that is killed leaves its files.  Open MPI's are named after its process: the next mpirun that gets
        # this number finds them and does not start.
        self.temporary = tempfile.TemporaryDirectory(prefix="dsm-job-", ignore_cleanup_errors=True)
        self.process = subprocess.Popen(
            words,
            cwd=folder,
            env={**environ, MARK: self.mark, "TMPDIR": self.temporary.name},
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
        over = False
        while len(found := re.findall(pattern, self.out + self.err)) < times:
            if over:
                raise AssertionError(f"{pattern!r} {len(found)} times instead of {times}, then {self!r}")
            over = self.process.poll() is not None or time.monotonic() > end
            if over:
                self.kill()  # what the job printed last is read now, and looked at once more
            else:
                time.sleep(0.02)

    def wait(self, seconds=40):
        """Wait for the end; a job that hangs is ended, and a failure."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {seconds} s: {self!r}") from None
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
                raise AssertionError(f"processes are left: {text}\n{self!r}")
            time.sleep(0.05)
        # What an MPI leaves of an aborted job is removed.  What somebody uses, or soon removes, is of another job on
        # this machine.
        new = {f"/dev/shm/{name}" for name in set(os.listdir("/dev/shm")) - self.shm_before}
        _leftovers.remove_unused(new & _leftovers.files())
        new -= _leftovers.files()
        # Named semaphores are of multiprocessing, which does not hold the file.
        new = {file for file in new if not file.startswith("/dev/shm/sem.")}
        while (left := {file for file in new if not in_use(file)}) and time.monotonic() < end:
            time.sleep(0.05)
        assert not left, f"files are left in /dev/shm: {left}\n{self!r}"
        self.temporary.cleanup()

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


def start(folder, ranks, words, env=None):
    """Start the words after `python` on several ranks (0: without mpiexec)."""
    words = [sys.executable, "-P", *words]
    environ = dict(os.environ)
    if ranks:
        words, environ = _launch.command(ranks, words)
    environ.pop("DSM_COLLECT_BYTES", None)
    return Job(words, {**environ, **(env or {})}, folder)
