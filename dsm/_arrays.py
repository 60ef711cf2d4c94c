"""Shared arrays: plain NumPy arrays over regions of the core, and what can be asked and done about them.

NumPy makes the base of a view of a view the array at the end of the chain.  So every region has one hidden array, its
root, which becomes the base of every array over the region, and the reference count of the root counts those arrays:
that is how `free` knows that others are alive, and how the core learns that the last one is gone (the root's own end).
The root has the size and dtype of what `zeros` returns, in one dimension: there are libraries that compare an array
with its base (scipy.sparse copies an array of less than half the size).  Some holders hide behind an array that is
counted already: views of another class (recarray, masked arrays) and whatever took the buffer (memoryview, DLPack,
as_strided).  They keep the addresses from being used again, but do not stop `free`.

What ranks must agree on goes into the core as the call's own text (`what`), which it compares.
"""

from __future__ import annotations

import gc
import math
import operator
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, SupportsIndex, TypeVar

import numpy as np
import numpy.typing as npt

from dsm import _runtime
from dsm._exchange import Exchange, allocate_region
from dsm._holders import NAME_CHARACTERS_MAX, holders
from dsm._runtime import Runtime
from dsm._settings import PAGE_BYTES_MIN, page_bytes_checked

try:
    from numpy.lib.array_utils import byte_bounds
except ImportError:  # NumPy 1.26
    from numpy import byte_bounds  # type: ignore[attr-defined,no-redef]

AnyArray = npt.NDArray[Any]
ShapeLike = SupportsIndex | Sequence[SupportsIndex]
ArrayT = TypeVar("ArrayT", bound=AnyArray)

OTHERS_NAMED = 3  # arrays that stand in the way of free()
OWNER_PAGES_MAX = 1 << 16  # looked at by info(); about 50 ms


@dataclass
class _Region:
    """A region that zeros and the like made: until it is freed, and then until no array over it is left here."""

    id: int
    address: int
    bytes: int
    page_bytes: int
    pages: int
    name: str | None
    label: str
    items: int
    dtype: np.dtype[Any]
    root: weakref.ref[AnyArray] = field(init=False)
    freed: bool = False


@dataclass(frozen=True)
class _Layout:
    """A checked request for an array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str
    page_bytes: int
    name: str | None

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def call(self, function: str, **more: object) -> str:
        """The call as the user would read it."""
        fields = {"shape": self.shape, **more, "dtype": _Bare(self.dtype), "order": self.order}
        fields |= {"page_size": self.page_bytes, "name": self.name}
        return _call(function, fields)


class _Bare(str):
    """Text that is shown without quotes."""

    __slots__ = ()

    def __new__(cls, value: object) -> _Bare:
        return super().__new__(cls, str(value))

    def __repr__(self) -> str:
        return str(self)


def _call(function: str, fields: dict[str, object]) -> str:
    return f"{function}({', '.join(f'{key}={value!r}' for key, value in fields.items())})"


_regions: dict[int, _Region] = {}


# ---- arguments -------------------------------------------------------------------------------------------------------


def _shape(shape: ShapeLike) -> tuple[int, ...]:
    try:
        lengths: tuple[int, ...] = (operator.index(shape),)  # type: ignore[arg-type]
    except TypeError:
        if not np.iterable(shape):
            raise
        lengths = tuple(operator.index(length) for length in shape)
    if any(length < 0 for length in lengths):
        raise ValueError(f"negative dimensions are not allowed: shape={lengths}")
    return lengths


def _shareable(dtype: npt.DTypeLike) -> np.dtype[Any]:
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"dtype {kind} holds Python objects, which live in one process and cannot be shared")
    if kind.itemsize == 0 and kind.kind in "SU":
        return np.dtype((kind.type, 1))  # as numpy.zeros
    return kind


def _page_bytes(page_size: int | None, runtime: Runtime) -> int:
    return runtime.settings.page_bytes if page_size is None else page_bytes_checked(page_size, "page_size")


def check_name(name: str | None) -> str | None:
    """Check what a user calls a thing.  Local."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name must be a string, not {type(name).__name__}")
    if name is not None and "\0" in name:
        raise ValueError(f"name holds a null character: {name!r}")
    return name


