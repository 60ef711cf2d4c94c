"""The types of arrays, and the one function that NumPy keeps in another place since version 2."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy.typing as npt

try:
    from numpy.lib.array_utils import byte_bounds
except ImportError:  # NumPy 1.26
    from numpy import byte_bounds  # type: ignore[attr-defined,no-redef]

__all__ = ["AnyArray", "ArrayT", "byte_bounds"]

AnyArray = npt.NDArray[Any]
ArrayT = TypeVar("ArrayT", bound=AnyArray)
