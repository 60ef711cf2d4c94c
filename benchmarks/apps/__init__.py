"""The applications, one file each: kernel, serial, mpi4py and dsm versions, verification, sizes."""

from __future__ import annotations

import importlib
import keyword
import pkgutil

from benchmarks.app import App


def modules() -> list[str]:
    """Name the files here, without importing them."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load() -> dict[str, App]:
    """Import all: the applications by their names, in the order of the files."""
    return {app.name: app for module in modules() for app in _apps_of(module)}


def load_one(name: str) -> App:
    """Import an application.  Its file is named as the part of its name before the hyphen."""
    module = name.partition("-")[0]
    module += "_" * keyword.iskeyword(module)
    return next(app for app in _apps_of(module) if app.name == name)


def _apps_of(module: str) -> tuple[App, ...]:
    found: tuple[App, ...] = importlib.import_module(f"{__name__}.{module}").APPS
    return found
