"""The machine layer under its tests: mapping, faults, strangers' signal handlers, crashes, the doorbell."""

import errno
import mmap
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
from native import machine_build

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
NONE, READ, WRITE = 0, 1, 2


class Mapped:
    """A mapped range with a server of its faults."""

    def __init__(self, ffi, lib, size, address=None, unit=4096):
        self.ffi, self.lib = ffi, lib
        self.memory = ffi.new("struct memory *")
        self.error = lib.memory_map(self.memory, ffi.NULL if address is None else address, size)
        self.help = ffi.new("struct help *", {"memory": self.memory, "unit_bytes": unit})

    def __enter__(self):
        assert self.error == 0
        return self

    def __exit__(self, *_):
        self.lib.fault_remove()
        self.lib.memory_unmap(self.memory)


def maps(ffi, pointer):
    """Return the line of /proc/self/smaps that holds the address, and its VmFlags."""
    address, found = int(ffi.cast("uintptr_t", pointer)), None
    for line in pathlib.Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and ":" not in head:
            low, high = (int(part, 16) for part in head.split("-"))
            found = line if low <= address < high else None
        elif found and head == "VmFlags:":
            return found, line.split()[1:]
    return None, []


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_both_views_show_the_same_bytes(ffi, lib):
    with Mapped(ffi, lib, MIB) as mapped:
        memory = mapped.memory
        assert lib.memory_protect(memory, 0, MIB, WRITE) == 0
        memory.application[5] = 7
        memory.system[MIB - 1] = 9
        assert memory.system[5] == 7
        assert memory.application[MIB - 1] == 9


def test_four_tebibytes_map_and_cost_nothing(ffi, lib):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Mapped(ffi, lib, 4 * TIB, lib.memory_candidate(0, 4 * TIB)) as mapped:
        mapped.memory.system[4 * TIB - 1] = 1
        assert lib.memory_protect(mapped.memory, 4 * TIB - 4096, 4096, READ) == 0
        assert mapped.memory.application[4 * TIB - 1] == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


def test_an_address_that_is_taken_is_refused_and_left_alone(ffi, lib):
    address = lib.memory_candidate(0, GIB)
    with Mapped(ffi, lib, GIB, address) as mapped:
        assert mapped.memory.application == address
        mapped.memory.system[0] = 5
        again = Mapped(ffi, lib, GIB, address)
        assert again.error == -errno.EEXIST
        overlap = Mapped(ffi, lib, 4 * MIB, ffi.cast("char *", address) + GIB - MIB)
        assert overlap.error == -errno.EEXIST
        assert mapped.memory.system[0] == 5
    with Mapped(ffi, lib, GIB, address):
        pass


def test_an_address_beyond_the_address_space_is_not_called_a_limit(ffi, lib):
    assert Mapped(ffi, lib, GIB, ffi.cast("void *", 1 << 56)).error == -errno.EEXIST


def test_views_are_neither_inherited_nor_dumped_whatever_protection_splits_off(ffi, lib):
    with Mapped(ffi, lib, MIB) as mapped:
        assert lib.memory_protect(mapped.memory, 4096, 4096, WRITE) == 0
        for pointer in (mapped.memory.application, mapped.memory.application + 4096, mapped.memory.system):
            _, flags = maps(ffi, pointer)
            assert {"dc", "dd", "nr"} <= set(flags)
        assert lib.help_fork_is_clean(mapped.memory)


@pytest.mark.parametrize("size", [4096, GIB, 4 * TIB])
def test_candidates_are_aligned_apart_and_end(ffi, lib, size):
    found = []
    while (candidate := lib.memory_candidate(len(found), size)) != ffi.NULL:
        found.append(int(ffi.cast("uintptr_t", candidate)))
        assert len(found) < 1000
    assert len(found) == len(set(found)) >= 8
    assert all(address % (64 * GIB) == 0 for address in found)
    assert all(address + size <= 1 << 47 for address in found)
    with Mapped(ffi, lib, size, ffi.cast("void *", found[0])):
        pass


