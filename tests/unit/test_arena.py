"""Memory that the processes of a node share: chunks of the arena, and how a process gets the files of another one."""

import errno
import itertools
import mmap
import os
import pathlib
import random
import subprocess
import sys
import textwrap

import pytest

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
GRANULE = 64 * KIB


@pytest.fixture
def arena(ffi, lib, request):
    """Return an arena of 64 MiB, or of so many bytes."""
    made = ffi.new("struct arena *")
    assert lib.arena_map(made, ffi.NULL, getattr(request, "param", 64 * MIB)) == 0
    yield made
    lib.arena_unmap(made)


def address_of(ffi, pointer):
    return int(ffi.cast("uintptr_t", pointer))


# --- chunks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_chunks_are_zeroed_apart_and_joined_again(ffi, lib, arena, seed):
    dice = random.Random(seed)
    chunks = {}
    refused = 0
    for _ in range(1500):
        if chunks and dice.random() < 0.5:
            address, size = chunks.popitem() if dice.random() < 0.5 else dice.choice(list(chunks.items()))
            chunks.pop(address, None)
            assert bytes(ffi.buffer(ffi.cast("char *", address), size)) == b"x" * size
            lib.arena_chunk_free(arena, ffi.cast("void *", address), size)
            continue
        size = dice.randrange(1, 1 << dice.randrange(4, 23))
        chunk = lib.arena_chunk(arena, size)
        refused += chunk == ffi.NULL
        if chunk == ffi.NULL:
            continue
        assert bytes(ffi.buffer(chunk, size)) == bytes(size)
        ffi.memmove(chunk, b"x" * size, size)
        address = address_of(ffi, chunk)
        assert address % mmap.PAGESIZE == 0
        chunks[address] = size
        ordered = sorted(chunks.items())
        assert all(low + size <= high for (low, size), (high, _) in itertools.pairwise(ordered))
    assert refused < 700
    for address, size in chunks.items():
        lib.arena_chunk_free(arena, ffi.cast("void *", address), size)
    assert os.fstat(arena.file).st_blocks * 512 < MIB  # the head and its table
    assert lib.arena_chunk(arena, 16 * MIB) != ffi.NULL  # all are one place again


def test_memory_goes_back_and_addresses_are_used_up(ffi, lib, arena):
    first = lib.arena_chunk(arena, 10 * MIB)
    ffi.memmove(first, b"x" * 10 * MIB, 10 * MIB)
    assert os.fstat(arena.file).st_blocks * 512 >= 10 * MIB
    lib.arena_chunk_free(arena, first, 10 * MIB)
    assert os.fstat(arena.file).st_blocks * 512 < MIB
    lib.arena_chunk_free(arena, ffi.NULL, 10 * MIB)
    for size in (0, 64 * MIB, 65 * MIB, 1 << 60, (1 << 64) - 1):
        assert lib.arena_chunk(arena, size) == ffi.NULL
    places = 0
    while lib.arena_chunk(arena, 1) != ffi.NULL:
        places += 1
    assert 64 * MIB // GRANULE - 2 <= places < 64 * MIB // GRANULE


@pytest.mark.parametrize("arena", [4 * TIB], indirect=True)
def test_a_large_arena_costs_what_is_touched(ffi, lib, arena):
    for size in (GIB, 100 * GIB, TIB, MIB, 5 * GIB):
        chunk = lib.arena_chunk(arena, size)
        assert chunk != ffi.NULL
        ffi.cast("char *", chunk)[size - 1] = b"x"
    assert os.fstat(arena.file).st_blocks * 512 < MIB


@pytest.mark.parametrize("size", [0, GRANULE, 5 * GRANULE + 4096, 1 << 48])
def test_a_size_that_no_arena_has(ffi, lib, size):
    assert lib.arena_map(ffi.new("struct arena *"), ffi.NULL, size) == -errno.EINVAL


def test_two_arenas_have_two_names_and_an_address_that_is_taken_is_refused(ffi, lib, arena):
    other = ffi.new("struct arena *")
    assert lib.arena_map(other, arena.head, MIB) == -errno.EEXIST
    assert lib.arena_map(other, ffi.NULL, MIB) == 0
    assert lib.arena_name(other) != lib.arena_name(arena)
    assert lib.arena_root(arena)[0] == ffi.NULL
    lib.arena_unmap(other)
    lib.arena_unmap(other)


