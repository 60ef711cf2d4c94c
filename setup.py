"""Compile the C core with the MPI that the user has; all else about the package is in pyproject.toml."""

import importlib.util
import os
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

# By its path: the package itself cannot be imported before it is built.
_spec = importlib.util.spec_from_file_location(
    "_core_build", Path(__file__).resolve().parent / "dsm" / "_core_build.py"
)
core_build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(core_build)


class BuildCore(build_ext):
    """Say what is missing before the compiler says that there is no mpi.h."""

    def run(self):
        try:
            mpicc = core_build.find_mpicc(os.environ)
        except core_build.BuildError as error:
            raise SystemExit(f"error: {error}") from None
        if mpicc is None:
            raise SystemExit(f"error: {core_build.NO_MPI}")
        print(f"compiling dsm._core with the MPI of {' '.join(mpicc)}", file=sys.stderr)
        core_build.use_as_compiler(mpicc, os.environ)
        self.force = True  # what lies in build/ may have been compiled for another MPI, and looks up to date
        super().run()


setup(cffi_modules=["dsm/_core_build.py:ffibuilder"], cmdclass={"build_ext": BuildCore})
