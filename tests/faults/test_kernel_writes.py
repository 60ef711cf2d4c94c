"""Reads and receives into shared arrays that no rank has written to, in a job whose ranks are one node."""

import ctypes
import re

import pytest

RANKS = 2
MIB = 1 << 20

FILLS = """
import pathlib, socket, threading
rank, comm = dsm.rank(), MPI.COMM_WORLD
MIB, part, skip = 1 << 20, int(sys.argv[1]), int(sys.argv[2])
values = [np.random.default_rng(seed).integers(1, 256, part, np.uint8) for seed in range(dsm.size())]
mine = values[rank]
pathlib.Path(f"in{rank}.bin").write_bytes(bytes(100) + mine.tobytes())

def pieces(call, view):
    done = 0
    while done < len(view):
        done += call(done)

def readinto(view):
    with open(f"in{rank}.bin", "rb") as file:
        file.seek(100)
        assert file.readinto(view) == len(view)

def read_unbuffered(view):
    with open(f"in{rank}.bin", "rb", buffering=0) as file:
        file.seek(100)
        pieces(lambda done: file.readinto(view[done:]), view)

def readv(view):
    with open(f"in{rank}.bin", "rb", buffering=0) as file:
        file.seek(100)
        pieces(lambda done: os.readv(file.fileno(), [view[done:done + 70_000], view[done + 70_000:]]), view)

def by_socket(receive):
    def fill(view):
        ends = socket.socketpair()
        sender = threading.Thread(target=ends[0].sendall, args=[mine.data])
        sender.start()
        pieces(lambda done: receive(ends[1], view[done:]), view)
        sender.join()
    return fill

def by_mpi(view):
    peer = dsm.size() - 1 - rank
    comm.Sendrecv(values[peer], dest=peer, recvbuf=view, source=peer)

CALLS = {
    "readinto": readinto, "read_unbuffered": read_unbuffered, "readv": readv,
    "recv_into": by_socket(lambda end, view: end.recv_into(view)),
    "recvfrom_into": by_socket(lambda end, view: end.recvfrom_into(view)[0]),
    "recvmsg_into": by_socket(lambda end, view: end.recvmsg_into([view])[0]),
    "MPI": by_mpi,
}

def check(fill):
    a = dsm.zeros(skip + dsm.size() * part, np.uint8, name="velocities")
    first = skip + rank * part
    dsm.barrier()
    fill(a[first:first + part])
    dsm.barrier()
    assert not a[:skip].any()
    for k, right in enumerate(values):
        assert np.array_equal(a[skip + k * part:skip + (k + 1) * part], right), k
    place = a.ctypes.data
    dsm.free(a)
    return place
"""

ALL = """
for name, fill in CALLS.items():
    places = {check(fill), check(fill)}  # the second time in memory that was used before
    assert len(places) == 1
    print(f"filled by {name}", flush=True)
"""


def can_make_huge_pages():
    """Of no bytes the kernel says whether it knows MADV_COLLAPSE."""
    libc = ctypes.CDLL(None)
    return libc.madvise(ctypes.c_void_p(0), ctypes.c_size_t(0), 25) == 0


@pytest.fixture
def run_alone(run):
    def run_job(program, *arguments, **settings):
        return run(RANKS, program, *arguments, env={"DSM_NODE": "host", **settings}, seconds=90)

    return run_job


NO_LIBRARY = {"LD_PRELOAD": ""}


# Small; of several blocks that both ranks fill in part, with an edge that lies in none of them; whole blocks.
@pytest.mark.parametrize(("part", "skip"), [(5000, 100), (3 * MIB + 4097, 4095), (4 * MIB, 0)])
@pytest.mark.parametrize("settings", [{}, {"DSM_WITHOUT": "huge", **NO_LIBRARY}], ids=["huge", "small pages"])
def test_the_kernel_and_mpi_fill_new_arrays(run_alone, part, skip, settings):
    job = run_alone(FILLS + ALL, str(part), str(skip), **settings)
    assert job.status == 0, job
    assert job.out.count("filled by") == RANKS * 7, job
    assert "pinned" not in job.err, job