# What a process of its own begins with: an arena, and the descriptor of another one's.
PREAMBLE = """
import errno, os, signal
from native import machine_build
ffi, lib = machine_build.load_built()
arena = ffi.new("struct arena *")
assert lib.arena_map(arena, ffi.NULL, 64 << 20) == 0
"""


def script(text, **options):
    tests = pathlib.Path(__file__).resolve().parents[1]
    program = f"import sys; sys.path.insert(0, {str(tests)!r})\n{PREAMBLE}\n{textwrap.dedent(text)}"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def fine(run):
    assert (run.returncode, run.stdout, run.stderr) == (0, "fine\n", "")


def test_a_child_of_fork_has_no_arena_but_may_look(machine):
    fine(
        script("""
        root = lib.arena_root(arena)
        root[0] = lib.arena_chunk(arena, 1000)
        ffi.cast("char *", root[0])[999] = b"x"
        for look in (False, True):
            child = os.fork()
            if child == 0:
                if look:
                    assert lib.arena_look(arena) == 0
                assert ffi.cast("char *", root[0])[999] == b"x"
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (7 if look else -signal.SIGSEGV)
        print("fine")
    """)
    )


# --- two processes ----------------------------------------------------------------------------------------------------

# The parent owns the files; `receive` runs in a child, which has the parent's card, and asks it to send by `ask`.
TWO = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_DUMPABLE, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 4, 0x10000000, 0x20000000, 0x40000000
MIB = 1 << 20
lib.arena_unmap(arena)
place = lib.memory_candidate(0, 1 << 30)

def mapped():
    memory, arena = ffi.new("struct memory *"), ffi.new("struct arena *")
    assert lib.memory_map(memory, place, 64 * MIB) == 0
    assert lib.arena_map(arena, ffi.cast("char *", place) + 128 * MIB, 64 * MIB) == 0
    share = ffi.new("struct share *")
    lib.share_begin(share, [memory.file, arena.file])
    return memory, arena, share

def become(user, dumpable):
    if os.getuid() == 0:
        os.setuid(user)
    assert libc.prctl(PR_SET_DUMPABLE, dumpable, 0, 0, 0) == 0

def unshare(flags):
    if libc.unshare(flags) != 0:
        print("not allowed", flush=True)
        os._exit(0)

files, why = ffi.new("int[2]"), ffi.new("char[]", 200)
def reason():
    return ffi.string(why).decode()

def open_files(share, card):
    return lib.share_open_files(share, card, files, why, 200)

def ask(share, wait_ms=2000):
    os.write(to_owner[1], bytes(ffi.buffer(ffi.addressof(share.own))))
    os.read(to_receiver[0], 1)
    return lib.share_receive(share, card, wait_ms, files, why, 200)

def meet(memory, arena):
    "The child joins: it finds what the parent's root points to, and both see what the other one writes."
    assert lib.arena_join(arena, files[1], name) == 0
    assert lib.memory_join(memory, files[0]) == 0
    root = ffi.cast("char *", lib.arena_root(arena)[0])
    assert ffi.string(root) == b"of the parent" and bytes(memory.system[0:2]) == b"pa"
    assert lib.memory_protect(memory, 0, 4096, 2) == 0
    memory.application[1] = b"!"[0]
    chunk = lib.arena_chunk(arena, 100)
    assert chunk != root
    ffi.memmove(chunk, b"of the child", 12)
    lib.arena_root(arena)[0] = chunk

