""".npy files: NumPy reads what is saved and writes what is loaded, and what goes wrong on one rank leaves nothing."""

import io
import os
import re
import time
import warnings

import numpy as np
import pytest

import dsm
from dsm import _exchange, _files, _runtime

pytestmark = pytest.mark.mpi

PAGE = 4096
RECORD = np.dtype([("flag", "?"), ("weight", ">f8"), ("name", "U3")], align=True)
GREEK = np.dtype([("\u03b1\\\"'\n", "?"), ("\U0001f600", ">f8"), ("n\xe4me", "U3")], align=True)  # format 3.0
LATIN = np.dtype([("dr\xe4i", "?"), ("\xe9", "f8"), ("\\u03b1", "U3")])  # format 1.0
LAST = dsm.size() - 1


@pytest.fixture
def folder(tmp_path, comm):
    """The same on every rank."""
    return comm.bcast(tmp_path, root=0)


def filled(array, seed=0):
    """Fill an array on rank 0 with something of its kind; collective."""
    if dsm.rank() == 0 and array.size:
        numbers = np.random.default_rng(seed).integers(0, 100, array.shape)
        array[...] = numbers.astype(array.dtype) if array.dtype.names is None else 0
        for name in array.dtype.names or ():
            array[name] = numbers.astype(array.dtype[name])
    dsm.barrier()
    return array


