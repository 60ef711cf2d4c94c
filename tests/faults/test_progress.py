"""`dsm run --progress`: what it shows while a job runs, and that the job is otherwise as without."""

import signal

import pytest

WAITING = """
lock = dsm.Lock(name="mine")
if dsm.rank() == 0:
    lock.acquire()
dsm.barrier()
if dsm.rank() == 1:
    lock.acquire()
time.sleep(30)
"""


@pytest.fixture
def start_run(start, tmp_path):
    def start_job(text, *options):
        return start(0, ["-m", "dsm", "run", "-n", "2", "--progress", *options, write(tmp_path, text)])

    return start_job


def write(folder, text):
    file = folder / "prog.py"
    file.write_text(f"import sys, time\nimport dsm\n{text}")
    return str(file)


@pytest.mark.parametrize("node", ["host", "rank"], indirect=False)
def test_a_line_says_who_waits_for_what(start_run, node):
    job = start_run(WAITING, "--node", node)
    job.wait_for(r"dsm progress: 1 of 2 ranks wait; rank 1 \d+\.\d s for lock 0 'mine' \| [\d,]+ MiB \| \d+ faults/s")
    job.process.send_signal(signal.SIGTERM)
    assert job.wait().status != 0


def test_the_status_is_that_of_the_job(start_run):
    assert start_run("dsm.barrier()").wait().status == 0
    assert start_run("dsm.barrier()\nsys.exit(dsm.rank() * 7)").wait().status == 7
