"""Libraries keep a shared array where they keep one of NumPy's, so that what one rank writes there all ranks see."""

import h5py
import joblib
import numba
import numpy as np
import pandas
import pytest
import scipy.sparse
import sklearn.utils
import xarray

import dsm

pytestmark = pytest.mark.mpi

SIDE = 60
ITEMS = SIDE * SIDE  # of 8 bytes, so that a base of bytes would be many times as large


class Material:
    """The same arrays, shared or not: values, and what scipy.sparse needs to make a matrix of them."""

    def __init__(self, array):
        self.values = array(np.arange(1.0, ITEMS + 1))
        self.square = array(np.arange(1.0, ITEMS + 1).reshape(SIDE, SIDE))
        self.numbers = array(np.arange(ITEMS, dtype=np.int32) % SIDE)
        self.starts = array(np.arange(0, ITEMS + 1, SIDE, dtype=np.int32))
        self.all = [self.values, self.square, self.numbers, self.starts]

    def compressed(self, kind, part=slice(None)):
        return kind((self.values[part], self.numbers[part], self.starts), shape=(SIDE, SIDE))


def parts_of(matrix):
    return [matrix.data, matrix.indices, matrix.indptr]


def after(call, matrix):
    getattr(matrix, call)()
    return [matrix.data]


LIBRARIES = {
    "csr": lambda m: parts_of(m.compressed(scipy.sparse.csr_matrix)),
    "csr_array": lambda m: parts_of(m.compressed(scipy.sparse.csr_array)),
    "csc": lambda m: parts_of(m.compressed(scipy.sparse.csc_array)),
    "csr transposed": lambda m: parts_of(m.compressed(scipy.sparse.csr_array).T),
    "csr pruned": lambda m: after("prune", m.compressed(scipy.sparse.csr_array)),
    "csr sorted": lambda m: after("sort_indices", m.compressed(scipy.sparse.csr_array)),
    "csr of most": lambda m: [
        scipy.sparse.csr_array((m.values, m.numbers, m.starts[: SIDE * 3 // 4]), shape=(SIDE * 3 // 4 - 1, SIDE)).data
    ],
    "csr of little": lambda m: [
        scipy.sparse.csr_array((m.values, m.numbers, m.starts[: SIDE // 4]), shape=(SIDE // 4 - 1, SIDE)).data
    ],
    "coo": lambda m: [scipy.sparse.coo_array((m.values, (m.numbers, m.numbers))).data],
    "bsr": lambda m: parts_of(
        scipy.sparse.bsr_array((m.values.reshape(-1, 1, SIDE), m.numbers[:SIDE], m.starts // SIDE), (SIDE, ITEMS))
    )[:2],
    "dia": lambda m: [scipy.sparse.dia_array((m.square, np.arange(SIDE)), (SIDE, SIDE)).data],
    "pandas series": lambda m: [pandas.Series(m.values, copy=False).to_numpy()],
    "pandas frame": lambda m: [pandas.DataFrame(m.square, copy=False).to_numpy()],
    "pandas column": lambda m: [pandas.DataFrame({"x": m.values}, copy=False)["x"].to_numpy()],
    "xarray": lambda m: [
        xarray.DataArray(m.square, dims=("i", "j"))[2:9].data,
        xarray.Dataset({"x": ("i", m.values)})["x"].data,
    ],
    "sklearn": lambda m: [sklearn.utils.check_array(m.square)],
    "numba": lambda m: [numba.njit(lambda a: a[3:])(m.values)],
    "dlpack": lambda m: [np.from_dlpack(m.values)],
    "buffer": lambda m: [np.asarray(memoryview(m.values)), np.frombuffer(m.values)],
    "require": lambda m: [np.require(m.values, float, "CAW"), np.asanyarray(m.values), np.ascontiguousarray(m.values)],
    "recarray": lambda m: [m.values.view(np.recarray), np.ma.asarray(m.values).data],
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_they_keep_the_memory_where_they_would_keep_that_of_numpy(shared, library):
    ours = Material(shared.array)
    own = Material(np.array)
    kept = [[any(np.shares_memory(part, a) for a in m.all) for part in LIBRARIES[library](m)] for m in (own, ours)]
    assert kept[0] == kept[1]
    assert any(kept[0]) or library == "csr of little"


def test_the_base_looks_like_an_array_of_numpy(shared):
    for shape, dtype, order in [((3, 5), float, "F"), ((), "u1", "C"), ((0, 3), "i4", "C"), (7, "M8[s]", "C")]:
        a = shared.zeros(shape, dtype, order=order)
        for view in (a, a[...], a.T):
            assert type(view.base) is np.ndarray
            assert (view.base.size, view.base.dtype) == (a.size, a.dtype)
            assert not isinstance(view.base.base, np.ndarray)
        assert joblib._memmapping_reducer._get_backing_memmap(a) is None


def test_a_sparse_matrix_that_all_ranks_scale(shared):
    own = Material(np.array).compressed(scipy.sparse.csr_matrix)
    ours = Material(shared.array).compressed(scipy.sparse.csr_matrix)
    ours.data[dsm.split(ours.nnz)] *= 2
    dsm.barrier()
    assert (ours.data == own.data * 2).all()
    assert np.allclose(ours @ np.ones(SIDE), 2 * (own @ np.ones(SIDE)))
    dsm.barrier()


def test_a_series_that_all_ranks_fill(shared):
    a = shared.zeros(ITEMS)
    series = pandas.Series(a, copy=False)
    series.iloc[dsm.split(ITEMS)] = dsm.rank() + 1
    dsm.barrier()
    assert (a > 0).all()
    assert series.sum() == a.sum()
    dsm.barrier()


def test_hdf5_reads_and_writes_what_is_pinned(shared, tmp_path):
    a, b = shared.full((SIDE, SIDE), 3.0), shared.zeros((dsm.size(), SIDE, SIDE))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        with dsm.pinned(a, "r"):
            file["a"] = a
        with dsm.pinned(b[dsm.rank()], "w") as mine:
            file["a"].read_direct(mine)
    dsm.barrier()
    assert (b == 3).all()
    dsm.barrier()