def _order(order: str, allowed: str) -> str:
    if not isinstance(order, str) or len(order) != 1 or order not in allowed:
        raise ValueError(f"order must be one of {', '.join(map(repr, allowed))}, not {order!r}")
    return order


def _keep(order: str, of: AnyArray) -> str:
    """Resolve "K", the order of another array as far as there is one."""
    if order != "K":
        return order
    return "F" if of.flags.f_contiguous and not of.flags.c_contiguous else "C"


def _possible(shape: ShapeLike, dtype: npt.DTypeLike) -> tuple[tuple[int, ...], np.dtype[Any]]:
    lengths = _shape(shape)
    kind = _shareable(dtype)
    if kind.subdtype is not None:  # as NumPy, which moves the shape of a sub-array to the array
        kind, inner = kind.subdtype
        lengths += inner
    np.broadcast_to(np.zeros((), kind), lengths)  # NumPy's own limits on dimensions and bytes, without the bytes
    return lengths, kind


def bytes_of_layout(shape: ShapeLike, dtype: npt.DTypeLike) -> int:
    """Return the bytes that an array takes, or raise what `zeros` would.  Local."""
    lengths, kind = _possible(shape, dtype)
    return math.prod(lengths) * kind.itemsize


def check_keywords(page_size: int | None, name: str | None) -> None:
    """Check what every function that makes arrays takes.  Local."""
    check_name(name)
    if page_size is not None:
        page_bytes_checked(page_size, "page_size")


def _layout(
    shape: ShapeLike, dtype: npt.DTypeLike, order: str, page_size: int | None, name: str | None
) -> tuple[Runtime, _Layout]:
    """Check everything that can be checked here, before any message; then start if need be."""
    lengths, kind = _possible(shape, dtype)
    _order(order, "CF")
    check_keywords(page_size, name)
    runtime = _runtime.started()
    return runtime, _Layout(lengths, kind, order, _page_bytes(page_size, runtime), name)


# ---- regions ---------------------------------------------------------------------------------------------------------


def _root_references(root: weakref.ref[AnyArray]) -> int:
    array = root()
    return 0 if array is None else sys.getrefcount(array)


def _measure_idle_references() -> int:
    root = np.zeros(1, np.uint8)
    weak, views = weakref.ref(root), [root[:]]
    del root
    return _root_references(weak) - len(views)


_IDLE_REFERENCES = _measure_idle_references()  # what the interpreter adds; differs between its versions


def _arrays_alive(region: _Region) -> int:
    """Count the arrays over a region on this rank."""
    return max(0, _root_references(region.root) - _IDLE_REFERENCES)


def _forget(region: _Region) -> None:
    """Called at the end of a root: the last array over the region is gone."""
    if region.freed and _regions.pop(region.id, None) is not None and _runtime.is_active():
        runtime = _runtime.active()
        runtime.check(runtime.lib.dsm_forget(region.id))


def _allocate(runtime: Runtime, layout: _Layout, what: str, function: str, initial: bytes | None = None) -> AnyArray:
    label = layout.name
    if label is None:
        label = f"{function}({layout.shape}, {layout.dtype})"
        what = runtime.made_here(what)
    made = allocate_region(runtime, layout.bytes, layout.page_bytes, what, label, initial)
    region = _Region(
        id=int(made.id),
        address=int(runtime.ffi.cast("uintptr_t", made.address)),
        bytes=layout.bytes,
        page_bytes=int(made.page_bytes),
        pages=int(made.pages),
        name=layout.name,
        label=label,
        items=math.prod(layout.shape),
        dtype=layout.dtype,
    )
    _regions[region.id] = region
    order: Any = layout.order
    return _new_root(runtime, region).reshape(layout.shape, order=order)


