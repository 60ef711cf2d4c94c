"""The build backend: setuptools, which is asked only when the compiler is there.

What is missing is then one line, and not the last of forty that setuptools and the compiler have printed before.
"""

import importlib.util
import os
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - the hooks that are not changed here


def _check():
    path = Path(__file__).resolve().parent.parent / "dsm" / "_core_build.py"
    spec = importlib.util.spec_from_file_location("_core_build", path)
    core_build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(core_build)
    try:
        core_build.check(os.environ)
    except core_build.BuildError as error:
        raise SystemExit(f"error: {error}") from None


def get_requires_for_build_wheel(config_settings=None):
    """Say what is missing, before anything else is said."""
    _check()
    return build_meta.get_requires_for_build_wheel(config_settings)


def get_requires_for_build_editable(config_settings=None):
    """Say what is missing, before anything else is said."""
    _check()
    return build_meta.get_requires_for_build_editable(config_settings)