to_owner, to_receiver = os.pipe(), os.pipe()
def both(receive, own=lambda: None, sends=False, before=lambda: None):
    "Run the receiver in a child (of a child, where `before` needs it) and the owner here."
    global card, name
    first = os.fork()
    if first == 0:
        card = ffi.new("struct share_card *")
        ffi.memmove(card, os.read(to_receiver[0], ffi.sizeof("struct share_card")), ffi.sizeof("struct share_card"))
        name = int(os.read(to_receiver[0], 20))
        before()
        second = os.fork()
        if second == 0:
            try:
                receive(*mapped())
                sys.stdout.flush()
            except BaseException as error:
                print(repr(error), flush=True)
                os._exit(1)
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]))
    os.close(to_owner[1]), os.close(to_receiver[0])
    own()
    memory, arena, share = mapped()
    root = lib.arena_chunk(arena, 100)
    ffi.memmove(root, b"of the parent", 13)
    lib.arena_root(arena)[0] = root
    memory.system[0:2] = b"pa"
    os.write(to_receiver[1], bytes(ffi.buffer(ffi.addressof(share.own))))
    os.write(to_receiver[1], b"%20d" % lib.arena_name(arena))
    if sends:
        theirs = ffi.new("struct share_card *")
        ffi.memmove(theirs, os.read(to_owner[0], ffi.sizeof("struct share_card")), ffi.sizeof("struct share_card"))
        if sends == "twice":  # what a stranger sends comes first
            stranger = ffi.new("struct share *")
            lib.share_begin(stranger, [0, 1])
            assert lib.share_send(stranger, theirs) == 0
        sent = lib.share_send(share, theirs)
        print("sent", errno.errorcode.get(-sent, sent), flush=True) if sent else None
        os.write(to_receiver[1], b"x")
    assert os.waitpid(first, 0)[1] == 0
    if lib.arena_root(arena)[0] != root:
        assert ffi.string(ffi.cast("char *", lib.arena_root(arena)[0])) == b"of the child"
        assert bytes(memory.system[0:2]) == b"p!"
        print("fine")
"""


def test_a_process_maps_the_files_of_another_one_at_the_same_addresses(machine):
    fine(
        script(
            TWO
            + """
def receive(memory, arena, share):
    assert open_files(share, card) == 0, reason()
    meet(memory, arena)
both(receive)
"""
        )
    )


@pytest.mark.parametrize("sends", [True, "twice"])
def test_where_proc_refuses_the_owner_sends(machine, sends):
    fine(
        script(
            TWO
            + f"""
def receive(memory, arena, share):
    assert open_files(share, card) == -errno.EACCES
    assert "/fd may not be read: that process is not dumpable (prctl, setuid, setcap)" in reason(), reason()
    assert ask(share) == 0, reason()
    meet(memory, arena)
both(receive, lambda: become(65534, 0), {sends!r}, before=lambda: become(65534, 1))
"""
        )
    )


def test_another_user_may_not_look_and_is_told_so(machine):
    if os.getuid() != 0:
        pytest.skip("only root becomes two users")
    fine(
        script(
            TWO
            + """
def receive(memory, arena, share):
    assert open_files(share, card) == -errno.EACCES
    assert f"process {card.process} belongs to user 65534, and this one to user 65533" == reason(), reason()
    print("fine")
both(receive, lambda: become(65534, 1), before=lambda: become(65533, 1))
"""
        )
    )


# How another namespace looks from the receiver: what /proc says, and whether the socket gets through.
NAMESPACES = {
    "pid": ("CLONE_NEWPID", "ESRCH", "it is in another pid namespace, where /proc/", True),
    "user": ("CLONE_NEWUSER", "EACCES", "is in another user namespace", True),
    "network": ("CLONE_NEWPID | CLONE_NEWNET", "ESRCH", "it is in another pid namespace", False),
}


@pytest.mark.parametrize("kind", NAMESPACES)
def test_a_process_of_another_namespace_is_told_so(machine, kind):
    flags, error, words, reached = NAMESPACES[kind]
    run = script(
        TWO
        + f"""
def receive(memory, arena, share):
    assert open_files(share, card) == -errno.{error}
    assert {words!r} in reason(), reason()
    got = ask(share, 100)
    if {reached}:
        assert got == 0, reason()
        meet(memory, arena)
    else:
        assert got == -errno.ETIMEDOUT
        assert "is in another network namespace, which no abstract socket reaches" in reason(), reason()