def _new_root(runtime: Runtime, region: _Region) -> AnyArray:
    memory = runtime.ffi.buffer(runtime.ffi.cast("char *", region.address), max(region.bytes, 1))
    root: AnyArray = np.ndarray(region.items, region.dtype, memory)
    region.root = weakref.ref(root)
    weakref.finalize(root, _forget, region).atexit = False
    return root


def root_of_region(number: int) -> AnyArray | None:
    """Return the base of all arrays over a region, or None if it is not here or was freed.  Local."""
    region = _regions.get(number)
    if region is None or region.freed:
        return None
    root = region.root()
    return _new_root(_runtime.active(), region) if root is None else root  # no array is left here, and it lives on


def place_of(a: AnyArray, function: str) -> tuple[int, int]:
    """Return the number of an array's region, and the offset of its first element there, in bytes.  Local."""
    region = _shared_region(a, function)
    return region.id, int(a.__array_interface__["data"][0]) - region.address


def region_labels() -> dict[int, str]:
    """Name every region that is not freed, each name once.  Local."""
    living = [region for region in list(_regions.values()) if not region.freed]
    labels = [region.label for region in living]
    return {
        region.id: region.label if labels.count(region.label) == 1 else f"{region.label} #{region.id}"
        for region in living
    }


def _root_of(a: AnyArray) -> AnyArray:
    while isinstance(a.base, np.ndarray):
        a = a.base
    return a


def _region_of(a: object) -> _Region | None:
    """Find the region that an array lies in."""
    if not isinstance(a, np.ndarray) or not _regions:
        return None
    # Of no elements, it may begin one past the end of its region.
    address = byte_bounds(_root_of(a) if a.size == 0 else a)[0]
    runtime = _runtime.active()
    found = runtime.ffi.new("struct dsm_region *")
    if runtime.lib.dsm_region_of(runtime.ffi.cast("void *", address), found) != runtime.lib.DSM_OK:
        return None
    region = _regions.get(int(found.id))
    return None if region is None or region.freed else region


def label_of(a: object) -> str | None:
    """Return what messages call the shared array that `a` is a part of; None when it is no such thing.  Local."""
    region = _region_of(a) if _runtime.is_active() else None
    return None if region is None else region.label


def _shared_region(a: object, function: str) -> _Region:
    _runtime.refuse_if_ended()
    region = _region_of(a)
    if region is None:
        what = f"an array of shape {a.shape}" if isinstance(a, np.ndarray) else f"an object of type {type(a).__name__}"
        raise ValueError(f"dsm.{function}: {what} is not in shared memory (or was freed)")
    return region


def page_bytes_of(a: AnyArray, function: str) -> int:
    """Return the page size of the array that a shared array is a part of, in bytes.  Local."""
    return _shared_region(a, function).page_bytes


# ---- making arrays ---------------------------------------------------------------------------------------------------


def make(
    function: str, shape: ShapeLike, dtype: npt.DTypeLike, order: str, page_size: int | None, name: str | None
) -> AnyArray:
    """Make a shared array of zeros for `function`.  Collective."""
    runtime, layout = _layout(shape, dtype, order, page_size, name)
    return _allocate(runtime, layout, layout.call(function), function)


def zeros(
    shape: ShapeLike,
    dtype: npt.DTypeLike = float,
    *,
    order: str = "C",
    page_size: int | None = None,
    name: str | None = None,
) -> AnyArray:
    """Make a shared array of zeros, at the same address on every rank.  Collective.

    The result is a plain `numpy.ndarray`; so are its views, and what NumPy computes from it is private as usual.  Pages
    are made where they are touched, so the array may be larger than the memory of one rank.  Its memory lasts until
    `free` or `finalize`, whatever becomes of the array object.

    Parameters
    ----------
    shape : int or sequence of int
        Lengths of the dimensions; () and lengths of 0 are allowed.
    dtype : data-type, optional
        Anything without Python objects in it.
    order : {"C", "F"}, optional
        Row-major or column-major.
    page_size : int, optional
        Unit of coherence in bytes: a power of two from 4096 to 64 MiB.  Default: that of `init`.
    name : str, optional
        For messages and statistics.

    Returns
    -------
    numpy.ndarray
        Of shape `shape`.

    Raises
    ------
    ValueError
        The shape is negative or too large, the page size or order is not possible; or ranks differ in any argument, in
        which case every rank raises and nothing is allocated.
    TypeError
        The dtype holds Python objects.
    MemoryError
        The address range or the machine's memory is exhausted.

    Examples
    --------
    >>> import dsm
    >>> a = dsm.zeros((1000, 3), order="F", name="positions")
    >>> a.shape, float(a.sum())
    ((1000, 3), 0.0)
    """
    return make("zeros", shape, dtype, order, page_size, name)