def test_no_candidate_holds_more_than_the_address_space(ffi, lib):
    assert lib.memory_candidate(0, 1 << 50) == ffi.NULL
    assert lib.memory_candidate(0, (1 << 64) - 4096) == ffi.NULL


def test_discarded_bytes_read_as_zeros_in_both_views_and_are_given_back(ffi, lib):
    with Mapped(ffi, lib, 64 * MIB) as mapped:
        memory = mapped.memory
        ffi.buffer(memory.system, 64 * MIB)[:] = b"x" * (64 * MIB)
        assert lib.memory_protect(memory, 0, 64 * MIB, READ) == 0
        assert lib.memory_discard(memory, 4096, 32 * MIB) == 0
        assert os.fstat(memory.file).st_blocks * 512 == 32 * MIB
        assert memory.application[4095] == ord("x")
        assert memory.application[4096] == 0
        assert memory.system[32 * MIB] == 0
        assert memory.application[32 * MIB + 4096] == ord("x")
        assert os.fstat(memory.file).st_size == 64 * MIB


def with_memory(lib, memory, offset, size=2 * MIB):
    """How many of the machine pages have memory behind them."""
    return sum(lib.memory_touched(memory, at).bit_count() for at in range(offset, offset + size, 64 * 4096))


@pytest.fixture
def huge(ffi, lib):
    """Sixteen megabytes that may have huge pages."""
    with Mapped(ffi, lib, 16 * MIB, lib.memory_candidate(0, 16 * MIB)) as mapped:
        mapped.memory.huge = True
        lib.memory_back(mapped.memory, 0, 2 * MIB)
        if with_memory(lib, mapped.memory, 0) < 512:
            pytest.skip("the kernel makes no huge pages (MADV_COLLAPSE)")
        yield mapped.memory


def test_what_is_backed_as_a_whole_gets_a_huge_page(lib, huge):
    assert lib.memory_protect(huge, 2 * MIB, 8 * MIB, WRITE) == 0
    lib.memory_back(huge, 2 * MIB + 4096, 6 * MIB)
    assert with_memory(lib, huge, 2 * MIB) == 0
    assert with_memory(lib, huge, 4 * MIB) == with_memory(lib, huge, 6 * MIB) == 512
    assert with_memory(lib, huge, 8 * MIB) == 0
    huge.application[4 * MIB + 4095] = 9
    assert huge.system[4 * MIB + 4095] == 9


def test_what_has_memory_or_is_only_opened_is_left_as_it_is(lib, huge):
    huge.system[4 * MIB + 8191] = 7
    assert lib.memory_protect(huge, 4 * MIB, 4 * MIB, WRITE) == 0
    lib.memory_back(huge, 4 * MIB, 2 * MIB)
    assert with_memory(lib, huge, 4 * MIB) == 1
    assert with_memory(lib, huge, 6 * MIB) == 0
    assert huge.application[4 * MIB + 8191] == 7


def test_huge_pages_are_given_back_page_by_page(lib, huge):
    huge.system[0], huge.system[MIB] = 5, 6
    assert lib.memory_discard(huge, 0, MIB) == 0
    assert (huge.system[0], huge.system[MIB]) == (0, 6)
    assert lib.memory_discard(huge, MIB, MIB) == 0
    assert with_memory(lib, huge, 0) <= 1
    assert huge.system[MIB] == 0


def test_what_is_prepared_gets_a_huge_page_if_it_fills_one(ffi, lib, huge):
    assert lib.memory_prepare(huge, 2 * MIB, 6 * MIB) == 4 * MIB
    assert with_memory(lib, huge, 4 * MIB) == 512
    end = lib.memory_prepare(huge, 2 * MIB + 4096, 4 * MIB)
    assert 2 * MIB + 4096 < end < 4 * MIB
    lib.memory_put(huge, 4 * MIB - 1, b"ab", 2)
    assert ffi.buffer(huge.system + 4 * MIB - 1, 2)[:] == b"ab"


