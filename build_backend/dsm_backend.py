"""The build backend: setuptools, with one more requirement where there is no MPI to compile for.

A user who has an MPI (``MPICC``, an mpicc beside python or on ``PATH``) compiles for that one, and nothing is
downloaded. Everybody else gets the mpich wheel into the build environment, which is why ``pip install ".[mpich]"``
works on a machine that has never heard of MPI.  A static list of requirements cannot say that.
"""

import importlib.util
import os
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - the hooks that are not changed here


def _core_build():
    path = Path(__file__).resolve().parent.parent / "dsm" / "_core_build.py"
    spec = importlib.util.spec_from_file_location("_core_build", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _mpi_requirement():
    core_build = _core_build()
    try:
        found = core_build.find_mpicc(os.environ)
    except core_build.BuildError as error:
        raise SystemExit(f"error: {error}") from None
    return [] if found else ["mpich"]


def get_requires_for_build_wheel(config_settings=None):
    """Add the mpich wheel when this machine has no mpicc."""
    return build_meta.get_requires_for_build_wheel(config_settings) + _mpi_requirement()


def get_requires_for_build_editable(config_settings=None):
    """Add the mpich wheel when this machine has no mpicc."""
    return build_meta.get_requires_for_build_editable(config_settings) + _mpi_requirement()