CASES = {
    "plain": lambda make: make((7, 3)),
    "fortran": lambda make: make((7, 5), order="F"),
    "three dimensions": lambda make: make((4, 3, 5), "f4"),
    "more ranks than rows": lambda make: make((1, 1000), "c16"),
    "many pages": lambda make: make((100, 1000), int),
    "0-d": lambda make: make(()),
    "empty": lambda make: make((0, 3)),
    "empty columns": lambda make: make((3, 0), order="F"),
    "bytes": lambda make: make(10_001, "u1"),
    "other byte order": lambda make: make((5, 5), ">i2"),
    "bool": lambda make: make(3, "?"),
    "text": lambda make: make((4, 2), "U5"),
    "dates": lambda make: make(9, "M8[s]"),
    "records": lambda make: make((6, 2), RECORD),
    "columns": lambda make: make((50, 60))[:, 3:5],
    "every other row": lambda make: make((50, 60))[::2],
    "reversed": lambda make: make((50, 60))[::-1, ::-3],
    "transposed part": lambda make: make((6, 7, 8)).transpose(1, 2, 0)[2:],
    "field names in Greek": lambda make: make((6, 2), GREEK),
    "field names in Greek, fortran": lambda make: make((6, 2), GREEK, order="F"),
    "field names in Greek, empty": lambda make: make((0, 2), GREEK),
    "field names in Greek, 0-d": lambda make: make((), GREEK),
    "field names in Latin-1": lambda make: make(5, LATIN),
    "long doubles": lambda make: make(5, np.longdouble),
    "a field": lambda make: make(50, RECORD)["weight"],
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("small_parts", [False, True])
def test_numpy_reads_what_is_saved(shared, folder, case, small_parts, monkeypatch):
    if small_parts:
        monkeypatch.setattr(_files, "PIN_BYTES", 1000)
        monkeypatch.setattr(_files, "COPY_BYTES", 24)
    a = filled(case(shared.zeros))
    dsm.save(folder / "a.npy", a)
    back = np.load(folder / "a.npy")
    assert back.dtype == a.dtype
    assert back.flags.c_contiguous == (a.flags.c_contiguous or not a.flags.f_contiguous)
    assert back.shape == a.shape
    assert (back == a).all()
    assert os.listdir(folder) == ["a.npy"]
    again = dsm.load(folder / "a.npy", page_size=2 * PAGE, name="again")
    assert dsm.is_shared(again)
    assert (again.dtype, again.shape, again.flags.c_contiguous) == (a.dtype, a.shape, back.flags.c_contiguous)
    assert (again == a).all()
    assert (dsm.info(again).page_size, dsm.info(again).name) == (2 * PAGE, "again")
    dsm.barrier()
    dsm.free(again)


@pytest.mark.filterwarnings("ignore:Stored array in format")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_numpy_saved_is_loaded(folder, case):
    private = case(np.zeros)
    if dsm.rank() == LAST:
        np.save(folder / "b.npy", filled_privately(private))
    dsm.barrier()
    a = dsm.load(folder / "b.npy")
    back = np.load(folder / "b.npy")
    assert (a.dtype, a.shape, a.flags.f_contiguous) == (back.dtype, back.shape, back.flags.f_contiguous)
    assert a.tobytes() == back.tobytes()
    dsm.barrier()
    dsm.free(a)


def filled_privately(array):
    for value, index in enumerate(np.ndindex(array.shape)):
        number = np.int64(value % 100)
        array[index] = (value % 2, value, str(number)) if array.dtype.names else number.astype(array.dtype)
    return array


@pytest.mark.filterwarnings("ignore:Stored array in format")
@pytest.mark.parametrize(
    ("dtype", "version"),
    [
        ("f8", (1, 0)),
        (LATIN, (1, 0)),
        ([("x" * 70_000, "u1")], (2, 0)),
        (GREEK, (3, 0)),
        ([("\u03b1" * 70_000, "u1")], (3, 0)),
    ],
    ids=["plain", "Latin-1", "long", "Greek", "long and Greek"],
)
def test_the_version_is_the_one_that_numpy_takes(shared, folder, dtype, version):
    a = shared.zeros(3, dtype)
    dsm.save(folder / "a.npy", a)
    saved = (folder / "a.npy").read_bytes()
    assert tuple(saved[6:8]) == tuple(npy(a)[6:8]) == version
    assert (len(saved) - a.nbytes) % 64 == 0
    back = dsm.load(folder / "a.npy")
    assert back.dtype == a.dtype
    dsm.barrier()
    dsm.free(back)


def test_each_rank_writes_what_it_holds(shared, folder, counted, undisturbed):
    """Blocks that their ranks wrote are saved without a page going to another rank."""
    a = shared.zeros((dsm.size(), 20 * PAGE // 8), page_size=PAGE)
    dsm.local(a)[...] = dsm.rank() + 1
    dsm.barrier()
    with counted() as growth:
        dsm.save(folder / "blocks.npy", a)
    if undisturbed:
        assert growth["fetches"] <= 2  # of the answer of rank 0
    assert (np.load(folder / "blocks.npy") == np.arange(1, dsm.size() + 1)[:, None]).all()
    dsm.barrier()


def test_the_write_before_it_is_saved_without_a_barrier(shared, folder):
    a = shared.zeros(3 * PAGE, int, page_size=PAGE)
    for turn in range(1, 4):
        if dsm.rank() == turn % dsm.size():
            a[:] = turn
        dsm.save(folder / "a.npy", a)
        assert (np.load(folder / "a.npy") == turn).all()
        dsm.barrier()


def test_name_without_suffix_and_link(shared, folder):
    a = filled(shared.zeros(10))
    (folder / "elsewhere").mkdir(exist_ok=True)
    if dsm.rank() == 0:
        (folder / "link.npy").symlink_to(folder / "elsewhere" / "real.npy")
    dsm.barrier()
    dsm.save(os.fspath(folder / "plain"), a)
    dsm.save(folder / "link", a)
    assert sorted(os.listdir(folder)) == ["elsewhere", "link.npy", "plain.npy"]
    assert os.listdir(folder / "elsewhere") == ["real.npy"]
    dsm.barrier()


def test_mode_of_the_file_is_kept(shared, folder):
    a = filled(shared.zeros(10))
    path = folder / "a.npy"
    if dsm.rank() == 0:
        path.write_bytes(b"old")
        path.chmod(0o640)
    dsm.barrier()
    dsm.save(path, a)
    assert path.stat().st_mode & 0o777 == 0o640
    dsm.barrier()


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_left(folder, comm):
    """The same error is raised on every rank, the file stays as it was, and no array is left."""

    def check(call, kind, words):
        regions, before = set(dsm.stats().arrays), sorted(os.listdir(folder))
        comm.Barrier()
        with pytest.raises(kind, match=words) as caught:
            call()
        assert len({type(error) for error in comm.allgather(caught.value)}) == 1
        del caught
        assert set(dsm.stats().arrays) == regions
        assert sorted(os.listdir(folder)) == before
        comm.Barrier()

    return check


@pytest.mark.parametrize("rank", [0, LAST])
def test_a_write_that_fails_on_one_rank(shared, folder, nothing_left, rank, monkeypatch):
    a = filled(shared.zeros((dsm.size(), 1000)))
    dsm.save(folder / "a.npy", a)
    a[dsm.rank()] = 7
    dsm.barrier()
    if dsm.rank() == rank:
        monkeypatch.setattr(os, "pwrite", refuse)
    words = "No space" if dsm.rank() == rank else ".*" if rank == 0 else f"rank {rank}.*No space"
    nothing_left(lambda: dsm.save(folder / "a.npy", a), OSError, words)
    monkeypatch.undo()
    assert not (np.load(folder / "a.npy") == 7).all()
    dsm.barrier()
    dsm.save(folder / "a.npy", a)
    assert (np.load(folder / "a.npy") == 7).all()
    dsm.barrier()


def test_a_failure_is_told_to_the_step_that_failed(monkeypatch):
    """And not to a rank of the same host that is slow to look at the step before."""
    barrier = _runtime.barrier

    def barrier_and_wait():
        barrier()
        time.sleep(0.2)

    with _exchange.Exchange(_runtime.started(), "a test", "a test") as exchange:
        if dsm.rank() == 0:
            monkeypatch.setattr(_runtime, "barrier", barrier_and_wait)
        exchange.all(None)
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space"):
            exchange.all(refuse if dsm.rank() == LAST else None)


def refuse(*arguments):
    raise OSError(28, "No space left on device")


def test_short_writes_and_reads(shared, folder, monkeypatch):
    a = filled(shared.zeros((40, 100)))
    pwrite, preadv = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[:777], at))
    monkeypatch.setattr(os, "preadv", lambda file, parts, at: preadv(file, [parts[0][:555]], at))
    dsm.save(folder / "a.npy", a)
    b = dsm.load(folder / "a.npy")
    assert (b == a).all()
    assert (np.load(folder / "a.npy") == a).all()
    dsm.barrier()
    dsm.free(b)


@pytest.mark.parametrize("rank", [0, LAST])
def test_a_read_that_fails_on_one_rank(folder, nothing_left, rank, monkeypatch):
    if dsm.rank() == 0:
        np.save(folder / "a.npy", np.ones((8, 1000)))
    dsm.barrier()
    with monkeypatch.context() as patch:
        if dsm.rank() == rank:
            patch.setattr(os, "preadv", refuse)
        nothing_left(lambda: dsm.load(folder / "a.npy"), OSError, "No space")
    with monkeypatch.context() as patch:
        if dsm.rank() == rank:
            patch.setattr(os, "preadv", lambda *arguments: 0)
        nothing_left(lambda: dsm.load(folder / "a.npy"), ValueError, "shorter")
    a = dsm.load(folder / "a.npy")
    assert (a == 1).all()
    dsm.barrier()
    dsm.free(a)


def damaged_files():
    whole = npy(np.arange(1000.0))
    yield "empty", b"", "magic|EOF|expected"
    yield "text", b"hello, this is no array" * 10, "magic"
    yield "cut in the data", whole[:-1], "damaged.*describes"
    yield "cut in the header", whole[:40], "EOF|header"
    yield "only a header", whole[:128], "damaged"
    yield "a bracket left open", whole.replace(b"(1000,)", b"(1000, "), "header"
    yield "version", whole[:6] + b"\7" + whole[7:], "version"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        new = npy(np.zeros(3, GREEK))
    assert new[6:8] == b"\3\0"
    yield "cut in the header of 3.0", new[:80], "EOF.*header"
    yield "cut before the header of 3.0", new[:11], "header"
    yield "cut in the data after 3.0", new[:-1], "damaged.*describes"
    yield "long header of 3.0", new[:8] + b"\xff\xff\xff\x7f" + new[12:], "header has 2147483647 bytes"
    yield "no UTF-8", new.replace("\u03b1".encode(), b"\xff\xff"), "utf-8"
    yield "no literal", new.replace(b"{'descr'", b"os.exit("), "header"
    yield "shape", whole.replace(b"(1000,)", b"(-100,)"), "negative"
    yield "huge", whole.replace(b"(1000,), }       ", b"(1000,99999999),}"), "damaged"
    yield "keys", whole.replace(b"'shape'", b"'shade'"), "keys"
    yield "type", whole.replace(b"<f8", b"<q9"), "descr"


def npy(array):
    text = io.BytesIO()
    np.save(text, array)
    return text.getvalue()


@pytest.mark.parametrize(("content", "words"), [pytest.param(*case[1:], id=case[0]) for case in damaged_files()])
def test_damaged_files(folder, nothing_left, content, words):
    if dsm.rank() == 0:
        (folder / "bad.npy").write_bytes(content)
    dsm.barrier()
    nothing_left(lambda: dsm.load(folder / "bad.npy"), ValueError, words)


def test_objects_and_archives(folder, nothing_left):
    if dsm.rank() == 0:
        np.save(folder / "objects.npy", np.array([None, 1]), allow_pickle=True)
        np.savez(folder / "several.npz", a=np.ones(3))
        (folder / "folder.npy").mkdir()
        os.mkfifo(folder / "pipe.npy")
    dsm.barrier()
    nothing_left(lambda: dsm.load(folder / "objects.npy"), TypeError, "Python objects")
    nothing_left(lambda: dsm.load(folder / "several.npz"), ValueError, "magic")
    nothing_left(lambda: dsm.load(folder / "missing.npy"), FileNotFoundError, "missing")
    nothing_left(lambda: dsm.load(folder / "folder.npy"), IsADirectoryError, "folder")
    nothing_left(lambda: dsm.load(folder / "pipe.npy"), OSError, "not a file")


def test_places_that_cannot_be_written(shared, folder, nothing_left):
    a = filled(shared.zeros(10))
    if dsm.rank() == 0:
        (folder / "folder.npy").mkdir()
        os.mkfifo(folder / "pipe.npy")
    dsm.barrier()
    nothing_left(
        lambda: dsm.save(folder / "no folder" / "a.npy", a), FileNotFoundError, re.escape(f"'{folder}/no folder/a.npy'")
    )
    nothing_left(lambda: dsm.save(folder / "folder.npy", a), IsADirectoryError, "folder")
    nothing_left(lambda: dsm.save(folder / "pipe.npy", a), OSError, "is not a file: .*pipe.npy")


def test_arguments_that_cannot_be(shared, folder, nothing_left):
    a = shared.zeros(10)
    with pytest.raises(TypeError):
        dsm.save(3, a)
    with pytest.raises(TypeError):
        dsm.load(None)
    for private in (np.zeros(3), [1], None):
        with pytest.raises(ValueError, match=r"dsm\.save.*not in shared memory"):
            dsm.save(folder / "a.npy", private)
    with pytest.raises(ValueError, match="page_size"):
        dsm.load(folder / "a.npy", page_size=5000)
    with pytest.raises(TypeError, match="name"):
        dsm.load(folder / "a.npy", name=3)
    dsm.barrier()
    assert os.listdir(folder) == []


@pytest.mark.mpi(min_size=2)
def test_ranks_that_differ(shared, folder, nothing_left):
    a, other = shared.zeros((10, 3)), shared.zeros((10, 3))
    first = dsm.rank() == 0
    nothing_left(lambda: dsm.save(folder / ("a" if first else "b"), a), ValueError, re.escape(f"{folder}"))
    nothing_left(lambda: dsm.save(folder / "a", a if first else other), ValueError, "rank")
    nothing_left(lambda: dsm.save(folder / "a", a[1:] if first else a[:-1]), ValueError, "rank")
    nothing_left(lambda: dsm.save(folder / "a", a if first else a.T), ValueError, "rank")
    nothing_left(lambda: dsm.load(folder / ("a" if first else "b")), ValueError, "rank")
    nothing_left(lambda: dsm.load(folder / "a", name="x" if first else "y"), ValueError, "rank")


def test_a_header_of_a_thousand_fields(shared, folder):
    a = shared.zeros(4, [(f"field number {k}", "u1") for k in range(3000)])
    if dsm.rank() == 0:
        a["field number 2999"] = 5
    dsm.save(folder / "wide.npy", a)
    b = dsm.load(folder / "wide.npy")
    assert b.dtype == a.dtype
    assert (b["field number 2999"] == 5).all()
    dsm.barrier()
    dsm.free(b)
