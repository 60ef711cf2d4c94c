"""Shared arrays in .npy files; every rank writes or reads a part.

The kernel cannot fault pages in, so a rank pins the part that it gives to the kernel, a piece at a time.  A view whose
bytes are not contiguous is copied first, in small parts.  A saved file gets its name when it is complete.  A reader
finds the old file or the new one, also after a job that ended too early.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import stat
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from dsm import _runtime
from dsm._blocks import local, split
from dsm._creation import make
from dsm._exchange import ANSWER_BYTES_MAX, Exchange
from dsm._layout import bytes_of_layout, check_keywords
from dsm._numpy import AnyArray
from dsm._pin import pinned
from dsm._regions import discard, place_of

PIN_BYTES = 64 << 20  # pinned and given to the kernel at a time
COPY_BYTES = 16 << 20  # copied at a time
LENGTH_BYTES = 4  # of the header, in versions 2.0 and 3.0 of the format


# ---- parts of arrays -------------------------------------------------------------------------------------------------


def _in_file_order(a: AnyArray) -> AnyArray:
    """Return the view whose rows follow each other in the file; NumPy writes a Fortran-ordered array by columns."""
    columns_first = a.flags.f_contiguous and not a.flags.c_contiguous
    return np.atleast_1d(a.T if columns_first else a)


def _own_rows(a: AnyArray) -> tuple[AnyArray, int]:
    """Return this rank's block, and its offset in the data of the file, in bytes."""
    rows = _in_file_order(a)
    block = local(rows)
    first: int = split(len(rows)).start
    return block, first * (rows.nbytes // len(rows) if len(rows) else 0)


def _contiguous_or_small(block: AnyArray) -> Iterator[AnyArray]:
    """Divide a block, in order, into parts that are contiguous, or small enough for a copy."""
    if block.flags.c_contiguous or block.nbytes <= COPY_BYTES:
        yield block
    elif len(block) == 1:
        yield from _contiguous_or_small(block[0])
    else:
        yield from _contiguous_or_small(block[: len(block) // 2])
        yield from _contiguous_or_small(block[len(block) // 2 :])


def _bytes_of(part: AnyArray) -> Iterator[AnyArray]:
    """Divide the bytes of a contiguous array into pieces of the size that is pinned at a time."""
    if part.nbytes:
        all_bytes = part.reshape(-1).view(np.uint8)
        for at in range(0, len(all_bytes), PIN_BYTES):
            yield all_bytes[at : at + PIN_BYTES]


# ---- saving ----------------------------------------------------------------------------------------------------------


def _header(a: AnyArray) -> bytes:
    fields = npy.header_data_from_array_1_0(a)
    for write in (npy.write_array_header_1_0, npy.write_array_header_2_0):
        text = io.BytesIO()
        try:
            write(text, fields)
        except UnicodeEncodeError:  # only version 3.0 can hold such names
            return _header_3_0(fields)
        except ValueError:  # too long for this version
            continue
        return text.getvalue()
    raise ValueError("the dtype is too long for the header of an .npy file")


def _header_3_0(fields: dict[str, Any]) -> bytes:
    """Write a header of version 3.0, for which NumPy has no public function: as 2.0, but in UTF-8."""
    text = repr(dict(sorted(fields.items()))).encode()
    text += b" " * (-(npy.MAGIC_LEN + LENGTH_BYTES + len(text) + 1) % npy.ARRAY_ALIGN) + b"\n"
    return npy.magic(3, 0) + len(text).to_bytes(LENGTH_BYTES, "little") + text


@contextlib.contextmanager
def _errors_name(path: str) -> Iterator[None]:
    """Let errors of the system name the file that the user asked for, not the temporary one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _begin_file(path: str, header: bytes, bytes_: int) -> tuple[str, str]:
    """Make the file under a temporary name beside its own; return its future path and its present one."""
    with _errors_name(path):
        target = os.path.realpath(path)
        mode = os.stat(target).st_mode if os.path.lexists(target) else None
        if mode is not None and not stat.S_ISREG(mode):
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(number, "the path exists and is not a file")
        temporary = os.path.join(os.path.dirname(target), f".dsm-{secrets.token_hex(8)}.npy")
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            if mode is not None:
                os.fchmod(file, stat.S_IMODE(mode))
            _write(file, header, 0)
            os.ftruncate(file, len(header) + bytes_)
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(file)
    return target, temporary


def _write(file: int, data: memoryview | bytes, at: int) -> int:
    """Write all bytes; return where they end."""
    left = memoryview(data)
    while left:
        count = os.pwrite(file, left, at)
        left, at = left[count:], at + count
    return at


def _write_own_rows(a: AnyArray, temporary: str, at: int, path: str) -> None:
    block, offset = _own_rows(a)
    with _errors_name(path):
        file = os.open(temporary, os.O_WRONLY | os.O_CLOEXEC)
        try:
            _write_block(file, block, at + offset)
            os.fsync(file)  # the last chance for errors of a network or a quota
        finally:
            os.close(file)


def _write_block(file: int, block: AnyArray, at: int) -> None:
    for part in _contiguous_or_small(block):
        if part.flags.c_contiguous:
            for piece in _bytes_of(part):
                with pinned(piece, "r"):
                    at = _write(file, piece.data, at)
        else:
            for piece in _bytes_of(part.copy(order="C")):
                at = _write(file, piece.data, at)


def _rename(temporary: str, target: str, path: str) -> None:
    with _errors_name(path):
        os.replace(temporary, target)


def save(path: str | os.PathLike[str], a: AnyArray) -> None:
    """Write a shared array to a standard .npy file.  Collective.

    Each rank writes its block of the first axis (of the last axis, if the array is Fortran-ordered), with all that any
    rank wrote to it before this call.  The ranks write a file beside `path` under another name, and rename it when it
    is complete: `path` keeps its old content, or has all of `a`.  `numpy.load` reads the file.

    Parameters
    ----------
    path : str or path-like
        A file in a directory that all ranks see.  ".npy" is added if the name does not end so, as by `numpy.save`.
    a : numpy.ndarray
        A shared array or a view of one, the same on every rank; of any shape, strides and dtype.

    Raises
    ------
    ValueError
        `a` is not shared, an .npy file cannot describe its dtype, or ranks differ in an argument.
    TypeError
        `path` is not a path.
    OSError
        A rank cannot write its part.  Every rank raises, and `path` keeps its old content.

    Notes
    -----
    A job that ends during the call leaves a file ``.dsm-*.npy`` beside `path`.

    Examples
    --------
    >>> import dsm, os, tempfile
    >>> path = os.path.join(tempfile.gettempdir(), "example-of-dsm.npy")
    >>> dsm.save(path, dsm.ones((100, 3)))
    >>> float(dsm.load(path).sum())
    300.0
    >>> os.remove(path)
    """
    name = os.fsdecode(path)
    if not name.endswith(".npy"):
        name += ".npy"
    region, offset = place_of(a, "save")
    header = _header(a)
    runtime = _runtime.active()
    what = (
        f"save({name!r}, array of shape {a.shape}, strides {a.strides} and dtype {a.dtype} at byte {offset} of "
        f"allocation {region})"
    )
    with Exchange(runtime, f"save({name!r})", what) as exchange:
        target, temporary = exchange.first(lambda: _begin_file(name, header, a.nbytes))
        try:
            exchange.all(lambda: _write_own_rows(a, temporary, len(header), name))
            exchange.all((lambda: _rename(temporary, target, name)) if runtime.rank == 0 else None)
        except BaseException:
            if runtime.rank == 0:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
            raise


# ---- loading ---------------------------------------------------------------------------------------------------------


def _read_header_3_0(file: IO[bytes], max_header_size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read a header of version 3.0, for which NumPy has no public function: as 2.0, with non-ASCII letters escaped."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length > max_header_size:
        raise ValueError(f"the header has {length} bytes, more than the limit of {max_header_size}")
    text = file.read(length)
    if len(text) < length:
        raise ValueError(f"EOF in the header, after {len(text)} of {length} bytes")
    try:
        text = text.decode().encode("ascii", "backslashreplace")
    except UnicodeDecodeError as error:
        raise ValueError(f"the header is not text: {error}") from None
    as_2_0 = io.BytesIO(len(text).to_bytes(LENGTH_BYTES, "little") + text)
    shape, columns_first, dtype = npy.read_array_header_2_0(as_2_0, max_header_size=len(text))
    return shape, columns_first, dtype


HEADER_READERS: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
    (3, 0): _read_header_3_0,
}


@dataclass(frozen=True)
class _Found:
    """The array in a file, and the offset of its data there."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str
    at: int


def _look_at(path: str) -> _Found:
    """Read the header; raise an error for a file that cannot be loaded."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, "is not a file", path)
    with open(path, "rb") as file:
        version = npy.read_magic(file)
        if version not in HEADER_READERS:
            raise ValueError(f"{path} has version {version} of the .npy format; dsm reads versions 1.0, 2.0 and 3.0")
        try:
            shape, columns_first, dtype = HEADER_READERS[version](file, max_header_size=ANSWER_BYTES_MAX)
        except (SyntaxError, tokenize.TokenError) as error:  # NumPy does not turn these into a ValueError
            raise ValueError(f"{path} is damaged: its header cannot be read: {error}") from None
        found = _Found(os.path.abspath(path), shape, dtype, "F" if columns_first else "C", file.tell())
        there = os.fstat(file.fileno()).st_size
    needed = found.at + bytes_of_layout(shape, dtype)
    if there < needed:
        raise ValueError(f"{path} is damaged: it has {there} bytes, but its header describes {needed}")
    return found


def _read(file: int, data: memoryview, at: int) -> int:
    """Fill all bytes; return where they end in the file."""
    left = data
    while left:
        count = os.preadv(file, [left], at)
        if count == 0:
            raise ValueError("the file became shorter while it was read")
        left, at = left[count:], at + count
    return at


def _read_own_rows(a: AnyArray, found: _Found) -> None:
    block, offset = _own_rows(a)
    at = found.at + offset
    file = os.open(found.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for piece in _bytes_of(block):
            with pinned(piece, "w"):
                at = _read(file, piece.data, at)
    finally:
        os.close(file)


def load(path: str | os.PathLike[str], *, page_size: int | None = None, name: str | None = None) -> AnyArray:
    """Make a shared array from a standard .npy file.  Collective.

    Each rank reads its block of the first axis (of the last axis, if the array is Fortran-ordered).  The file may come
    from `save` or from `numpy.save`.

    Parameters
    ----------
    path : str or path-like
        A file that all ranks see.
    page_size, name
        As for `zeros`.

    Returns
    -------
    numpy.ndarray
        With the shape, dtype and order of the file; every rank sees the content.

    Raises
    ------
    ValueError
        The file is not an .npy file or is damaged; or the page size is not possible, or ranks differ in an argument.
    TypeError
        The file holds Python objects, or `path` is not a path.
    OSError
        A rank cannot read its part.
    MemoryError
        As `zeros`.

    Notes
    -----
    Every rank raises an error of any rank, and then nothing stays allocated.
    """
    file = os.fsdecode(path)
    check_keywords(page_size, name)
    runtime = _runtime.started()
    label = f"load({file!r})"
    what = f"load({file!r}, page_size={page_size!r}, name={name!r})"
    with Exchange(runtime, label, what) as exchange:
        found = exchange.first(lambda: _look_at(file))
        made = make("load", found.shape, found.dtype, found.order, page_size, name)
        try:
            exchange.all(lambda: _read_own_rows(made, found))
        except Exception:
            discard(made, label)
            raise
    return made