def test_bytes_outside_the_range_are_refused(ffi, lib):
    with Mapped(ffi, lib, MIB) as mapped:
        for offset, size in ((MIB, 4096), (0, MIB + 4096), ((1 << 64) - 4096, 8192)):
            assert lib.memory_protect(mapped.memory, offset, size, READ) == -errno.EINVAL
            assert lib.memory_discard(mapped.memory, offset, size) == -errno.EINVAL


def test_too_many_mappings_are_an_error_and_the_range_can_be_joined_again(ffi, lib):
    most = lib.memory_mappings_max()
    assert most == int(pathlib.Path("/proc/sys/vm/max_map_count").read_text())
    if most > 1 << 20:
        pytest.skip("vm.max_map_count is not a limit here")
    size = (2 * most + 16) * 4096
    with Mapped(ffi, lib, size) as mapped:
        errors = {lib.memory_protect(mapped.memory, 8192 * i, 4096, READ) for i in range(most)}
        assert errors == {0, -errno.ENOMEM}
        assert lib.memory_protect(mapped.memory, 0, size, READ) == 0


def test_a_chunk_is_zeroed_and_its_size_is_rounded(ffi, lib):
    chunk = lib.memory_chunk(5000)
    assert bytes(ffi.buffer(chunk, 2 * mmap.PAGESIZE)) == bytes(2 * mmap.PAGESIZE)
    lib.memory_chunk_free(chunk, 5000)
    assert maps(ffi, chunk)[0] is None
    assert lib.memory_chunk((1 << 64) - 1) == ffi.NULL
    assert lib.memory_chunk(1 << 60) == ffi.NULL
    lib.memory_chunk_free(ffi.NULL, 5000)


def test_unmapping_closes_the_file_and_twice_does_no_harm(ffi, lib):
    mapped = Mapped(ffi, lib, MIB)
    file = mapped.memory.file
    lib.memory_unmap(mapped.memory)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)
    lib.memory_unmap(mapped.memory)
    empty = ffi.new("struct memory *")
    lib.memory_unmap(empty)
    os.fstat(0)


@pytest.mark.parametrize(("limit", "error"), [("RLIMIT_AS", "ENOMEM"), ("RLIMIT_FSIZE", "EFBIG")])
def test_a_limit_is_told_by_its_errno(machine, limit, error):
    run = script(f"""
        import errno, resource
        resource.setrlimit(resource.{limit}, (8 << 30, 8 << 30))
        memory = ffi.new("struct memory *")
        assert lib.memory_map(memory, lib.memory_candidate(0, 1 << 40), 1 << 40) == -errno.{error}
        assert lib.memory_map(memory, ffi.NULL, 1 << 30) == 0
        print("fine")
    """)
    assert (run.returncode, run.stdout) == (0, "fine\n"), run.stderr


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_a_read_and_a_write_are_told_apart(ffi, lib):
    with Mapped(ffi, lib, MIB) as mapped:
        assert lib.help_install(mapped.help) == 0
        assert mapped.memory.application[0] == 0
        assert (mapped.help.reads, mapped.help.writes) == (1, 0)
        mapped.memory.application[1] = 3
        assert (mapped.help.reads, mapped.help.writes) == (1, 1)
        mapped.memory.application[4096] = 3
        assert (mapped.help.reads, mapped.help.writes) == (1, 2)
        assert lib.help_errno_kept(mapped.help)


def test_one_range_per_process(ffi, lib):
    with Mapped(ffi, lib, MIB) as mapped:
        assert lib.help_install(mapped.help) == 0
        assert lib.help_install(mapped.help) == -errno.EBUSY
        lib.fault_remove()
        assert lib.help_install(mapped.help) == 0
        mapped.memory.application[0] = 1
        assert mapped.help.writes == 1


