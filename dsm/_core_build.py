"""The build of the C core: cffi in API mode makes an extension module for each MPI.

Without `MPICC` in the environment there are two modules, ``dsm._core_mpich`` and ``dsm._core_openmpi``.  They are
compiled without an MPI (csrc/machine/mpi_known.h); dsm loads the one that fits the MPI of the process.  With `MPICC`
there is one module, ``dsm._core``, for that MPI alone.  ``dsm._unmask`` beside them is a library for LD_PRELOAD, not a
module.

setup.py and the build backend run this file in an environment that has cffi but not dsm, so it imports nothing of the
package.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

# The library names that mpi4py's own wheels load: of MPICH and its derivatives, and of Open MPI.
LIBRARIES = {"dsm._core_mpich": "libmpi.so.12", "dsm._core_openmpi": "libmpi.so.40"}
NEEDS = (
    "To install dsm from its sources takes a C compiler and the headers of C and of Python: "
    "`apt-get install gcc libc6-dev python3-dev`, `dnf install gcc glibc-devel python3-devel`, or, on a cluster, the "
    "module of a compiler."
)
CFFI_BEGIN = "/* cffi: begin */"
CFFI_END = "/* cffi: end */"
_SYSTEM_LIBRARY_DIRS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")


class BuildError(Exception):
    """The core cannot be compiled here; the message names the missing part."""


class MPIFlags(NamedTuple):
    """The options of compiler and linker for one MPI."""

    include_dirs: list[str]
    compile_args: list[str]
    link_args: list[str]


def extract_cdef(header: str) -> str:
    """Return the part of dsm.h that cffi reads.  Local."""
    if header.count(CFFI_BEGIN) != 1 or header.count(CFFI_END) != 1:
        raise BuildError(f"csrc/dsm.h must hold the lines {CFFI_BEGIN!r} and {CFFI_END!r} once each")
    return header.split(CFFI_BEGIN, 1)[1].split(CFFI_END, 1)[0]


def core_sources(root: Path) -> list[str]:
    """List the C files of the core, relative to `root`.  Local."""
    folders = (root / "csrc" / part for part in ("protocol", "machine", "runtime"))
    return sorted(str(file.relative_to(root)) for folder in folders for file in folder.rglob("*.c"))


def find_mpicc(environ: Mapping[str, str]) -> list[str] | None:
    """Return the compiler command in `MPICC`; None if there is none.  Local."""
    named = shlex.split(environ.get("MPICC", ""))
    if named and shutil.which(named[0], path=environ.get("PATH")) is None:
        raise BuildError(f"MPICC={environ['MPICC']} in the environment is not an executable program")
    return named or None


def check(environ: Mapping[str, str]) -> None:
    """Raise `BuildError` if `MPICC`, a C compiler, or the headers of C or of Python are missing.  Local."""
    mpicc = find_mpicc(environ)
    words = shlex.split(environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if mpicc and mpi_words(tuple(mpicc)) is None:
        words = mpicc
    if shutil.which(words[0], path=environ.get("PATH")) is None:
        raise BuildError(f"there is no C compiler: {words[0]!r} is not on PATH. {NEEDS}")
    folders = {sysconfig.get_path(name) for name in ("include", "platinclude")}
    command = [*words, *(f"-I{folder}" for folder in sorted(folders)), *shlex.split(environ.get("CFLAGS", ""))]
    for header in ("stdlib.h", "Python.h"):
        tried = subprocess.run(
            [*command, "-E", "-x", "c", "-"],
            input=f"#include <{header}>\n",
            capture_output=True,
            text=True,
            check=False,
            env=dict(environ),
        )
        if tried.returncode != 0:
            wrong = next((line for line in tried.stderr.splitlines() if "error" in line), "no message")
            raise BuildError(f"{words[0]} cannot compile a program with <{header}> ({wrong.strip()}). {NEEDS}")


def split_flags(words: list[str]) -> MPIFlags:
    """Sort the options in the answer of ``mpicc -show`` into those for compiling and those for linking.  Local."""
    joined: list[str] = []
    for word in words:  # "-I dir" and "-Xlinker word" are two words for one option
        if joined and joined[-1] in ("-I", "-L", "-isystem", "-Xlinker"):
            joined[-1] += word if joined[-1] in ("-I", "-L") else " " + word
        else:
            joined.append(word)
    include_dirs = [word[2:] for word in joined if word.startswith("-I")]
    library_dirs = [word[2:] for word in joined if word.startswith("-L")]
    to_linker = [word for word in joined if word.startswith(("-L", "-l", "-Wl,", "-Xlinker ", "-pthread"))]
    to_compiler = [word for word in joined if word.startswith(("-D", "-U", "-f", "-m", "-pthread", "-isystem "))]
    for folder in library_dirs:
        if os.path.normpath(folder) not in _SYSTEM_LIBRARY_DIRS:
            to_linker.append(f"-Wl,-rpath,{folder}")
    return MPIFlags(
        include_dirs,
        [part for word in to_compiler for part in word.split(" ", 1)],
        [part for word in to_linker for part in word.split(" ", 1)],
    )


@functools.cache
def mpi_words(mpicc: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the command that `mpicc` would run; None if it does not say (a compiler that has MPI built in).  Local."""
    # Every MPICH, Intel MPI and Open MPI answers -show; a plain compiler does not know the option.
    shown = subprocess.run([*mpicc, "-show"], capture_output=True, text=True, check=False)
    words = shlex.split(shown.stdout) if shown.returncode == 0 else []
    return tuple(words) if any(word.startswith(("-l", "-L")) for word in words) else None