def empty(
    shape: ShapeLike,
    dtype: npt.DTypeLike = float,
    *,
    order: str = "C",
    page_size: int | None = None,
    name: str | None = None,
) -> AnyArray:
    """Make a shared array whose content does not matter.  Collective.

    It is zero all the same: fresh pages cost nothing.

    Parameters
    ----------
    shape, dtype, order, page_size, name
        As for `zeros`.

    Returns
    -------
    numpy.ndarray
        Of shape `shape`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `zeros`.
    """
    return make("empty", shape, dtype, order, page_size, name)


def ones(
    shape: ShapeLike,
    dtype: npt.DTypeLike = float,
    *,
    order: str = "C",
    page_size: int | None = None,
    name: str | None = None,
) -> AnyArray:
    """Make a shared array of ones.  Collective.

    Parameters
    ----------
    shape, dtype, order, page_size, name
        As for `zeros`.

    Returns
    -------
    numpy.ndarray
        Of shape `shape`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `zeros`.

    Notes
    -----
    As for `full`.
    """
    return _filled("ones", shape, 1, dtype, order, page_size, name)


def full(
    shape: ShapeLike,
    fill_value: object,
    dtype: npt.DTypeLike | None = None,
    *,
    order: str = "C",
    page_size: int | None = None,
    name: str | None = None,
) -> AnyArray:
    """Make a shared array that holds one value everywhere.  Collective.

    Parameters
    ----------
    shape, order, page_size, name
        As for `zeros`.
    fill_value : scalar
        The value, or a tuple of fields for a structured dtype.  An array is not taken; see `array`.
    dtype : data-type, optional
        Default: that of `fill_value`, as in `numpy.full`.

    Returns
    -------
    numpy.ndarray
        Of shape `shape`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `zeros`; ranks may not differ in `fill_value` either, and it must fit the dtype.

    Notes
    -----
    The value is what fresh pages hold, so no page is written and nothing is sent.  Items whose size is not a power of
    two up to 4096 bytes (a structured dtype of 24 bytes, say) do not repeat from page to page; then every rank writes
    its block, `dsm.split` of all items.

    Examples
    --------
    >>> import dsm
    >>> dsm.full(3, 7, dtype="int32").tolist()
    [7, 7, 7]
    """
    if dtype is None:
        dtype = np.asarray(fill_value).dtype
    return _filled("full", shape, fill_value, dtype, order, page_size, name)


def _filled(
    function: str,
    shape: ShapeLike,
    fill_value: object,
    dtype: npt.DTypeLike,
    order: str,
    page_size: int | None,
    name: str | None,
) -> AnyArray:
    kind = _shareable(dtype)
    value = np.zeros((), kind if kind.subdtype is None else kind.subdtype[0])
    record = value.dtype.names is not None and isinstance(fill_value, tuple)
    if not record and np.ndim(fill_value) != 0:  # type: ignore[arg-type]
        raise ValueError(f"fill_value must be a scalar, not {type(fill_value).__name__}; dsm.array() takes arrays")
    value[()] = fill_value
    _clear_padding(value)
    runtime, layout = _layout(shape, kind, order, page_size, name)
    more = {} if function == "ones" else {"fill_value": _Bare(_shown(value))}
    what = layout.call(function, **more)
    pattern = value.tobytes()
    if not any(pattern):
        return _allocate(runtime, layout, what, function)
    if PAGE_BYTES_MIN % len(pattern) == 0:
        return _allocate(runtime, layout, what, function, pattern)
    array = _allocate(runtime, layout, what, function)
    flat = array.reshape(-1, order="F" if layout.order == "F" else "C")
    flat[split(flat.size)] = value
    _runtime.barrier()
    return array


