"""What the tests of the machine layer share: its functions, compiled for Python."""

import pytest
from native import machine_build


@pytest.fixture(scope="module")
def machine():
    """Return cffi's (ffi, lib) of the layer; each state of the sources is compiled once."""
    directory = machine_build.directory()
    directory.mkdir(parents=True, exist_ok=True)
    return machine_build.load(directory)


@pytest.fixture
def ffi(machine):
    return machine[0]


@pytest.fixture
def lib(machine):
    return machine[1]
