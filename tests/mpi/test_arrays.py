"""Shared arrays are plain NumPy arrays: every dtype, shape and order, from nothing to 4 GiB."""

import gc

import numpy as np
import psutil
import pytest

import dsm

pytestmark = pytest.mark.mpi

PAGE = 4096
RECORD = np.dtype([("id", "<u4"), ("position", "<f8", 3), ("name", "S5"), ("live", "?")])


def everybody_writes(a):
    """Rank r sets items r, r + size ... to what a serial program has there; all compare the whole."""
    expected = np.zeros(a.shape, a.dtype)
    flat = np.arange(a.size)
    if a.dtype.names:
        values = np.zeros(a.size, a.dtype)
        values["id"], values["live"] = flat, flat % 2
        values["position"] = flat[:, None] + [0.25, 0.5, 0.75]
        values["name"] = [f"n{i % 1000}" for i in flat]
    elif a.dtype.kind == "c":
        values = (flat + 1j * (flat + 0.5)).astype(a.dtype)
    elif a.dtype.kind in "mM":
        values = flat.astype("i8").astype(a.dtype)
    else:
        values = (flat % 100).astype(a.dtype)
    expected[...] = values.reshape(a.shape)
    for index in range(dsm.rank(), a.size, dsm.size()):
        where = np.unravel_index(index, a.shape)
        a[where] = expected[where]
    dsm.barrier()
    assert a.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u2", "<i4", ">i4", "u8", "f2", "f4", "f8", "c8", "c16", "S3", "U2", "M8[s]", "m8[ms]", RECORD]
)
def test_dtypes(shared, dtype):
    a = shared.zeros((13, 47), dtype)
    assert type(a) is np.ndarray
    assert a.dtype == np.dtype(dtype)
    assert a.tobytes() == bytes(a.nbytes)
    dsm.barrier()
    everybody_writes(a)


@pytest.mark.parametrize("shape", [(), (1,), 7, (0,), (3, 0, 2), (2, 1, 3, 1, 5), (5000,), (3, 5000)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_shapes_and_orders(shared, shape, order):
    a = shared.zeros(shape, np.int32, order=order)
    like = np.zeros(shape, np.int32, order=order)
    assert (a.shape, a.size) == (like.shape, like.size)
    if a.size:
        assert a.strides == like.strides
    assert a.flags.f_contiguous == like.flags.f_contiguous
    everybody_writes(a)


def test_same_address_everywhere(shared, comm):
    addresses = [shared.zeros(n, page_size=PAGE << shift).ctypes.data for n, shift in [(1, 0), (10_000, 4), (3, 10)]]
    assert comm.allgather(addresses) == [addresses] * dsm.size()
    assert len(set(addresses)) == 3


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(7, None), (2.5, None), (True, None), (1 - 2j, None), (255, np.uint8), (-1, np.int16), (np.nan, None)],
)
def test_full(shared, value, dtype):
    a = shared.full((3, 5000), value, dtype)
    expected = np.full((3, 5000), value, dtype)
    assert a.dtype == expected.dtype
    assert np.array_equal(a, expected, equal_nan=a.dtype.kind in "fc")
    dsm.barrier()
    a[0, dsm.rank() :: dsm.size()] = 0
    dsm.barrier()
    expected[0] = 0
    assert np.array_equal(a, expected, equal_nan=a.dtype.kind in "fc")


def test_full_of_records(shared):
    """38 bytes do not repeat from page to page."""
    one = (7, (1.0, 2.0, 3.0), b"name", True)
    a = shared.full(1000, one, RECORD, page_size=PAGE)
    assert a.tobytes() == np.full(1000, np.array(one, RECORD), RECORD).tobytes()
    dsm.barrier()
    everybody_writes(a)


LONG = np.longdouble
PADDED = {
    "long double": LONG,
    "complex": np.clongdouble,
    "other byte order": np.dtype(LONG).newbyteorder(),
    "aligned": np.dtype([("flag", "?"), ("weight", "f8"), ("name", "S3")], align=True),
    "gaps": np.dtype({"names": ["a", "b"], "formats": ["u1", "f4"], "offsets": [2, 8], "itemsize": 16}),
    "nested": np.dtype(
        [("inner", np.dtype([("flag", "?"), ("count", "i4")], align=True), 2), ("last", "u1")], align=True
    ),
    "long double inside": np.dtype([("flag", "?"), ("pair", LONG, (2, 1))], align=True),  # 48 bytes, in no page evenly
}