def _bytes_meant(dtype: np.dtype[Any]) -> npt.NDArray[np.bool_]:
    """Tell which bytes of an item are its value; the others are padding, and hold anything."""
    if dtype.subdtype is not None:
        inner, lengths = dtype.subdtype
        return np.tile(_bytes_meant(inner), math.prod(lengths))
    meant = np.ones(dtype.itemsize, bool)
    if dtype.fields is not None:
        meant[:] = False
        for kind, offset, *_ in dtype.fields.values():
            meant[offset : offset + kind.itemsize] |= _bytes_meant(kind)
    elif dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63:  # 80 bits, in 12 or 16 bytes
        number = meant.reshape(-1, np.dtype(np.longdouble).itemsize)
        number[:, 10:] = False
        if dtype.byteorder == ">":
            number[:] = number[:, ::-1]
    return meant


def _clear_padding(value: AnyArray) -> None:
    """Make equal values equal bytes: that is how the core compares them."""
    if value.itemsize:
        value.reshape(1).view(np.uint8)[~_bytes_meant(value.dtype)] = 0


def _shown(value: AnyArray) -> str:
    """Return a text that differs where the bytes of values do."""

    def plain(item: object) -> object:  # the text of an array rounds
        if isinstance(item, tuple):
            return tuple(plain(part) for part in item)
        return item.tolist() if isinstance(item, np.ndarray) else item

    # The text of a record rounds, too; item() of a date does.
    text = str(plain(value.item()) if value.dtype.names else value[()])
    with np.errstate(invalid="ignore"):
        is_nan = not np.all(value == value)  # there are many
    return f"{text} (bytes {value.tobytes().hex()})" if is_nan else text


def zeros_like(
    prototype: npt.ArrayLike,
    dtype: npt.DTypeLike | None = None,
    *,
    order: str = "K",
    page_size: int | None = None,
    name: str | None = None,
) -> AnyArray:
    """Make a shared array of zeros with the shape and dtype of another array.  Collective.

    Parameters
    ----------
    prototype : array_like
        Shared or not; its shape and dtype must be the same on every rank.
    dtype : data-type, optional
        Default: that of `prototype`.
    order : {"K", "C", "F"}, optional
        "K" keeps column-major order where `prototype` has it.
    page_size, name
        As for `zeros`; those of `prototype` are not taken over.

    Returns
    -------
    numpy.ndarray
        Of the shape of `prototype`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `zeros`.
    """
    return _like("zeros_like", prototype, dtype, order, page_size, name)


def empty_like(
    prototype: npt.ArrayLike,
    dtype: npt.DTypeLike | None = None,
    *,
    order: str = "K",
    page_size: int | None = None,
    name: str | None = None,
) -> AnyArray:
    """Make a shared array with the shape and dtype of another, whose content does not matter.  Collective.

    Parameters
    ----------
    prototype, dtype, order, page_size, name
        As for `zeros_like`.

    Returns
    -------
    numpy.ndarray
        Of the shape of `prototype`.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `zeros`.
    """
    return _like("empty_like", prototype, dtype, order, page_size, name)


def _like(
    function: str,
    prototype: npt.ArrayLike,
    dtype: npt.DTypeLike | None,
    order: str,
    page_size: int | None,
    name: str | None,
) -> AnyArray:
    model = np.asarray(prototype)
    order = _keep(_order(order, "KCF"), model)
    return make(function, model.shape, model.dtype if dtype is None else dtype, order, page_size, name)