both(receive, sends=True, before=lambda: unshare({flags}))
"""
    )
    if "not allowed" in run.stdout:
        pytest.skip("this user may not make namespaces")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == ("fine\n" if reached else "sent ECONNREFUSED\n")


def test_a_process_that_is_gone_and_files_that_are_others_are_told(ffi, lib, arena):
    with open("/dev/null") as null:
        share, files, why = ffi.new("struct share *"), ffi.new("int[2]"), ffi.new("char[]", 200)
        lib.share_begin(share, [arena.file, null.fileno()])
        card = ffi.new("struct share_card *", share.own)
        assert lib.share_open_files(share, card, files, why, 200) == 0
        assert [os.fstat(file).st_ino for file in files] == list(card.numbers)
        for file in files:
            os.close(file)
        before = len(os.listdir("/proc/self/fd"))
        for field, value, error, words in (
            ("process", 2**31 - 1, "ENOENT", "/proc/2147483647 is not there: is /proc mounted, and without hidepid?"),
            ("numbers", [card.numbers[0], 1], "ESTALE", "/fd names other files"),
            ("files", [arena.file, 9999], "ENOENT", "is not there"),
        ):
            wrong = ffi.new("struct share_card *", card[0])
            setattr(wrong, field, value)
            assert lib.share_open_files(share, wrong, files, why, 200) == -getattr(errno, error)
            assert words in ffi.string(why).decode()
        assert lib.share_receive(share, card, 1, files, why, 200) == -errno.ETIMEDOUT
        assert ffi.string(why).decode() == f"process {os.getpid()} has sent no files within 1 ms"
        assert len(os.listdir("/proc/self/fd")) == before
        lib.share_end(share)
        lib.share_end(share)
        assert lib.share_send(share, card) == -errno.ENOTSOCK
        assert lib.share_receive(share, card, 1, files, why, 200) == -errno.ENOTSOCK


def test_an_arena_of_another_name_or_size_is_not_joined(ffi, lib, arena):
    other = ffi.new("struct arena *")
    assert lib.arena_map(other, ffi.NULL, MIB) == 0
    own = lib.arena_name(arena)
    for file, name in ((arena.file, own ^ 1), (other.file, lib.arena_name(other))):
        assert lib.arena_join(arena, os.dup(file), name) == -errno.ESTALE
        assert lib.arena_name(arena) == own
        assert lib.arena_chunk(arena, 1) != ffi.NULL
    lib.arena_unmap(other)


# --- what threads of several processes wait for -----------------------------------------------------------------------


def test_a_mutex_keeps_processes_apart_and_names_its_holder(lib, arena):
    assert lib.help_mutex_counts(arena, 3, 20_000)


@pytest.mark.parametrize("thread", [False, True])
def test_a_mutex_whose_holder_died_is_never_free_again(lib, arena, thread):
    assert lib.help_mutex_left(arena, 5, thread)


def test_processes_wake_each_other(lib, arena):
    assert lib.help_futex_wakes(arena, 300)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Return a program in which a child joins the arena of a runtime (tests/native/race_node.c)."""
    folder = tmp_path_factory.mktemp("node")
    file = pathlib.Path(__file__).resolve().parents[1] / "native" / "race.mk"
    subprocess.run(["make", "-s", "-f", str(file), "node", f"RACE_BUILD={folder}"], check=True)

    def run(*words):
        return subprocess.run([folder / "node", *words], capture_output=True, text=True, timeout=60, check=False)

    return run


def test_a_waiting_process_sleeps_while_another_one_polls(node):
    """In a second it naps some hundred times; the last one that polls does not, unless no other node can send: then it
    sleeps until it is woken or its time is over, a tenth of a second each time."""
    runs = [node(what) for what in ("sleep", "alone", "poll")]
    assert [run.returncode for run in runs] == [0, 0, 0], runs
    slept, alone, looked = (int(run.stdout.split()[0]) for run in runs)
    assert slept > 50 > 20 > looked
    assert 5 < alone < 20


def test_a_wake_of_another_process_reaches_threads_that_sleep_beside_the_polling_one(node):
    """It comes every 2 ms; else such a thread looks ten times in a second."""
    run = node("beside")
    assert run.returncode == 0, run
    assert int(run.stdout.split()[0]) > 50


def test_a_wake_of_the_node_wakes_the_other_process(node):
    run = node("wake")
    assert run.returncode == 0, run
    assert run.stdout.split()[1] == "0"


def test_a_process_that_dies_with_the_nodes_mutex_ends_the_others(node):
    run = node("left")
    assert run.returncode == 1
    assert (
        run.stderr
        == "dsm: rank 0 of 1: rank 7 died while it held the mutex of its node, which ranks of its host share\n"
    )
