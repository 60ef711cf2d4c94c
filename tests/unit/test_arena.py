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
from native import machine_build

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
GRANULE = 64 * KIB


@pytest.fixture(scope="module")
def machine():
    """Return cffi's (ffi, lib) of the layer; each state of the sources is compiled once."""
    directory = machine_build.directory()
    directory.mkdir(parents=True, exist_ok=True)
    return machine_build.load(directory)


@pytest.fixture
def ffi(machine):
    return machine[0]


@pytest.fixture
def lib(machine):
    return machine[1]


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
