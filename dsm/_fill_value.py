"""The value of `full`: its bytes, which the core puts into fresh pages, and its text, which the ranks compare."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from dsm._numpy import AnyArray


def fill_value_of(fill_value: object, dtype: np.dtype[Any]) -> AnyArray:
    """Convert a fill value to its dtype, as an array of one element; equal values have equal bytes.  Local."""
    value = np.zeros((), dtype if dtype.subdtype is None else dtype.subdtype[0])
    record = value.dtype.names is not None and isinstance(fill_value, tuple)
    if not record and np.ndim(fill_value) != 0:  # type: ignore[arg-type]
        raise ValueError(f"fill_value must be a scalar, not {type(fill_value).__name__}; dsm.array() takes arrays")
    value[()] = fill_value
    if value.itemsize:
        value.reshape(1).view(np.uint8)[~_significant_bytes(value.dtype)] = 0
    return value


def _significant_bytes(dtype: np.dtype[Any]) -> npt.NDArray[np.bool_]:
    """Mark the bytes of an item that make up its value; the others are padding, and hold anything."""
    if dtype.subdtype is not None:
        inner, lengths = dtype.subdtype
        return np.tile(_significant_bytes(inner), math.prod(lengths))
    significant = np.ones(dtype.itemsize, bool)
    if dtype.fields is not None:
        significant[:] = False
        for kind, offset, *_ in dtype.fields.values():
            significant[offset : offset + kind.itemsize] |= _significant_bytes(kind)
    elif dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63:  # 80 bits, in 12 or 16 bytes
        number = significant.reshape(-1, np.dtype(np.longdouble).itemsize)
        number[:, 10:] = False
        if dtype.byteorder == ">":
            number[:] = number[:, ::-1]
    return significant


def text_of(value: AnyArray) -> str:
    """Return a text that differs where the bytes of two values do.  Local."""

    def plain(item: object) -> object:  # the text of an array rounds
        if isinstance(item, tuple):
            return tuple(plain(part) for part in item)
        return item.tolist() if isinstance(item, np.ndarray) else item

    # The text of a record rounds, too; item() of a date does.
    text = str(plain(value.item()) if value.dtype.names else value[()])
    with np.errstate(invalid="ignore"):
        is_nan = not np.all(value == value)  # there are many NaNs, and one text for all
    return f"{text} (bytes {value.tobytes().hex()})" if is_nan else text
