"""The layout of a new array: the arguments of its call, checked before the rank sends any message.

The ranks must agree on the layout.  The core compares it between them in the form of the call's own text.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from dsm import _runtime
from dsm._named import check_name
from dsm._numpy import AnyArray
from dsm._settings import page_bytes_checked

ShapeLike = SupportsIndex | Sequence[SupportsIndex]


class Bare(str):
    """Text that `repr` shows without quotes."""

    __slots__ = ()

    def __new__(cls, value: object) -> Bare:
        return super().__new__(cls, str(value))

    def __repr__(self) -> str:
        return str(self)


def call_of(function: str, arguments: Mapping[str, object]) -> str:
    """Write a call with keyword arguments, as the user would read it.  Local."""
    return f"{function}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


@dataclass(frozen=True)
class Layout:
    """The shape, dtype, order, page size and name of an array, all checked."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str
    page_bytes: int
    name: str | None

    @property
    def items(self) -> int:
        """Elements of the array."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the array, without the rest of its last page."""
        return self.items * self.dtype.itemsize

    def call(self, function: str, **more: object) -> str:
        """Write the call of `function` that asks for this layout.  Local."""
        arguments = {"shape": self.shape, **more, "dtype": Bare(self.dtype), "order": self.order}
        return call_of(function, arguments | {"page_size": self.page_bytes, "name": self.name})


def layout_of(shape: ShapeLike, dtype: npt.DTypeLike, order: str, page_size: int | None, name: str | None) -> Layout:
    """Check the arguments of a call that makes an array; then start dsm if need be.  Collective."""
    lengths, kind = _shape_and_dtype(shape, dtype)
    check_order(order, "CF")
    check_keywords(page_size, name)
    return Layout(lengths, kind, order, page_bytes_or_default(page_size), name)


def bytes_of_layout(shape: ShapeLike, dtype: npt.DTypeLike) -> int:
    """Return the bytes that an array takes, or raise what `zeros` would.  Local."""
    lengths, kind = _shape_and_dtype(shape, dtype)
    return math.prod(lengths) * kind.itemsize


def check_keywords(page_size: int | None, name: str | None) -> None:
    """Check the two keywords that all functions that make arrays have in common.  Local."""
    check_name(name)
    if page_size is not None:
        page_bytes_checked(page_size, "page_size")


def page_bytes_or_default(page_size: int | None) -> int:
    """Return a keyword `page_size` in bytes; None stands for the page size of `init`.  Collective."""
    default = _runtime.started().settings.page_bytes
    return default if page_size is None else page_bytes_checked(page_size, "page_size")


def shareable(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return a dtype that shared memory can hold, or raise TypeError.  Local."""
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"dtype {kind} holds Python objects, which live in one process and cannot be shared")
    if kind.itemsize == 0 and kind.kind in "SU":
        return np.dtype((kind.type, 1))  # as numpy.zeros
    return kind


def check_order(order: str, allowed: str) -> None:
    """Raise ValueError unless the order is one of the allowed letters.  Local."""
    if not isinstance(order, str) or len(order) != 1 or order not in allowed:
        raise ValueError(f"order must be one of {', '.join(map(repr, allowed))}, not {order!r}")


def order_like(order: str, model: AnyArray) -> str:
    """Resolve the order "K": that of the model, as far as the model has one.  Local."""
    if order != "K":
        return order
    return "F" if model.flags.f_contiguous and not model.flags.c_contiguous else "C"


def _shape_and_dtype(shape: ShapeLike, dtype: npt.DTypeLike) -> tuple[tuple[int, ...], np.dtype[Any]]:
    lengths = _lengths(shape)
    kind = shareable(dtype)
    if kind.subdtype is not None:  # as NumPy, which moves the shape of a sub-array to the array
        kind, inner = kind.subdtype
        lengths += inner
    np.broadcast_to(np.zeros((), kind), lengths)  # NumPy's own limits on dimensions and bytes, without the bytes
    return lengths, kind


def _lengths(shape: ShapeLike) -> tuple[int, ...]:
    try:
        lengths: tuple[int, ...] = (operator.index(shape),)  # type: ignore[arg-type]
    except TypeError:
        if not np.iterable(shape):
            raise
        lengths = tuple(operator.index(length) for length in shape)
    if any(length < 0 for length in lengths):
        raise ValueError(f"negative dimensions are not allowed: shape={lengths}")
    return lengths