def mpi_flags(mpicc: list[str]) -> MPIFlags:
    """Return the options for the MPI of `mpicc`.  Local."""
    words = mpi_words(tuple(mpicc))
    if words is None:
        return MPIFlags([], [], [])
    first_option = next(index for index, word in enumerate(words) if word.startswith("-"))
    return split_flags(list(words[first_option:]))


def use_as_compiler(mpicc: list[str], environ: Any) -> None:
    """Make setuptools compile and link with `mpicc` itself, if it does not name its options.  Local."""
    if mpi_words(tuple(mpicc)) is None:
        command = shlex.join(mpicc)
        environ["CC"] = command
        environ["LDSHARED"] = f"{command} -shared"


def _builder(module: str, flags: MPIFlags) -> Any:
    import cffi

    root = Path(__file__).resolve().parent.parent
    builder = cffi.FFI()
    builder.cdef(extract_cdef((root / "csrc" / "dsm.h").read_text(encoding="utf-8")))
    builder.cdef("void dsm_exit_by_instance(uintptr_t function);")
    builder.set_source(
        module,
        '#include "dsm.h"\n#include "python/exit.h"',
        sources=core_sources(root),
        depends=["dsm/_core_build.py", *sorted(str(file.relative_to(root)) for file in (root / "csrc").rglob("*.h"))],
        # First, because setuptools adds <environment>/include, which may hold the mpi.h of an MPI wheel.
        include_dirs=[*flags.include_dirs, "csrc"],
        extra_compile_args=[
            "-std=c11",
            "-O2",
            "-g",
            "-pthread",
            "-fvisibility=hidden",
            "-Wall",
            "-Wextra",
            "-Wshadow",
            "-Werror=implicit-function-declaration",
            *flags.compile_args,
        ],
        extra_link_args=["-pthread", *flags.link_args],
    )
    return builder


def builder_mpich() -> Any:
    """Make cffi's builder of the core for MPICH and its derivatives.  Local."""
    return _builder("dsm._core_mpich", MPIFlags([], ["-DDSM_FOR_MPICH"], []))


def builder_openmpi() -> Any:
    """Make cffi's builder of the core for Open MPI.  Local."""
    return _builder("dsm._core_openmpi", MPIFlags([], ["-DDSM_FOR_OPEN_MPI"], []))


def builder_mpicc() -> Any:
    """Make cffi's builder of the core for the MPI of `MPICC`.  Local."""
    try:
        mpicc = find_mpicc(os.environ)
    except BuildError:
        mpicc = None  # `check` reports it before compiling; setup.py must be able to give the package's name before
    return _builder("dsm._core", mpi_flags(mpicc) if mpicc else MPIFlags([], [], []))


def builders(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the functions here that make builders, one for each core to compile.  Local."""
    return ["builder_mpicc"] if environ.get("MPICC", "").strip() else ["builder_mpich", "builder_openmpi"]


def preload_options() -> dict[str, Any]:
    """Return the options of setuptools for ``dsm._unmask``, which needs neither MPI nor Python.  Local."""
    return {
        "sources": ["csrc/preload/preload.c"],
        "extra_compile_args": ["-std=c11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wshadow"],
        "extra_link_args": ["-ldl", "-Wl,--as-needed"],
        "py_limited_api": True,  # gives the file its name
    }