def test_thousands_of_faults_of_several_threads_lose_no_write(ffi, lib):
    with Mapped(ffi, lib, 64 * 4096) as mapped:
        assert lib.help_install(mapped.help) == 0
        assert lib.help_hammer(mapped.help, 4, 100) == 0
        assert mapped.help.reads + mapped.help.writes > 5000


def test_where_the_processor_does_not_tell_a_second_fault_is_a_write(machine):
    machine_build.load(machine_build.directory(), access_unknown=True)
    run = script("""
        ffi, lib = machine_build.load_built(access_unknown=True)
        memory, help, install = ready(ffi, lib)
        install()
        memory.application[0] = 3
        assert (help.reads, help.writes) == (2, 2)      # with the one of install()
        memory.system[0] = 0
        assert lib.help_hammer(help, 3, 10) == 0
        print("fine")
    """)
    assert (run.returncode, run.stdout) == (0, "fine\n"), run.stderr


def test_another_librarys_faults_go_on_reaching_it(ffi, lib):
    with Mapped(ffi, lib, MIB) as mapped:
        assert lib.help_neighbour_served(mapped.help, 100) == 100


def test_a_signal_that_was_sent_is_not_a_fault(ffi, lib):
    with Mapped(ffi, lib, MIB) as mapped:
        assert lib.help_sent_signal_reaches_former(mapped.help) == 2
        assert (mapped.help.reads, mapped.help.writes) == (0, 0)


@pytest.mark.parametrize("stack", [0, 8192, 16880, 1 << 20])
def test_a_fault_is_served_on_the_stack_of_its_thread(ffi, lib, stack):
    """faulthandler's alternate stack has 16 KiB in the heap; what MPI needs of it once overwrote other objects."""
    with Mapped(ffi, lib, MIB) as mapped:
        sizes = ffi.new("size_t[2]")
        assert lib.help_fault_on_stack_of(mapped.help, stack, sizes, sizes + 1) == 0
        assert list(sizes) == [0, stack]


def test_an_interrupt_is_noted_and_reaches_who_was_there_before(lib):
    assert lib.help_interrupts_former() == 2


@pytest.mark.parametrize("handled", [False, True])
def test_usr1_prints_and_reaches_who_was_there_before(lib, handled):
    assert lib.help_usr1(handled) == 1


# ---- crashes, in processes of their own ------------------------------------------------------------------------------

PREAMBLE = """
import faulthandler, os, signal, sys
from native import machine_build
ffi, lib = machine_build.load_built()

def ready(ffi, lib):
    memory = ffi.new("struct memory *")
    assert lib.memory_map(memory, ffi.NULL, 1 << 20) == 0
    help = ffi.new("struct help *", {"memory": memory, "unit_bytes": 4096})

    def install():
        assert lib.help_install(help) == 0
        memory.application[0] = 1       # a fault is served
        lib.memory_protect(memory, 0, 1 << 20, 0)

    return memory, help, install
"""


