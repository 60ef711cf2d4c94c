"""How the core is compiled: what cffi is handed, which MPI is chosen, what is written into the extension."""

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from dsm import _core_build, _launch

ROOT = Path(__file__).resolve().parents[2]


def tool(folder, name="mpicc", text="#!/bin/sh\nexit 1\n"):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text)
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def backend():
    pytest.importorskip("setuptools")
    spec = importlib.util.spec_from_file_location("dsm_backend", ROOT / "build_backend" / "dsm_backend.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    for name in (
        "runtime/b.c",
        "machine/c.c",
        "protocol/page/z.c",
        "protocol/base/a.c",
        "protocol/base/a.h",
        "other/x.c",
    ):
        file = tmp_path / "csrc" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert _core_build.core_sources(tmp_path) == [
        "csrc/machine/c.c",
        "csrc/protocol/base/a.c",
        "csrc/protocol/page/z.c",
        "csrc/runtime/b.c",
    ]


# ---- what is packed ----


def test_the_wheel_has_all_files_of_the_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    files = [file for file in (ROOT / "dsm").rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    package_of = {file: ".".join(file.relative_to(ROOT).parts[:-1]) for file in files}
    assert {package_of[file] for file in files} == set(settings["packages"])
    built = {".py", ".so", ".c", ".o"}
    data = [file for file in files if file.suffix not in built]
    assert any(file.suffix == ".js" for file in data)
    patterns = settings["package-data"]
    assert [file for file in data if not any(map(file.match, patterns.get(package_of[file], [])))] == []


# ---- which mpicc ----


def test_an_mpicc_is_used_only_when_it_is_named(tmp_path):
    named, on_path = (tool(tmp_path / name) for name in ("named", "path"))
    environ = {"PATH": os.path.dirname(on_path)}
    assert _core_build.find_mpicc(environ) is None
    assert _core_build.builders(environ) == ["builder_mpich", "builder_openmpi"]
    environ["MPICC"] = named
    assert _core_build.find_mpicc(environ) == [named]
    assert _core_build.builders(environ) == ["builder_mpicc"]


def test_an_mpicc_that_is_not_there_is_named(tmp_path):
    with pytest.raises(_core_build.BuildError, match="MPICC=/no/such/mpicc"):
        _core_build.check({"MPICC": "/no/such/mpicc", "PATH": str(tmp_path)})


def test_mpicc_may_be_several_words(tmp_path):
    wrapper = tool(tmp_path, "ccache")
    assert _core_build.find_mpicc({"MPICC": f"{wrapper} mpicc -O3", "PATH": ""}) == [wrapper, "mpicc", "-O3"]


# ---- what a build needs ----


def test_this_machine_has_what_a_build_needs():
    _core_build.check({"PATH": os.environ["PATH"]})


@pytest.mark.parametrize(
    ("compiler", "words"),
    [
        (None, "there is no C compiler: 'wanted-cc' is not on PATH"),
        (
            'grep -q Python.h && { echo "<stdin>:1:10: fatal error: Python.h: No such file" >&2; exit 1; }; exit 0',
            "<Python.h>",
        ),
        ('echo "fatal error: stdlib.h: No such file" >&2; exit 1', "<stdlib.h>"),
    ],
)
def test_what_is_missing_is_one_line(backend, monkeypatch, tmp_path, compiler, words):
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("CC", "wanted-cc")
    monkeypatch.delenv("MPICC", raising=False)
    if compiler:
        tool(tmp_path / "bin", "wanted-cc", f"#!/bin/sh\n{compiler}\n")
    for hook in (backend.get_requires_for_build_wheel, backend.get_requires_for_build_editable):
        with pytest.raises(SystemExit) as told:
            hook()
        text = str(told.value)
        assert words in text
        assert "apt-get install gcc libc6-dev python3-dev" in text
        assert "\n" not in text


# ---- which flags ----

MPICH = "-I/opt/mpich/include -L/opt/mpich/lib -Wl,-rpath -Wl,/opt/mpich/lib -Wl,--enable-new-dtags -lmpi".split()
OPEN_MPI = "-I/opt/ompi/include -I/opt/ompi/include/openmpi -pthread -L/opt/ompi/lib -lmpi".split()
INTEL = "-I /opt/impi/include -L /opt/impi/lib -Xlinker -rpath -Xlinker /opt/impi/lib -lmpi -ldl -DX=1".split()


def test_a_cluster_mpi_is_found_again_where_it_is():
    flags = _core_build.split_flags(MPICH)
    assert flags.include_dirs == ["/opt/mpich/include"]
    assert flags.link_args.index("-L/opt/mpich/lib") < flags.link_args.index("-lmpi")
    assert "-Wl,-rpath,/opt/mpich/lib" in flags.link_args


def test_flags_of_open_mpi():
    flags = _core_build.split_flags(OPEN_MPI)
    assert flags.include_dirs == ["/opt/ompi/include", "/opt/ompi/include/openmpi"]
    assert flags.compile_args == ["-pthread"]
    assert "-Wl,-rpath,/opt/ompi/lib" in flags.link_args


def test_options_of_two_words_stay_together():
    flags = _core_build.split_flags(INTEL)
    assert flags.include_dirs == ["/opt/impi/include"]
    at = flags.link_args.index("-rpath")
    assert flags.link_args[at - 1 : at + 3] == ["-Xlinker", "-rpath", "-Xlinker", "/opt/impi/lib"]
    assert flags.compile_args == ["-DX=1"]


def test_system_folders_are_not_written_into_the_extension():
    flags = _core_build.split_flags(["-L/usr/lib", "-lmpi"])
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


# ---- the backend and the archives ----


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


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What setup.py compiles where nobody has an MPI, on top of what an earlier build has left."""
    folder = tmp_path_factory.mktemp("build")
    environ = {name: value for name, value in os.environ.items() if name != "MPICC"}
    tool(folder / "bin", text=f"#!/bin/sh\ntouch {folder}/asked\nexit 1\n")
    environ["PATH"] = f"{folder / 'bin'}:{environ['PATH']}"
    left = folder / "lib" / "dsm" / "_core.abi3.so"
    left.parent.mkdir(parents=True)
    left.touch()
    made = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", f"--build-lib={folder}/lib", f"--build-temp={folder}/temp"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert not (folder / "asked").exists()
    return {file.name: file for file in left.parent.iterdir()}


def dynamic_section(file):
    return subprocess.run(["readelf", "-d", str(file)], capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_a_build_without_any_mpi_makes_a_core_for_each_family_and_no_other(built):
    assert sorted(built) == ["_core_mpich.abi3.so", "_core_openmpi.abi3.so", "_unmask.abi3.so"]
    assert re.findall(r"NEEDED.*\[(.*)\]", dynamic_section(built["_unmask.abi3.so"])) == ["libc.so.6"]
    for name, library in (("mpich", "libmpi.so.12"), ("openmpi", "libmpi.so.40")):
        told = dynamic_section(built[f"_core_{name}.abi3.so"])
        assert re.findall(r"NEEDED.*\[(libmpi.*)\]", told) == [library]
        paths = re.search(r"(?:RUNPATH|RPATH).*\[(.*)\]", told)  # what python's own LDFLAGS want
        assert all(os.path.isdir(folder) for folder in (paths.group(1).split(":") if paths else []))


@pytest.mark.slow
def test_a_build_with_mpicc_makes_one_core_that_finds_that_mpi(tmp_path, mpicc):
    environ = {**os.environ, "MPICC": mpicc}
    words = [sys.executable, "setup.py", "-q", "build_ext", f"--build-lib={tmp_path}/lib", f"--build-temp={tmp_path}"]
    made = subprocess.run(words, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert sorted(file.name for file in (tmp_path / "lib/dsm").iterdir()) == ["_core.abi3.so", "_unmask.abi3.so"]
    paths = re.search(r"(?:RUNPATH|RPATH).*\[(.*)\]", dynamic_section(tmp_path / "lib/dsm/_core.abi3.so"))
    assert paths
    assert all(os.path.isdir(folder) for folder in paths.group(1).split(":"))


# ---- what is known of the two families ----

FACTS = """
#include <stddef.h>
#include <stdint.h>
const int64_t facts_{side}[] = {{
    sizeof(MPI_Comm), sizeof(MPI_Datatype), sizeof(MPI_Errhandler), sizeof(MPI_Message), sizeof(MPI_Op),
    sizeof(MPI_Request), sizeof(MPI_Status), offsetof(MPI_Status, MPI_SOURCE), offsetof(MPI_Status, MPI_TAG),
    offsetof(MPI_Status, MPI_ERROR), {numbers}
}};
int64_t handle_{side}(int i) {{
    switch (i) {{
{cases}
    }}
    return 0;
}}
"""
FACTS_MAIN = """
#include <stdint.h>
#include <stdio.h>
extern const int64_t facts_known[], facts_real[];
extern const int limits_known[], limits_real[];
int64_t handle_known(int i), handle_real(int i);
int main(void) {
    for (int i = 0; i < FACTS; i++)
        if (facts_known[i] != facts_real[i])
            printf("fact %d: %lld, but %lld in mpi.h\\n", i, (long long)facts_known[i], (long long)facts_real[i]);
    for (int i = 0; i < HANDLES; i++)
        if (handle_known(i) != handle_real(i))
            printf("handle %d: %llx, but %llx in mpi.h\\n", i, (long long)handle_known(i), (long long)handle_real(i));
    for (int i = 0; i < 2; i++)
        if (limits_known[i] < limits_real[i])
            printf("length %d: %d, but %d in mpi.h\\n", i, limits_known[i], limits_real[i]);
    return 0;
}
"""


def test_what_is_known_of_this_mpi_is_what_its_header_says(tmp_path, mpicc):
    header = (ROOT / "csrc/machine/mpi_known.h").read_text()
    ours = "DSM_FOR_OPEN_MPI" if _launch.loaded_mpi().library.startswith("Open MPI") else "DSM_FOR_MPICH"
    functions = header.split("/* functions: begin */")[1].split("/* functions: end */")[0]
    assert functions.count("int MPI_") > 20
    names = set(re.findall(r"\b(MPI_[A-Z][A-Z0-9_]+)\b", re.sub(r"/\*.*?\*/", "", header, flags=re.S)))
    lengths = sorted(name for name in names if "_MAX_" in name)
    handles = sorted(name for name in names if re.search(rf"#define {name} \(\(MPI_\w+( \*)?\)", header))
    numbers = sorted(names - set(handles) - set(lengths) - {"MPI_SOURCE", "MPI_TAG", "MPI_ERROR", "MPI_KNOWN_H"})
    assert {"MPI_BYTE", "MPI_STATUS_IGNORE"} <= set(handles)
    assert {"MPI_ANY_SOURCE", "MPI_THREAD_MULTIPLE", "MPI_ERR_PENDING"} <= set(numbers)
    cases = "\n".join(f"        case {i}: return (int64_t)(intptr_t){name};" for i, name in enumerate(handles))
    for side, begin in (("known", f'#define {ours}\n#include "machine/mpi_known.h"'), ("real", "#include <mpi.h>")):
        text = begin + FACTS.format(side=side, numbers=", ".join(numbers), cases=cases)
        text += f"const int limits_{side}[] = {{{', '.join(lengths)}}};\n"
        # A declaration that differs from the one in mpi.h is an error.
        (tmp_path / f"{side}.c").write_text(text + (functions if side == "real" else ""))
    (tmp_path / "main.c").write_text(FACTS_MAIN)
    program = str(tmp_path / "facts")
    counts = [f"-DFACTS={10 + len(numbers)}", f"-DHANDLES={len(handles)}"]
    files = [str(tmp_path / f"{name}.c") for name in ("known", "real", "main")]
    words = [mpicc, "-std=c11", *counts, f"-I{ROOT / 'csrc'}", "-o", program, *files]
    subprocess.run(words, check=True)
    told = subprocess.run([program], capture_output=True, text=True, check=True)
    assert told.stdout == ""