def array(
    obj: npt.ArrayLike | None,
    dtype: npt.DTypeLike | None = None,
    *,
    order: str = "K",
    page_size: int | None = None,
    name: str | None = None,
) -> AnyArray:
    """Make a shared array with the content that rank 0 gives.  Collective.

    Parameters
    ----------
    obj : array_like
        Looked at on rank 0 only; the other ranks may pass None.
    dtype : data-type, optional
        Default: that of `obj`.
    order : {"K", "C", "F"}, optional
        "K" keeps column-major order where `obj` has it.
    page_size, name
        As for `zeros`.

    Returns
    -------
    numpy.ndarray
        Of the shape of `obj` on rank 0; the content is visible to every rank.

    Raises
    ------
    ValueError, TypeError
        Rank 0 cannot make an array of `obj`, or it holds Python objects: raised on every rank.  Or as `zeros`.
    MemoryError
        As `zeros`.

    Examples
    --------
    >>> import dsm
    >>> a = dsm.array([[1, 2], [3, 4]] if dsm.rank() == 0 else None)
    >>> a.tolist()
    [[1, 2], [3, 4]]
    """
    wanted = None if dtype is None else _shareable(dtype)
    _order(order, "KCF")
    check_keywords(page_size, name)
    runtime = _runtime.started()
    fields: dict[str, object] = {"dtype": None if wanted is None else _Bare(wanted), "order": order}
    fields |= {"page_size": _page_bytes(page_size, runtime), "name": name}
    source: AnyArray | None = None

    def look() -> tuple[tuple[int, ...], np.dtype[Any], str]:
        nonlocal source
        source = np.asarray(obj, wanted)
        return source.shape, _shareable(source.dtype), _keep(order, source)

    with Exchange(runtime, "array()", _call("array", fields)) as exchange:
        shape, kind, kept_order = exchange.first(look)
    made = make("array", shape, kind, kept_order, page_size, name)
    if source is not None:
        made[...] = source
    _runtime.barrier()
    return made


def free(a: AnyArray) -> None:
    """Give the memory of a shared array back.  Collective.

    `a` must be the only array over that memory, on every rank; it may be a view of what `zeros` returned.  Touching it
    afterwards ends the program with a message that names it.

    Parameters
    ----------
    a : numpy.ndarray
        A shared array, the same on every rank.

    Raises
    ------
    BufferError
        Other arrays over the memory are alive on some rank; raised on every rank, and the memory stays.  The text names
        the rank, and the variables there as far as Python knows them.
    ValueError
        `a` is not shared, or ranks free different arrays.

    Notes
    -----
    What a memoryview, a DLPack consumer, `numpy.lib.stride_tricks.as_strided` or a view of another class (recarray,
    masked array) holds cannot be counted.  The addresses are not used again while such a holder is alive, though.

    Examples
    --------
    >>> import dsm
    >>> a = dsm.zeros(1000)
    >>> dsm.free(a)
    """
    region = _shared_region(a, "free")
    runtime = _runtime.active()
    refusal = runtime.ffi.NULL
    if _arrays_alive(region) > 1:
        gc.collect()  # what only a circle of dead objects holds is in nobody's way
        if others := _arrays_alive(region) - 1:
            refusal = runtime.ffi.new("char[]", _others_text(region, id(a), others).encode(errors="replace"))
    what = runtime.ffi.new(
        "char[]", f"free({region.label} #{region.id})".encode()
    )  # the label of others may be the same
    runtime.wait(lambda slice_s: runtime.lib.dsm_free(region.id, refusal, what, slice_s))
    region.freed = True  # _forget follows when `a` ends


def _others_text(region: _Region, freed: int, others: int) -> str:
    """Say how many other arrays there are, and where; holds on to none of them."""
    root = region.root()

    def is_other(thing: object) -> bool:
        return type(thing) is np.ndarray and thing.base is root and id(thing) != freed

    names = holders(is_other, min(others, OTHERS_NAMED))
    label = region.label[:NAME_CHARACTERS_MAX]  # there are dtypes of a thousand fields
    arrays = "1 other array" if others == 1 else f"{others} other arrays"
    if not names:
        return f"has {arrays} over {label}, to which no variable leads that Python knows of"
    more = f" and {others - len(names)} more" if others > len(names) else ""
    return f"has {arrays} over {label}, to be deleted first: {', '.join(names)}{more}"