def script(text, **options):
    tests = pathlib.Path(__file__).resolve().parents[1]
    program = f"import sys; sys.path.insert(0, {str(tests)!r})\n{PREAMBLE}\n{textwrap.dedent(text)}"
    command = [*options.pop("before", []), sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def test_a_kernel_without_huge_pages_is_asked_ever_more_seldom():
    job = script("""
        import ctypes
        PR_SET_THP_DISABLE = 41
        assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0
        memory = ffi.new("struct memory *")
        assert lib.memory_map(memory, ffi.NULL, 32 << 20) == 0
        memory.huge = True
        left = []
        for offset in range(0, 32 << 20, 2 << 20):
            lib.memory_back(memory, offset, 2 << 20)
            memory.system[offset] = 1
            left.append(memory.huge_left)
        print(left, sum(lib.memory_touched(memory, at).bit_count() for at in range(0, 32 << 20, 1 << 18)))
    """)
    assert job.stdout == "[0, 1, 0, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0, 15] 16\n", job


CRASHES = {
    "a bad pointer": ("lib.help_crash()", signal.SIGSEGV),
    "a stack overflow": ("lib.help_overflow(0)", signal.SIGSEGV),
    "code in the range": ("lib.help_runs_from_range(help)", signal.SIGSEGV),
    "kill": ("os.kill(os.getpid(), signal.SIGSEGV)", signal.SIGSEGV),
    "a bus error": ("lib.help_bus_error(memory)", signal.SIGBUS),
}
ORDERS = {
    "before": "faulthandler.enable(); install()",
    "after": "install(); faulthandler.enable(); assert lib.fault_stolen(); lib.fault_retake(); touch()",
    "twice": """
faulthandler.enable(); install()
faulthandler.disable(); faulthandler.enable()
lib.fault_retake(); touch()
""",
    "again": """
for _ in range(20):
    faulthandler.disable()
    lib.fault_remove()
    faulthandler.enable()
    install()
    lib.fault_retake()
    touch()
""",
    "removed": "install(); faulthandler.enable(); lib.fault_retake(); lib.fault_remove()",
    "stolen and removed": "install(); faulthandler.enable(); lib.fault_remove()",
}


@pytest.mark.parametrize("crash", CRASHES)
@pytest.mark.parametrize("order", ORDERS)
def test_a_real_crash_dies_with_its_traceback(machine, crash, order):
    what, number = CRASHES[crash]
    run = script(f"""
memory, help, install = ready(ffi, lib)
lib.fault_explain_memory(memory.system, memory.bytes)
def touch():
    assert not lib.fault_stolen()
    memory.application[8192] = 1
    lib.memory_protect(memory, 0, 1 << 20, 0)
{ORDERS[order]}
lib.fault_explain_memory(memory.system, memory.bytes)
def the_guilty_line():
    {what}
the_guilty_line()
""")
    assert run.returncode == -number, run.stderr
    assert run.stderr.count("Fatal Python error") == 1
    assert "in the_guilty_line" in run.stderr
    explained = number == signal.SIGBUS and "removed" not in order
    assert ("dsm: SIGBUS in the shared range" in run.stderr) == explained


@pytest.mark.parametrize("crash", CRASHES)
def test_without_faulthandler_it_dies_as_without_dsm(machine, crash):
    what, number = CRASHES[crash]
    run = script(f"memory, help, install = ready(ffi, lib)\ninstall()\n{what}")
    assert run.returncode == -number
    assert "Fatal Python error" not in run.stderr


def test_a_thief_that_steps_back_is_called_once(machine):
    run = script("""
        memory, help, install = ready(ffi, lib)
        install()
        lib.help_polite_thief()
        lib.fault_retake()
        memory.application[0] = 1
        lib.help_crash()
    """)
    assert run.returncode == -signal.SIGSEGV
    assert run.stderr == "thief was here\n"


def test_an_ignored_interrupt_stays_ignored_and_a_default_one_kills(machine):
    run = script("""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert lib.signals_watch_interrupt() == 0
        os.kill(os.getpid(), signal.SIGINT)
        assert lib.signals_interrupts() == 0
        signal.signal(signal.SIGINT, signal.default_int_handler)
        assert lib.signals_watch_interrupt() == 0
        try:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(10**6): pass
        except KeyboardInterrupt:
            assert lib.signals_interrupts() == 1
            lib.fault_remove()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            assert lib.signals_watch_interrupt() == 0
            os.kill(os.getpid(), signal.SIGINT)
    """)
    assert (run.returncode, run.stderr) == (-signal.SIGINT, "")


# ---- doorbell --------------------------------------------------------------------------------------------------------

TOKEN = 0x0123456789ABCDEF


def bells(ffi, lib, count):
    made = []
    addresses = ffi.new("struct doorbell_address[]", count)
    for rank in range(count):
        made.append(lib.doorbell_open(addresses + rank))
        assert made[-1] != ffi.NULL
    for rank, bell in enumerate(made):
        assert lib.doorbell_connect(bell, addresses, rank, count, TOKEN) == 0
    return made, addresses


def test_bells_ring_at_the_peer_that_was_meant_and_many_are_one(ffi, lib):
    (first, second, third), _ = bells(ffi, lib, 3)
    assert all(lib.doorbell_same_host(first, peer) for peer in range(3))
    for _ in range(1000):
        lib.doorbell_ring(first, 1)  # more than a queue holds: never blocks
    lib.doorbell_ring(third, 2)
    assert lib.doorbell_wait(second, 0)
    assert not lib.doorbell_wait(second, 0)
    assert not lib.doorbell_wait(first, 1000)
    assert lib.doorbell_wait(third, 10**9)
    for bell in (first, second, third):
        lib.doorbell_test_ring(bell)
    assert [lib.doorbell_test_missing(bell, 10**9) for bell in (first, second, third)] == [0, 0, 0]
    for bell in (first, second, third):
        lib.doorbell_close(bell)
    lib.doorbell_close(ffi.NULL)


@pytest.mark.parametrize("wait_ns", [2 * 10**6, 60 * 10**6, 110 * 10**6])
def test_a_wait_ends_with_its_time(ffi, lib, wait_ns):
    (bell,), _ = bells(ffi, lib, 1)
    for _ in range(2):
        start_ns = time.monotonic_ns()
        assert not lib.doorbell_wait(bell, wait_ns)
        assert wait_ns * 0.9 <= time.monotonic_ns() - start_ns < wait_ns + 2 * 10**9
    lib.doorbell_close(bell)


def test_a_sleeper_wakes_at_once(ffi, lib):
    (bell,), _ = bells(ffi, lib, 1)
    assert 0 < lib.help_wake_us(bell, 100) < 20_000
    lib.doorbell_close(bell)


def test_what_a_stranger_sends_is_taken_away_and_wakes_nobody(ffi, lib):
    (bell,), addresses = bells(ffi, lib, 1)
    token = TOKEN.to_bytes(8, sys.byteorder)
    there = ("127.0.0.1", int.from_bytes(bytes(addresses[0].bytes)[8:10], "big"))  # the port is behind the host's name
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for data in (b"", b"x", bytes(8), token[:7], token + b"x", token + bytes(100), bytes(16), token + b"\xff" * 8):
            stranger.sendto(data, there)
            assert not lib.doorbell_wait(bell, 0), data
            stranger.sendto(data, there)
            assert not lib.doorbell_wait(bell, 30 * 10**6), data
        stranger.sendto(token, there)
        assert lib.doorbell_wait(bell, 10**9)
    lib.doorbell_close(bell)


def open_sockets():
    folder = "/proc/self/fd/"
    files = [name for name in os.listdir(folder) if os.path.lexists(folder + name)]
    return {int(name) for name in files if os.readlink(folder + name).startswith("socket:")}


def test_a_job_on_one_host_listens_to_its_own_host_only(ffi, lib):
    before, addresses = open_sockets(), ffi.new("struct doorbell_address *")
    bell = lib.doorbell_open(addresses)
    (file,) = open_sockets() - before
    with socket.socket(fileno=os.dup(file)) as heard:
        assert heard.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) == b""
        assert lib.doorbell_connect(bell, addresses, 0, 1, TOKEN) == 0
        assert heard.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).startswith(b"lo")
    lib.doorbell_ring(bell, 0)
    assert lib.doorbell_wait(bell, 10**9)
    lib.doorbell_close(bell)