IN_PART = """
def by_one(call):
    def fill(view):
        view[:1000] = 7  # opens the first block only
        count = call(view)
        assert count == len(view), (call.__name__, count)
    return fill

def one_read(view):
    with open(f"in{rank}.bin", "rb", buffering=0) as file:
        file.seek(100)
        return file.readinto(view)

def one_preadv(view):
    file = os.open(f"in{rank}.bin", os.O_RDONLY)
    count = os.preadv(file, [view], 100)
    os.close(file)
    return count

def receive_all(view):
    ends = socket.socketpair()
    sender = threading.Thread(target=ends[0].sendall, args=[mine.data])
    sender.start()
    count = ends[1].recv_into(view, len(view), socket.MSG_WAITALL)
    sender.join()
    return count

def gathered(view):
    for root in range(dsm.size()):
        whole = a_root[root] if rank == root else None
        if rank == root:
            whole[:part] = 9
        comm.Gather(mine, whole, root=root)
        if rank == root:
            assert all(np.array_equal(whole[k * part:][:part], right) for k, right in enumerate(values)), "gathered"

for call in (one_read, one_preadv, receive_all):
    check(by_one(call))
view_of_mpi = lambda view: (view.__setitem__(slice(1000), 7), by_mpi(view))
check(view_of_mpi)
a_root = [dsm.zeros(dsm.size() * part, np.uint8) for _ in range(dsm.size())]
gathered(None)
print("all whole", flush=True)
"""


@pytest.mark.parametrize(("part", "skip"), [(5000, 100), (3 * MIB + 4097, 4095), (8 * MIB, 0)])
def test_a_buffer_that_is_open_in_part_is_filled_whole(run_alone, part, skip):
    """The kernel would stop at the first block that the rank has not written, and tell so by a short count only."""
    job = run_alone(FILLS + IN_PART, str(part), str(skip))
    assert (job.status, job.out.count("all whole")) == (0, RANKS), job


def test_small_arrays_need_no_library(run_alone):
    job = run_alone(FILLS + ALL, "100000", "0", **NO_LIBRARY)
    assert job.status == 0, job


@pytest.mark.parametrize("call", ["readinto", "recv_into"])
def test_without_the_library_a_note_names_array_and_remedy(run_alone, call):
    if not can_make_huge_pages():
        pytest.skip("the kernel makes no huge pages (MADV_COLLAPSE), so all arrays are open")
    job = run_alone(FILLS + f'check(CALLS["{call}"])', str(4 * MIB), "0", **NO_LIBRARY)
    assert job.status == 1, job
    assert re.search(r"dsm: the kernel.*velocities.*dsm\.pinned\(view", job.err), job


def test_a_pin_opens_a_new_array(run_alone):
    program = """
def fill(view):
    with dsm.pinned(view, "w"):
        readinto(view)
check(fill)
"""
    job = run_alone(FILLS + program, str(4 * MIB), "0", **NO_LIBRARY)
    assert job.status == 0, job


def test_other_bad_addresses_still_fail(run_alone):
    """Memory that is not dsm's, or of an array that was freed; and a forked child has no shared memory."""
    job = run_alone(
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        file, size = os.open("/dev/zero", os.O_RDONLY), 8 << 20

        def read(address):
            ctypes.set_errno(0)
            return libc.read(file, ctypes.c_void_p(address), ctypes.c_size_t(100)), ctypes.get_errno()

        freed, a = dsm.zeros(size, np.uint8, name="freed"), dsm.zeros(size, np.uint8)
        start, start_freed = a.ctypes.data, freed.ctypes.data
        dsm.free(freed)
        assert read(4096) == read(start_freed) == (-1, 14)
        assert read(start)[0] == 100
        child = os.fork()
        if child == 0:
            os._exit(read(start + size // 2) != (-1, 14))
        assert os.waitpid(child, 0)[1] == 0
        """
    )
    assert job.status == 0, job
