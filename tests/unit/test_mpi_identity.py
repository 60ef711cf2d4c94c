"""Whether core and mpi4py use one MPI, and whether its own mpiexec started this process, by faked inputs."""

import pytest

from dsm import DSMError, _mpi
from dsm._mpi import Identity

MPICH = "MPICH Version:      5.0.2\nMPICH Release date: Fri Sep 25\nMPICH ABI:          18:2:6\n"
MPICH_OLD = "MPICH Version:\t4.0.2\nMPICH Release date:\tThu Apr 7\n"
OPEN_MPI = "Open MPI v5.0.11, package: Open MPI user@localhost Distribution, ident: 5.0.11\0"
INTEL = "Intel(R) MPI Library 2021.13 for Linux* OS\n"


def same(library, handle_bytes):
    return Identity(True, library, handle_bytes), Identity(True, library, handle_bytes)


@pytest.mark.parametrize(
    ("text", "family", "short"),
    [
        (MPICH, "MPICH", "MPICH 5.0.2"),
        (MPICH_OLD, "MPICH", "MPICH 4.0.2"),
        (OPEN_MPI, "Open MPI", "Open MPI 5.0.11"),
        (INTEL, "MPICH", "Intel(R) MPI Library 2021.13 for Linux* OS"),
        ("HYDRA build details:\n    Version:   5.0.2\n", "MPICH", "HYDRA build details:"),
        ("mpiexec (Open MPI) 5.0.11\n", "Open MPI", "mpiexec (Open MPI) 5.0.11"),
        ("mpirun (Open MPI) 4.1.4", "Open MPI", "mpirun (Open MPI) 4.1.4"),
        ("Frontier MPI 3", "Frontier MPI 3", "Frontier MPI 3"),
    ],
)
def test_family_and_short_name(text, family, short):
    assert _mpi.family(text) == family
    assert _mpi.short(text) == short


@pytest.mark.parametrize(
    ("header", "library", "handle_bytes"),
    [("MPICH", MPICH, 4), ("MPICH", INTEL, 4), ("Open MPI", OPEN_MPI, 8)],
)
def test_one_mpi_is_no_mismatch(header, library, handle_bytes):
    assert _mpi.mismatch(header, *same(library, handle_bytes)) is None


def test_a_library_version_that_ends_in_a_null_byte_is_the_same():
    core, mpi4py = Identity(True, OPEN_MPI.rstrip("\0"), 8), Identity(True, OPEN_MPI, 8)
    assert _mpi.mismatch("Open MPI", core, mpi4py) is None


@pytest.mark.parametrize(
    ("header", "core", "mpi4py", "words"),
    [
        ("Open MPI", *same(MPICH, 4), ("MPICH 5.0.2", "compiled for Open MPI")),
        ("MPICH", *same(OPEN_MPI, 8), ("Open MPI 5.0.11", "compiled for MPICH")),
        ("MPICH", Identity(True, MPICH_OLD, 4), Identity(True, MPICH, 4), ("MPICH 5.0.2", "runs on MPICH 4.0.2")),
        ("MPICH", Identity(True, MPICH, 8), Identity(True, MPICH, 4), ("MPICH 5.0.2", "8 bytes instead of 4")),
        ("MPICH", Identity(False, MPICH, 4), Identity(True, MPICH, 4), ("MPICH 5.0.2", "another copy")),
        ("the MPI standard ABI", *same(MPICH, 4), ("MPICH 5.0.2", "the MPI standard ABI")),
    ],
)
def test_a_mismatch_names_both_and_the_cure(header, core, mpi4py, words):
    text = _mpi.mismatch(header, core, mpi4py)
    for word in (*words, "MPICC=", "MPI4PY_LIBMPI"):
        assert word in text


def test_the_real_core_fits_the_real_mpi():
    ffi, lib, mpi = _mpi.load()
    core, mpi4py = _mpi.identities(_mpi.import_core(), mpi)
    assert core.handle_bytes == mpi4py.handle_bytes
    assert core.initialized == mpi4py.initialized
    assert _mpi.short(core.library) == _mpi.short(mpi4py.library)
    assert ffi.string(lib.dsm_mpi_header()).decode() in ("MPICH", "Open MPI")


def test_the_library_name_is_cut_at_the_capacity():
    ffi, lib, _ = _mpi.load()
    text = ffi.new("char[]", b"\x7f" * 8)
    assert lib.dsm_mpi_library(text, 4) == lib.DSM_OK
    assert len(ffi.string(text)) == 3
    assert ffi.buffer(text)[4:8] == b"\x7f" * 4
    assert lib.dsm_mpi_library(text, 0) == lib.DSM_E_ARGUMENT


@pytest.mark.parametrize(
    ("environ", "library", "word"),
    [
        ({}, MPICH, None),
        ({"PMI_SIZE": "4"}, OPEN_MPI, "PMI_SIZE=4"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, MPICH, "Open MPI's mpiexec"),
        ({"PMI_SIZE": "1"}, MPICH, None),
        ({"PMI_SIZE": "1"}, OPEN_MPI, None),
        ({"MV2_COMM_WORLD_SIZE": "2"}, OPEN_MPI, "MVAPICH"),
        # a batch script is one process, however many tasks the job has
        ({"SLURM_NTASKS": "16", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}, MPICH, None),
        ({"SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "3"}, OPEN_MPI, "srun --mpi"),
        ({"SLURM_STEP_NUM_TASKS": "1"}, OPEN_MPI, None),
        # mpiexec -n 1 of the right MPI inside of a larger step
        ({"SLURM_STEP_NUM_TASKS": "4", "PMI_SIZE": "1"}, MPICH, None),
        ({"PMI_SIZE": "4", "OMPI_COMM_WORLD_SIZE": "1"}, OPEN_MPI, None),
        ({"PMI_SIZE": "nonsense"}, OPEN_MPI, None),
        ({"FLUX_JOB_SIZE": "3"}, OPEN_MPI, "flux run"),
    ],
)
def test_launchers(environ, library, word):
    text = _mpi.launcher_problem(environ, library)
    if word is None:
        assert text is None
    else:
        assert word in text
        assert _mpi.short(library) in text


@pytest.mark.parametrize(
    ("level", "word"), [(-1, "not initialised"), (0, "SINGLE"), (1, "FUNNELED"), (2, "SERIALIZED")]
)
def test_a_thread_level_below_multiple_is_refused(level, word):
    text = _mpi.threads_problem(level, MPICH)
    assert word in text
    assert "MPI_THREAD_MULTIPLE" in text or "THREAD_MULTIPLE" in text


def test_multiple_is_enough():
    assert _mpi.threads_problem(3, OPEN_MPI) is None


class _World:
    def Get_size(self):
        return 1


class _MPI:
    COMM_WORLD = _World()

    @staticmethod
    def Get_library_version():
        return OPEN_MPI


def test_check_launcher_raises(monkeypatch):
    monkeypatch.setattr(_mpi, "import_mpi4py", lambda: _MPI)
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.delenv("OMPI_COMM_WORLD_SIZE", raising=False)
    with pytest.raises(DSMError, match="started as one of 4"):
        _mpi.check_launcher(_MPI.COMM_WORLD)
