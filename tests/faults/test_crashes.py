"""Real segmentation faults stay what they are (those of one rank of several: test_ends.py); fork is survived."""

import re

import pytest

CRASH = """
import ctypes, faulthandler
def crash_in_user_code():
    ctypes.string_at(8)
"""


def test_segmentation_fault_without_faulthandler(run):
    job = run(0, CRASH + "a = dsm.zeros(10)\na[0] = 1\ncrash_in_user_code()")
    assert job.status == -11, job
    assert "dsm: rank 0 of 1: segmentation fault at address 0x8, outside of shared memory" in job.err


def test_a_crash_while_the_job_is_being_ended_does_not_hide_why(run):
    """MPI_Abort runs exit handlers, which take MPI down while other threads are inside it."""
    job = run(
        0,
        CRASH
        + """
dsm.zeros(10)
ends, crashes = os.pipe()
def crash():
    os.read(ends, 1)
    crash_in_user_code()
threading.Thread(target=crash, daemon=True).start()

@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p)
def exit_handler(status, argument):
    os.write(crashes, b".")
    time.sleep(0.5)

ctypes.CDLL(None).on_exit(exit_handler, None)
dsm._runtime.active().lib.dsm_abort(b"no such galaxy", 4)
""",
    )
    assert "no such galaxy" in job.err, job
    assert "segmentation fault" not in job.err
    assert job.status == 4


def test_faulthandler_enabled_after_init(run):
    """It steals SIGSEGV: told at the next barrier; pages are still fetched, and crashes still traced."""
    job = run(
        2,
        CRASH
        + """
a = dsm.zeros(100_000)
faulthandler.enable()
dsm.barrier()
a[dsm.rank() :: 2] = 1
dsm.barrier()
assert a.sum() == a.size
print("went on", flush=True)
dsm.barrier()
if dsm.rank() == 1:
    crash_in_user_code()
dsm.barrier()
""",
    )
    assert job.out.count("went on") == 2, job
    assert re.search(r"dsm: .*faulthandler", job.err)
    assert "Fatal Python error: Segmentation fault" in job.err
    assert "crash_in_user_code" in job.err


@pytest.mark.node("")
def test_fork(run):
    """A child has no shared memory, is told so, and its end does not end the rank's dsm."""
    job = run(
        2,
        """
        a = dsm.zeros(10_000, name="of the parent")
        a[dsm.rank() :: 2] = 1
        dsm.barrier()
        child = os.fork()
        if child == 0:
            try:
                dsm.barrier()
            except RuntimeError as error:
                assert "forked" in str(error)
                print("child was told", flush=True)
            os._exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
        toucher = os.fork()
        if toucher == 0:
            a[5]
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(toucher, 0)[1]) != 0
        assert a.sum() == a.size
        dsm.barrier()
        print("parent went on", flush=True)
        """,
    )
    assert job.status == 0, job
    assert job.out.count("child was told") == job.out.count("parent went on") == 2


SPAWN = """
import multiprocessing
import dsm  # the children import it too: that starts neither dsm nor MPI

def square(x):
    return x * x

if __name__ == "__main__":
    a = dsm.zeros(2)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        a[dsm.rank()] = pool.map(square, [3 + dsm.rank()])[0]
    dsm.barrier()
    assert a.tolist() == [9, 16]
    print("spawned", flush=True)
"""


@pytest.mark.node("")
def test_multiprocessing_by_spawn(run, tmp_path):
    (tmp_path / "spawn.py").write_text(SPAWN)
    job = run(2, [str(tmp_path / "spawn.py")])
    assert job.status == 0, job
    assert job.out.count("spawned") == 2