def discard(a: AnyArray, what: str) -> None:
    """Give memory back that the program has not seen yet, whatever looks at it (an exception's frames).  Collective."""
    region = _shared_region(a, what)
    runtime = _runtime.active()
    done = runtime.ffi.new("char[]", what.encode(errors="replace"))
    runtime.wait(lambda slice_s: runtime.lib.dsm_free(region.id, runtime.ffi.NULL, done, slice_s))
    region.freed = True


# ---- blocks ----------------------------------------------------------------------------------------------------------


def split(n: SupportsIndex, parts: SupportsIndex | None = None, index: SupportsIndex | None = None) -> slice:
    """Return the block of ``range(n)`` that belongs to one of several parts.  Local.

    Blocks are contiguous, in order, and differ by at most one in length; the longer ones come first.

    Parameters
    ----------
    n : int
        Number of items, 0 or more.
    parts : int, optional
        Number of blocks.  Default `size`.
    index : int, optional
        Which block, from 0.  Default `rank`.

    Returns
    -------
    slice
        With start and stop; empty if there are more parts than items.

    Raises
    ------
    ValueError
        `n` is negative, `parts` is not positive, or `index` is not one of the parts.

    Examples
    --------
    >>> import dsm
    >>> [dsm.split(10, 3, index) for index in range(3)]
    [slice(0, 4, None), slice(4, 7, None), slice(7, 10, None)]
    """
    items = operator.index(n)
    blocks = _runtime.size() if parts is None else operator.index(parts)
    block = _runtime.rank() if index is None else operator.index(index)
    if items < 0:
        raise ValueError(f"n must be 0 or more, not {items}")
    if blocks < 1:
        raise ValueError(f"parts must be 1 or more, not {blocks}")
    if not 0 <= block < blocks:
        raise ValueError(f"index must be from 0 to {blocks - 1}, not {block}")
    length, longer = divmod(items, blocks)
    start = block * length + min(block, longer)
    return slice(start, start + length + (block < longer))


def local(a: AnyArray, axis: int = 0) -> AnyArray:
    """Return this rank's block of an array, a view.  Local.

    Parameters
    ----------
    a : numpy.ndarray
        Shared or not.
    axis : int, optional
        The dimension that is split among the ranks, as `split` does; negative counts from the last.

    Returns
    -------
    numpy.ndarray
        A view of `a`, shorter along `axis`.

    Raises
    ------
    ValueError
        `a` has no such axis.

    Examples
    --------
    >>> import dsm
    >>> a = dsm.zeros((100, 10))
    >>> dsm.local(a)[...] = dsm.rank()
    """
    if not isinstance(a, np.ndarray):
        raise TypeError(f"dsm.local takes an array, not {type(a).__name__}")
    dimension = operator.index(axis)
    if not -a.ndim <= dimension < a.ndim:
        raise ValueError(f"axis {dimension} is out of bounds for an array of {a.ndim} dimensions")
    dimension %= a.ndim
    return a[(slice(None),) * dimension + (split(a.shape[dimension]),)]


# ---- pinning ---------------------------------------------------------------------------------------------------------


def pinned(view: ArrayT, mode: str = "r") -> AbstractContextManager[ArrayT]:
    """Keep a view resident and accessible to the kernel and to MPI.  Local.

    Protected pages fault when the program touches them, but fail when the kernel does: read, write, `numpy.save`,
    `tofile`, sockets and MPI return EFAULT or short counts.  Within the block they do not.

    Parameters
    ----------
    view : numpy.ndarray
        A shared array or a part of one.  All bytes from its first to its last are pinned, the gaps of a strided view
        included.
    mode : {"r", "w", "rw"}
        "r" when it will only be read, "w" or "rw" when it will be written.

    Returns
    -------
    context manager
        Whose value is `view`.

    Raises
    ------
    ValueError
        `view` is not shared, or `mode` is none of the three.
    MemoryError
        The machine's memory is exhausted.

    Examples
    --------
    >>> import dsm, io
    >>> a = dsm.ones(4)
    >>> with dsm.pinned(a, "r") as view:
    ...     io.BytesIO().write(view)
    32
    """
    if mode not in ("r", "w", "rw"):
        raise ValueError(f"mode must be 'r', 'w' or 'rw', not {mode!r}")
    _shared_region(view, "pinned")
    return _pinned(view, "w" in mode)


