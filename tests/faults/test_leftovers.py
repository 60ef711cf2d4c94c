"""What an MPI leaves in /dev/shm when its job is aborted: `python -m dsm run` removes it, and nothing else."""

import mmap
import os
import subprocess
import sys
import tempfile
import time
import uuid

import pytest

from dsm import _leftovers

SHOW = """
import os, re, time
from mpi4py import MPI
MPI.COMM_WORLD.Barrier()
files = set(re.findall(r"/dev/shm/(?:mpich_shm_|sm_segment)\\S+", open("/proc/self/maps").read()))
print("segments", *files, flush=True)
"""


def segments(out):
    return {word for line in out.splitlines() if "segments" in line for word in line.split() if "/dev/shm/" in word}


def gone(file, seconds=20):
    end = time.monotonic() + seconds
    while os.path.exists(file):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def dsm_run(program):
    return subprocess.run(
        [sys.executable, "-P", "-m", "dsm", "run", "-n", "2", "-c", SHOW + program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("end", ["os.abort()", "MPI.COMM_WORLD.Abort(3)", "os.kill(os.getpid(), 9)", "os._exit(5)"])
def test_run_removes_what_its_aborted_job_leaves(end):
    job = dsm_run(f"MPI.COMM_WORLD.rank == 1 and {end}; MPI.COMM_WORLD.Barrier()")
    assert job.returncode != 0
    made = segments(job.stdout)
    assert made, job
    assert all(gone(file) for file in made), made


def test_the_file_of_a_job_that_runs_beside_it_stays(start):
    beside = start(2, SHOW + "time.sleep(60)")
    beside.wait_for("segments", times=2)
    theirs = segments(beside.out)
    job = dsm_run("os.abort()")
    assert all(gone(file) for file in segments(job.stdout))
    assert all(os.path.exists(file) for file in theirs)
    beside.kill()


@pytest.fixture
def file():
    made = []

    def make(prefix="mpich_shm_"):
        path = f"/dev/shm/{prefix}test_{uuid.uuid4().hex}"
        made.append((path, open(path, "wb+")))  # noqa: SIM115 - closed by the test or below
        return made[-1]

    yield make
    for path, opened in made:
        opened.close()
        if os.path.exists(path):
            os.unlink(path)


def test_a_file_goes_when_nobody_has_it_open_or_mapped(file):
    path, opened = file()
    opened.truncate(4096)
    assert _leftovers.remove_unused({path}) == {path}
    mapped = mmap.mmap(opened.fileno(), 4096)
    opened.close()
    assert _leftovers.remove_unused({path}) == {path}
    assert os.path.exists(path)
    mapped.close()
    assert _leftovers.remove_unused({path}) == set()
    assert not os.path.exists(path)
    assert _leftovers.remove_unused({path}) == set()


def test_the_file_of_another_user_stays(file, monkeypatch):
    path, opened = file()
    opened.close()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert _leftovers.remove_unused({path}) == {path}
    assert os.path.exists(path)


def test_only_what_appears_while_the_job_runs_is_removed():
    """In a folder of its own: in /dev/shm any job that ends may remove what nobody uses."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="dsm_test_") as folder:
        older, younger, own = (os.path.join(folder, name) for name in ("mpich_shm_1", "mpich_shm_2", "of_the_program"))
        open(older, "x").close()
        first = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        sweeper = [sys.executable, "-I", "-S", _leftovers.__file__, str(first.pid), folder]
        assert subprocess.run(sweeper, check=False, timeout=60).returncode == 0
        for file in (younger, own):
            open(file, "x").close()
        time.sleep(0.2)
        assert os.path.exists(younger)
        first.communicate(b"\n")
        assert gone(younger)
        assert sorted(os.listdir(folder)) == ["mpich_shm_1", "of_the_program"]


def test_a_file_that_is_opened_while_it_is_removed_kills_nobody(tmp_path):
    """The kernel tells who holds a lease by a signal, which ended the process: a launcher, or a worker of pytest."""
    file = tmp_path / "mpich_shm_1"
    file.touch()
    program = f"""
import os, subprocess, sys
from dsm import _leftovers
unlink = os.unlink
def opened_first(path):
    opener = "import os, sys; os.open(sys.argv[1], os.O_RDWR | os.O_NONBLOCK)"
    subprocess.run([sys.executable, "-c", opener, path], stderr=subprocess.DEVNULL)
    unlink(path)
os.unlink = opened_first
print(_leftovers.remove_unused({{{str(file)!r}}}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr
    assert not file.exists()