def with_padding(value, byte):
    """Return an equal item with something in its padding: the bytes that can be changed without changing the value."""
    item = value.copy()
    memory = item.reshape(1).view("u1")
    for position in range(item.nbytes):
        memory[position] ^= 1
        with np.errstate(invalid="ignore"):
            padding = bool(np.all(item == value))
        memory[position] ^= 1
        if padding:
            memory[position] = byte
    return item


@pytest.mark.parametrize("case", PADDED)
def test_full_with_something_in_the_padding(shared, comm, case):
    """Ranks whose values are equal, and whose padding is not, agree; and all of them see the same bytes."""
    dtype = np.dtype(PADDED[case])
    value = np.zeros((), dtype)
    value[()] = tuple(np.ones((), dtype[name])[()] for name in dtype.names) if dtype.names else dtype.type(3) / 7
    given = with_padding(value, 17 + dsm.rank())
    assert given == value
    assert given.tobytes().count(17 + dsm.rank()) >= 3
    a = shared.full(50, given[()])
    assert (a == value).all()
    dsm.barrier()
    memory = a.view("u1").tobytes()
    assert comm.allgather(memory) == [memory] * dsm.size()
    if not dtype.names:
        assert (shared.ones(5, dtype) == 1).all()
    dsm.barrier()


@pytest.mark.parametrize("bits", [0x8000000000000000, 0x7FF00000000007A2, 0xFFF8000000000001])
def test_full_keeps_the_bits(shared, bits):
    """Of a negative zero, a signalling not-a-number (R marks missing values so), and a quiet one."""
    assert (shared.full(5, np.array([bits], "u8").view("f8")[0]).view("u8") == bits).all()


def test_ones_and_likes(shared):
    a = shared.ones((40, 30), np.float32)
    assert (a == 1).all()
    fortran = shared.zeros_like(np.ones((4, 5), np.complex64, order="F"))
    assert fortran.flags.f_contiguous
    assert fortran.dtype == np.complex64
    assert (fortran == 0).all()
    assert shared.empty_like(a).shape == a.shape
    assert shared.empty(3, int).dtype == int


def test_array_has_what_rank_0_gives(shared):
    source = np.random.default_rng(1).normal(size=(300, 41))
    a = shared.array(source if dsm.rank() == 0 else None)
    assert np.array_equal(a, source)
    assert a.dtype == source.dtype
    b = shared.array([[1, 2], [3, 4]] if dsm.rank() == 0 else "something else", dtype=np.uint8)
    assert b.tolist() == [[1, 2], [3, 4]]


def test_blocks(shared):
    a = shared.zeros((50, 3), int)
    dsm.local(a)[...] = dsm.rank()
    dsm.barrier()
    owner = np.concatenate([np.full(len(range(50)[dsm.split(50, index=r)]), r) for r in range(dsm.size())])
    assert np.array_equal(a, np.repeat(owner[:, None], 3, axis=1))
    dsm.barrier()
    columns = dsm.local(a, axis=1)
    assert columns.shape[0] == 50
    assert dsm.is_shared(columns)
    assert not dsm.is_shared(columns + 1)
    assert not dsm.is_shared(columns.copy())


def test_numpy_operations_that_write_in_place(shared):
    a = shared.zeros((64, 64))
    if dsm.rank() == 0:
        np.copyto(a, np.arange(4096.0).reshape(64, 64)[::-1])
        np.negative(a, out=a)
        a.reshape(-1).sort()
        a[a < -4000] = 0
        np.add.at(a, ([0, 0, 1], [0, 0, 1]), 1)
    dsm.barrier()
    expected = -np.arange(4096.0).reshape(64, 64)[::-1]
    expected.reshape(-1).sort()
    expected[expected < -4000] = 0
    np.add.at(expected, ([0, 0, 1], [0, 0, 1]), 1)
    assert np.array_equal(a, expected)
    assert np.array_equal(a @ a, expected @ expected)  # BLAS reads shared memory


def test_one_byte(shared, comm):
    a = shared.zeros(1, np.uint8)
    for turn in range(3 * dsm.size()):
        if dsm.rank() == turn % dsm.size():
            a[0] = turn + 1
        dsm.barrier()
        assert a[0] == turn + 1
        dsm.barrier()