@contextmanager
def _pinned(view: ArrayT, write: bool) -> Iterator[ArrayT]:
    if view.size == 0:
        yield view
        return
    runtime = _runtime.active()
    low, high = byte_bounds(view)
    address = runtime.ffi.cast("void *", low)
    runtime.check(runtime.lib.dsm_pin(address, high - low, write))
    try:
        yield view
    finally:
        runtime.check(runtime.lib.dsm_unpin(address, high - low, write))


# ---- insight ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Info:
    """What is known about a shared array, or a view of one, on this rank.

    Attributes
    ----------
    name : str or None
        As given to `zeros`.
    nbytes : int
        Bytes of the whole allocation.
    page_size : int
        Its unit of coherence, bytes.
    pages : int
        Pages of the whole allocation.
    first_page, last_page : int
        Pages that the view reaches, both included, counted from the start of the allocation.  An empty view
        has ``last_page == first_page - 1``.
    owners : tuple of (int, int, int or None)
        Runs (first page, last page, rank) over the view's pages: the rank that is asked for a page when no copy is
        here, None where nobody wrote yet.  At most the first 65,536 pages of the view.
    """

    name: str | None
    nbytes: int
    page_size: int
    pages: int
    first_page: int
    last_page: int
    owners: tuple[tuple[int, int, int | None], ...]


def info(a: AnyArray) -> Info:
    """Tell what is known about a shared array.  Local.

    Parameters
    ----------
    a : numpy.ndarray
        A shared array or a view of one.

    Returns
    -------
    Info
        Name, bytes, page size, the pages that `a` reaches and their owners.

    Raises
    ------
    ValueError
        `a` is not shared.

    Examples
    --------
    >>> import dsm
    >>> a = dsm.zeros(1024, page_size=4096, name="grid")
    >>> dsm.info(a[512:]).first_page
    1
    """
    region = _shared_region(a, "info")
    if a.size == 0:
        first, last = 0, -1
    else:
        low, high = byte_bounds(a)
        first, last = ((address - region.address) // region.page_bytes for address in (low, high - 1))
    return Info(
        name=region.name,
        nbytes=region.bytes,
        page_size=region.page_bytes,
        pages=region.pages,
        first_page=first,
        last_page=last,
        owners=_owners(region, first, last),
    )


def _owners(region: _Region, first: int, last: int) -> tuple[tuple[int, int, int | None], ...]:
    runtime = _runtime.active()
    page = runtime.ffi.new("struct dsm_page_info *")
    runs: list[tuple[int, int, int | None]] = []
    for number in range(first, min(last, first + OWNER_PAGES_MAX - 1) + 1):
        runtime.check(runtime.lib.dsm_page_info(region.id, number, page))
        owner = None if page.owner < 0 else int(page.owner)
        if runs and runs[-1][2] == owner:
            runs[-1] = (runs[-1][0], number, owner)
        else:
            runs.append((number, number, owner))
    return tuple(runs)


def is_shared(a: object) -> bool:
    """Tell whether an array lies in shared memory.  Local.

    Parameters
    ----------
    a : object
        Any array; whatever is not a `numpy.ndarray` is not shared.

    Returns
    -------
    bool
        False before `init`, and for an array that was freed.

    Examples
    --------
    >>> import dsm
    >>> a = dsm.zeros(4)
    >>> dsm.is_shared(a[1:]), dsm.is_shared(a + 1)
    (True, False)
    """
    _runtime.refuse_if_ended()
    return _region_of(a) is not None
