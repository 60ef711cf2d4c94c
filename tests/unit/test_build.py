"""How the core is compiled: what cffi is handed, which MPI is chosen, what is written into the extension."""

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from dsm import _core_build

ROOT = Path(__file__).resolve().parents[2]


def tool(folder, name="mpicc", text="#!/bin/sh\nexit 1\n"):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text)
    file.chmod(0o755)
    return str(file)


# ---- cdef and sources ----


def test_cdef_is_the_marked_part_of_the_header():
    header = "before\n/* cffi: begin */\nint f(void);\n/* cffi: end */\nafter\n"
    assert _core_build.extract_cdef(header).strip() == "int f(void);"


@pytest.mark.parametrize(
    "header",
    ["int f(void);", "/* cffi: begin */ int f(void);", "/* cffi: begin *//* cffi: begin *//* cffi: end */"],
)
def test_a_header_without_its_markers_is_refused(header):
    with pytest.raises(_core_build.BuildError, match="once each"):
        _core_build.extract_cdef(header)


def test_cffi_understands_the_real_header_and_every_function_is_in_the_core():
    import cffi

    cdef = _core_build.extract_cdef((ROOT / "csrc" / "dsm.h").read_text())
    parser = cffi.FFI()
    parser.cdef(cdef)
    assert parser.sizeof("struct dsm_options") >= 40
    without_comments = re.sub(r"/\*.*?\*/", "", cdef, flags=re.S)
    declared = set(re.findall(r"\b(dsm_\w+)\(", without_comments))
    assert len(declared) > 30
    from dsm import _mpi

    _, lib, _ = _mpi.load()
    assert declared <= set(dir(lib))


def test_sources_are_sorted_and_of_all_three_parts(tmp_path):
    for name in ("runtime/b.c", "machine/c.c", "protocol/z.c", "protocol/a.c", "protocol/a.h", "other/x.c"):
        file = tmp_path / "csrc" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert _core_build.core_sources(tmp_path) == [
        "csrc/machine/c.c",
        "csrc/protocol/a.c",
        "csrc/protocol/z.c",
        "csrc/runtime/b.c",
    ]


# ---- which mpicc ----


def test_mpicc_of_the_environment_variable_wins(tmp_path):
    named, beside, on_path = (tool(tmp_path / name) for name in ("named", "env/bin", "path"))
    environ = {"MPICC": named, "PATH": os.path.dirname(on_path)}
    assert _core_build.find_mpicc(environ, str(Path(beside).parent / "python")) == [named]


def test_mpicc_beside_python_comes_before_path(tmp_path):
    beside, on_path = tool(tmp_path / "env/bin"), tool(tmp_path / "path")
    environ = {"PATH": os.path.dirname(on_path)}
    assert _core_build.find_mpicc(environ, str(Path(beside).parent / "python")) == [beside]
    assert _core_build.find_mpicc(environ, str(tmp_path / "elsewhere" / "python")) == [on_path]


def test_no_mpicc_is_no_error_yet_and_a_wrong_one_is(tmp_path):
    environ = {"PATH": str(tmp_path)}
    assert _core_build.find_mpicc(environ, str(tmp_path / "python")) is None
    with pytest.raises(_core_build.BuildError, match="MPICC=/no/such/mpicc"):
        _core_build.find_mpicc({"MPICC": "/no/such/mpicc", **environ}, str(tmp_path / "python"))


def test_mpicc_may_be_several_words(tmp_path):
    wrapper = tool(tmp_path, "ccache")
    assert _core_build.find_mpicc({"MPICC": f"{wrapper} mpicc -O3", "PATH": ""}) == [wrapper, "mpicc", "-O3"]


# ---- which flags ----

MPICH = "-I/opt/mpich/include -L/opt/mpich/lib -Wl,-rpath -Wl,/opt/mpich/lib -Wl,--enable-new-dtags -lmpi".split()
OPEN_MPI = "-I/opt/ompi/include -I/opt/ompi/include/openmpi -pthread -L/opt/ompi/lib -lmpi".split()
INTEL = "-I /opt/impi/include -L /opt/impi/lib -Xlinker -rpath -Xlinker /opt/impi/lib -lmpi -ldl -DX=1".split()
RELATIVE = "-Wl,-rpath,$ORIGIN/../../.."


def test_a_cluster_mpi_is_found_again_where_it_is():
    flags = _core_build.split_flags(MPICH, wheel=False)
    assert flags.include_dirs == ["/opt/mpich/include"]
    assert flags.link_args.index("-L/opt/mpich/lib") < flags.link_args.index("-lmpi")
    assert "-Wl,-rpath,/opt/mpich/lib" in flags.link_args
    assert RELATIVE not in flags.link_args


def test_a_wheel_leaves_no_absolute_path_in_the_extension():
    flags = _core_build.split_flags(MPICH, wheel=True)
    assert [word for word in flags.link_args if "rpath" in word or word == "-Wl,/opt/mpich/lib"] == [RELATIVE]
    assert "-lmpi" in flags.link_args