def test_four_gib_touched_here_and_there(shared):
    """Memory grows with what is touched, not with the array."""
    before = dsm.stats()["memory_bytes"]
    a = shared.zeros(4 << 30, np.uint8, page_size=PAGE)
    step = (4 << 30) // 64
    places = np.arange(64) * step + 12345
    a[places[dsm.rank() :: dsm.size()]] = 1 + dsm.rank()
    a[-1 - dsm.rank()] = 9
    dsm.barrier()
    assert np.array_equal(a[places], 1 + np.arange(64) % dsm.size())
    assert (a[places + 1] == 0).all()
    assert (a[places + step // 2] == 0).all()
    assert (a[-dsm.size() :] == 9).all()
    assert dsm.info(a).nbytes == 4 << 30
    assert dsm.stats()["memory_bytes"] - before < 100 << 20
    resident = psutil.Process().memory_info().rss
    assert resident < 2 << 30


@pytest.mark.parametrize("page_size", [PAGE, 1 << 14, 1 << 16, 1 << 20, 1 << 24, 1 << 26])
def test_page_sizes(shared, page_size):
    """Bytes around the border of two pages belong to all ranks in turn; two ranks do the work for the largest."""
    ranks = min(dsm.size(), 8 if page_size <= 1 << 20 else 2)
    a = shared.zeros(2 * page_size, np.uint8, page_size=page_size)
    assert dsm.info(a).page_size == page_size
    places = np.arange(page_size - 8, page_size + 8)
    for turn in range(1, 3):
        if dsm.rank() < ranks:
            a[places[dsm.rank() :: ranks]] = 10 * turn + dsm.rank()
        dsm.barrier()
        if dsm.rank() < ranks:
            assert np.array_equal(a[places], 10 * turn + np.arange(16) % ranks)
            assert a[0] == a[-1] == 0
        dsm.barrier()


@pytest.mark.slow
def test_many_allocations_and_frees(comm):
    """Addresses and memory are used again, and a new array never shows what an old one held."""
    random = np.random.default_rng(5)
    alive = []
    for turn in range(300):
        size, page_size = int(random.integers(1, 30_000)), PAGE << int(random.integers(0, 4))
        value = int(random.integers(0, 3))
        a = dsm.full(size, value, np.uint8, page_size=page_size)
        assert (a[:: max(1, size // 50)] == value).all()
        assert a[-1] == value
        dsm.barrier()
        a[dsm.rank() :: dsm.size()] = 100 + turn % 50
        if turn % 3:
            dsm.barrier()
            assert (a == 100 + turn % 50).all()
            dsm.barrier()  # who is slower must not read what the next array's writer writes
        alive.append(a)
        del a
        while len(alive) > random.integers(0, 12):
            dsm.free(alive.pop(int(random.integers(len(alive)))))
    while alive:
        dsm.free(alive.pop())
    comm.Barrier()


def test_freed_memory_is_given_back():
    """Each rank writes 64 MiB in all, and never has more than 4 of them."""
    process = psutil.Process()
    before = 0
    for turn in range(16):
        a = dsm.zeros((dsm.size(), 4 << 20), np.uint8)
        assert a[-1, -1] == 0
        dsm.barrier()
        a[dsm.rank()] = turn + 1
        dsm.barrier()
        assert a[0, 0] == a[-1, -1] == turn + 1
        dsm.free(a)
        del a
        gc.collect()
        if turn == 3:
            before = process.memory_info().rss
    assert process.memory_info().rss - before < 24 << 20


@pytest.mark.slow
def test_200_000_pages_with_alternating_protections(shared, quick_steps):
    """More runs of protection than the kernel has mappings to give (vm.max_map_count, 65,530)."""
    pages = np.arange(200_000 if quick_steps else 2_000)
    a = shared.zeros((pages.size, PAGE), np.uint8, page_size=PAGE)
    if dsm.rank() == 0:
        a[::2, 0] = 1  # 100,000 pages that are writable between others that are not accessible
    dsm.barrier()
    reader = dsm.size() - 1
    if dsm.rank() == reader:
        assert (a[1::4, 0] == 0).all()  # 50,000 that are readable
        assert (a[::40, 0] == 1).all()
        a[1::10, 1] = 2
    dsm.barrier()
    if dsm.rank() == 0:
        a[::8, 0] = 3
        assert np.array_equal(a[1::500, 1], np.where(pages[1::500] % 10 == 1, 2, 0))
    dsm.barrier()
    if dsm.rank() == reader:
        picked = pages[::45]
        assert np.array_equal(a[picked, 0], np.where(picked % 8, np.where(picked % 2, 0, 1), 3))
        assert np.array_equal(a[picked, 1], np.where(picked % 10 == 1, 2, 0))
    dsm.barrier()