def test_ringing_a_rank_that_is_gone_does_no_harm(ffi, lib):
    (first, second), _ = bells(ffi, lib, 2)
    lib.doorbell_close(second)
    lib.doorbell_ring(first, 1)
    assert not lib.doorbell_wait(first, 0)
    lib.doorbell_close(first)


def test_a_damaged_address_is_refused(ffi, lib):
    (bell,), addresses = bells(ffi, lib, 1)
    ffi.memmove(addresses[0].bytes, b"\xff" * 128, 128)
    assert lib.doorbell_connect(bell, addresses, 0, 1, TOKEN) == -errno.EINVAL
    lib.doorbell_close(bell)


# ---- doorbells of several hosts --------------------------------------------------------------------------------------

# Three hosts in one network namespace: each bell is opened while the interface has only its host's address (and, like a
# bridge of containers, one that all have), and the identities of the second and the third are changed.
TWO_HOSTS = """
import subprocess
def ip(*words): subprocess.run(["ip", *words], check=True)
def opened(address):
    ip("addr", "add", address, "dev", "lo")
    made.append(lib.doorbell_open(addresses + len(made)))
    ip("addr", "del", address, "dev", "lo")
addresses, made = ffi.new("struct doorbell_address[3]"), []
ip("link", "set", "lo", "up")
ip("addr", "add", "172.17.0.1/16", "dev", "lo")
opened("10.9.0.1/24"); opened("10.9.0.2/24"); opened("10.8.0.3/24")
addresses[1].bytes[0] ^= 1
addresses[2].bytes[0] ^= 2
for address in ("10.9.0.1/24", "10.9.0.2/24"): ip("addr", "add", address, "dev", "lo")
first, second, third = made
assert lib.doorbell_connect(first, addresses, 0, 3, 77) == 0
addresses[0].bytes[0] ^= 1; addresses[1].bytes[0] ^= 1      # as the second sees it
assert lib.doorbell_connect(second, addresses, 1, 3, 77) == 0
assert not lib.doorbell_same_host(first, 1) and not lib.doorbell_same_host(second, 0)
lib.doorbell_ring(first, 1)
assert lib.doorbell_wait(second, 10**9)
lib.doorbell_ring(second, 0)
assert lib.doorbell_wait(first, 10**9)
assert not lib.doorbell_wait(first, 10**6)
lib.doorbell_ring(first, 0)
assert lib.doorbell_wait(first, 10**9)
lib.doorbell_test_ring(second)
lib.doorbell_test_ring(first)
assert lib.doorbell_test_missing(first, 10**8) == 1      # nobody has the third's address
assert lib.doorbell_test_missing(second, 10**8) == 1
print("fine")
"""


def in_a_network_of_its_own(text):
    """Run a script as root of a network namespace, whose loopback device is down."""
    before = ["unshare", "--user", "--map-root-user", "--net"]
    if (
        not shutil.which("unshare")
        or not shutil.which("ip")
        or subprocess.run([*before, "true"], check=False).returncode
    ):
        pytest.skip("needs network namespaces (unshare --net) and the command ip")
    run = script(text, before=before)
    assert (run.returncode, run.stdout) == (0, "fine\n"), run.stderr


def test_hosts_are_rung_over_the_network_that_they_share(machine):
    in_a_network_of_its_own(TWO_HOSTS)


def test_without_a_loopback_device_the_self_test_tells(machine):
    in_a_network_of_its_own("""
        import subprocess
        address = ffi.new("struct doorbell_address *")
        bell = lib.doorbell_open(address)
        assert lib.doorbell_connect(bell, address, 0, 1, 77) == 0
        lib.doorbell_test_ring(bell)
        assert lib.doorbell_test_missing(bell, 10**7) == 1
        assert not lib.doorbell_wait(bell, 10**6)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        lib.doorbell_test_ring(bell)
        assert lib.doorbell_test_missing(bell, 10**9) == 0
        print("fine")
    """)