def test_flags_of_open_mpi():
    flags = _core_build.split_flags(OPEN_MPI, wheel=False)
    assert flags.include_dirs == ["/opt/ompi/include", "/opt/ompi/include/openmpi"]
    assert flags.compile_args == ["-pthread"]
    assert "-Wl,-rpath,/opt/ompi/lib" in flags.link_args


def test_options_of_two_words_stay_together():
    flags = _core_build.split_flags(INTEL, wheel=False)
    assert flags.include_dirs == ["/opt/impi/include"]
    at = flags.link_args.index("-rpath")
    assert flags.link_args[at - 1 : at + 3] == ["-Xlinker", "-rpath", "-Xlinker", "/opt/impi/lib"]
    assert flags.compile_args == ["-DX=1"]


def test_system_folders_are_not_written_into_the_extension():
    flags = _core_build.split_flags(["-L/usr/lib", "-lmpi"], wheel=False)
    assert not [word for word in flags.link_args if "rpath" in word]


def test_flags_are_asked_of_mpicc(tmp_path):
    mpicc = tool(tmp_path / "bin", text='#!/bin/sh\n[ "$1" = -show ] && echo gcc -I/x/include -L/x/lib -lmpi\n')
    assert _core_build.mpi_flags([mpicc]).include_dirs == ["/x/include"]


def test_a_compiler_that_does_not_show_its_flags_is_used_itself(tmp_path):
    cray = tool(tmp_path / "bin", "cc")
    environ = {}
    assert _core_build.mpi_flags([cray]) == ([], [], [])
    _core_build.use_as_compiler([cray], environ)
    assert environ == {"CC": cray, "LDSHARED": f"{cray} -shared"}


def test_a_wheel_is_told_by_its_python_environment(tmp_path):
    mpicc = tool(tmp_path / "bin")
    assert not _core_build.is_wheel(mpicc)
    (tmp_path / "lib/python3.12/site-packages/mpich-5.0.2.dist-info").mkdir(parents=True)
    assert _core_build.is_wheel(mpicc)


# ---- the backend and the archives ----


@pytest.fixture
def backend():
    pytest.importorskip("setuptools")
    spec = importlib.util.spec_from_file_location("dsm_backend", ROOT / "build_backend" / "dsm_backend.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_mpich_wheel_is_required_only_where_there_is_no_mpicc(backend, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["setup.py"])
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("MPICC", tool(tmp_path))
    assert backend._mpi_requirement() == []
    monkeypatch.delenv("MPICC")
    assert backend._mpi_requirement() == []  # the one on PATH
    monkeypatch.setattr(backend, "_core_build", lambda: _NoMPI)
    assert backend._mpi_requirement() == ["mpich"]


class _NoMPI:
    BuildError = _core_build.BuildError

    @staticmethod
    def find_mpicc(environ):
        return None


def test_setup_reads_metadata_without_any_mpi(tmp_path):
    """setup.py runs before the requirement that brings an MPI is installed, and must not end there."""
    bare = tmp_path / "bare" / "python"
    bare.parent.mkdir()
    bare.symlink_to(sys.executable)
    script = (
        f"import sys; sys.executable = {str(bare)!r}; sys.argv = ['setup.py', '--name']; __file__ = 'setup.py'; "
        "exec(open('setup.py').read())"
    )
    asked = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "MPICC"} | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.split()[-1] == "dsm-mpi"


def test_the_source_archive_holds_the_core_and_the_backend(tmp_path):
    script = (
        "import sys; sys.path.insert(0, 'build_backend'); import dsm_backend; "
        f"print(dsm_backend.build_sdist({str(tmp_path)!r}))"
    )
    copy = tmp_path / "tree"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = [name for name in tracked.stdout.split("\0") if name and (ROOT / name).is_file()]
    if not names:  # not a git checkout: the tree is what it is
        names = [
            str(file.relative_to(ROOT)) for file in ROOT.rglob("*") if file.is_file() and ".venv" not in file.parts
        ]
    for name in names:
        target = copy / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    made = subprocess.run([sys.executable, "-c", script], cwd=copy, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    with tarfile.open(tmp_path / made.stdout.split()[-1]) as archive:
        inside = {name.split("/", 1)[-1] for name in archive.getnames()}
    wanted = {name for name in names if name.startswith(("csrc/", "build_backend/", "dsm/"))}
    assert wanted
    assert wanted <= inside
    assert {"setup.py", "pyproject.toml", "LICENSE"} <= inside


def test_the_extension_finds_its_mpi_only_where_it_lasts():
    """No library path of a build environment, which is deleted after the build, is left in the installed extension."""
    from dsm import _mpi

    file = Path(_mpi.import_core().__file__)
    told = subprocess.run(["readelf", "-d", str(file)], capture_output=True, text=True, check=True).stdout
    paths = re.search(r"(?:RUNPATH|RPATH).*\[(.*)\]", told)
    for folder in paths.group(1).split(":") if paths else []:
        assert folder.startswith("$ORIGIN") or os.path.isdir(folder), folder
