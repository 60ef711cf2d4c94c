"""Shared memory that is given to the kernel or to MPI without a pin: what fails names the array and the cure."""

import re

import pytest

PROGRAM = """
import pathlib, socket
class Grid:
    def __init__(self):
        self.values = dsm.zeros(100_000, name="velocities")
grid = Grid()
if dsm.rank() == 0:
    grid.values[:] = 1
    pathlib.Path("in.bin").write_bytes(bytes(800_000))
dsm.barrier()
out = os.open("out.bin", os.O_WRONLY | os.O_CREAT)
def work(view):
    {call}
if dsm.rank() == 1:
    work(grid.values)
dsm.barrier()
"""

CALLS = {
    "tofile": 'view.tofile("out2.bin")',
    "np.save": 'np.save("out.npy", view)',
    "os.write": "os.write(out, view)",
    "readinto": 'open("in.bin", "rb").readinto(view)',
    "socket": "ends = socket.socketpair(); ends[0].sendall(view)",
    "thread": "t = threading.Thread(target=os.write, args=(out, view)); t.start(); t.join(); sys.exit(1)",
    "cause": """
    try:
        os.write(out, view)
    except OSError as error:
        raise LookupError("no such galaxy") from error
""",
}


@pytest.mark.parametrize("call", CALLS)
def test_the_kernel_fails_and_a_note_names_array_and_cure(run, call):
    job = run(2, PROGRAM.format(call=CALLS[call].strip()))
    assert job.status == 1, job
    assert len(re.findall(r"dsm: the kernel.*velocities.*dsm\.pinned\(view, \"r\"\)", job.err)) == 1, job
    if call != "thread":
        assert "view (velocities)" in job.err


def test_an_error_of_another_kind_gets_no_note(run):
    job = run(2, PROGRAM.format(call='raise OSError(28, "No space left on device")'))
    assert job.status == 1, job
    assert "dsm.pinned" not in job.err


@pytest.mark.parametrize("numbers", [8, 100_000])
@pytest.mark.parametrize(
    ("call", "mode"),
    [
        ("comm.Send(a, dest=0) if dsm.rank() == 1 else comm.Recv(np.empty(a.size), source=1)", "r"),
        ("comm.Recv(a, source=0) if dsm.rank() == 1 else comm.Send(np.ones(a.size), dest=1)", "w"),
        ("comm.Bcast(a, root=1)", "r"),
    ],
)
def test_mpi_meets_a_page_that_is_not_here(start, numbers, call, mode):
    """It ends the job, hangs, or does it, which is MPI's affair; but whatever it does is explained within seconds."""
    job = start(
        2,
        f"""
        comm = MPI.COMM_WORLD
        a = dsm.zeros({numbers}, name="velocities")
        if dsm.rank() == 0:
            a[:] = 1
        dsm.barrier()
        {call}
        dsm.barrier()
        """,
    )
    job.wait_for(r"velocities(.|\n)*dsm\.pinned\(view, ", seconds=20)
    called = re.search(r"an MPI call .*dsm\.pinned\(view, \"(.)\"\)", job.err)
    assert not called or called.group(1) == mode  # else MPI has let the kernel copy, and raised an exception
    job.kill()


def test_pinned_memory_is_not_told_of(run):
    job = run(
        2,
        """
        comm = MPI.COMM_WORLD
        a, b = dsm.zeros(100_000), dsm.zeros(8)
        if dsm.rank() == 0:
            a[:] = b[:] = 1
        dsm.barrier()
        for array in (a, b):
            with dsm.pinned(array, "r"):
                if dsm.rank() == 1:
                    comm.Send(array, dest=0)
                else:
                    comm.Recv(np.empty(array.size), source=1)
        if dsm.rank() == 1:
            a[:] = np.arange(100_000)  # a copy by the C library, of the program's own
            comm.Send(np.ones(10), dest=0)
        else:
            comm.Recv(np.empty(10), source=1)
        """,
    )
    assert job.status == 0, job
    assert "pinned" not in job.err
