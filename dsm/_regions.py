"""Regions of the core that arrays lie in, and the arrays over each that are alive.

In NumPy the base of a view of a view is the array at the end of the chain.  So each region has one hidden array, its
root, which is the base of every array over the region.  The reference count of the root counts these arrays: `free`
looks at it, and the end of the root itself tells the core that the last array is gone.

The root is one-dimensional and has the size and dtype of the array that `zeros` returns, because some libraries compare
an array with its base (scipy.sparse copies an array of less than half its size).

The count misses holders behind an array that is counted already: views of another class (recarray, masked arrays) and
consumers of the buffer (memoryview, DLPack, as_strided).  They keep the addresses from being used again, but do not
stop `free`.
"""

from __future__ import annotations

import collections
import sys
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dsm import _recorder, _runtime
from dsm._exchange import allocate_region
from dsm._layout import Layout
from dsm._numpy import AnyArray, byte_bounds


@dataclass
class Region:
    """A region with an array in it.  It is known here until it is freed and no array over it is left on this rank."""

    id: int
    address: int
    bytes: int
    page_bytes: int
    pages: int
    name: str | None
    label: str
    items: int
    shape: tuple[int, ...]
    order: str
    dtype: np.dtype[Any]
    root: weakref.ref[AnyArray] = field(init=False)
    freed: bool = False


_regions: dict[int, Region] = {}


def _root_references(root: weakref.ref[AnyArray]) -> int:
    array = root()
    return 0 if array is None else sys.getrefcount(array)


def _measure_idle_references() -> int:
    root = np.zeros(1, np.uint8)
    weak, views = weakref.ref(root), [root[:]]
    del root
    return _root_references(weak) - len(views)


_IDLE_REFERENCES = _measure_idle_references()  # the interpreter adds these; versions differ


def arrays_alive(region: Region) -> int:
    """Count the arrays over a region on this rank.  Local."""
    return max(0, _root_references(region.root) - _IDLE_REFERENCES)


def _forget(region: Region) -> None:
    """Tell the core at the end of a root that the last array over a freed region is gone."""
    if region.freed and _regions.pop(region.id, None) is not None and _runtime.is_active():
        runtime = _runtime.active()
        runtime.check(runtime.lib.dsm_forget(region.id))


def allocate(layout: Layout, what: str, function: str, initial: bytes | None = None) -> AnyArray:
    """Make a region, and the array over all of it.  Collective.

    Parameters
    ----------
    layout : Layout
        The array.
    what : str
        The call with the arguments that must be the same on every rank.
    function : str
        The function that the user called, for the label of an array without a name.
    initial : bytes, optional
        The pattern that fresh pages hold; its length divides the page size.  Default: zeros.
    """
    runtime = _runtime.active()
    label = layout.name
    if label is None:
        label = f"{function}({layout.shape}, {layout.dtype})"
        what = runtime.made_here(what)
    made = allocate_region(runtime, layout.bytes, layout.page_bytes, what, label, initial)
    region = Region(
        id=int(made.id),
        address=int(runtime.ffi.cast("uintptr_t", made.address)),
        bytes=layout.bytes,
        page_bytes=int(made.page_bytes),
        pages=int(made.pages),
        name=layout.name,
        label=label,
        items=layout.items,
        shape=layout.shape,
        order=layout.order,
        dtype=layout.dtype,
    )
    _regions[region.id] = region
    if _recorder.active is not None:
        _recorder.active.watch(region.id, label, layout, region.page_bytes, region.pages)
    order: Any = layout.order
    return _new_root(region).reshape(layout.shape, order=order)


def _new_root(region: Region) -> AnyArray:
    runtime = _runtime.active()
    memory = runtime.ffi.buffer(runtime.ffi.cast("char *", region.address), max(region.bytes, 1))
    root: AnyArray = np.ndarray(region.items, region.dtype, memory)
    region.root = weakref.ref(root)
    weakref.finalize(root, _forget, region).atexit = False
    return root


def known() -> dict[int, Region]:
    """Return all regions that are not forgotten, by their numbers.  Local."""
    return dict(_regions)


def numbers() -> set[int]:
    """Return the numbers of all regions that are not forgotten.  Local."""
    return set(_regions)


def root_of_region(number: int) -> AnyArray | None:
    """Return the base of all arrays over a region; None if the region does not exist or was freed.  Local."""
    region = _regions.get(number)
    if region is None or region.freed:
        return None
    root = region.root()
    return _new_root(region) if root is None else root  # without an array here a region lives on


def place_of(a: AnyArray, function: str) -> tuple[int, int]:
    """Return the number of an array's region, and the offset of its first element there, in bytes.  Local."""
    region = shared_region(a, function)
    return region.id, int(a.__array_interface__["data"][0]) - region.address


def region_labels() -> dict[int, str]:
    """Return a label for every region that is not freed; no two are the same.  Local."""
    living = [region for region in list(_regions.values()) if not region.freed]
    often = collections.Counter(region.label for region in living)
    return {
        region.id: region.label if often[region.label] == 1 else f"{region.label} #{region.id}" for region in living
    }


def _root_of(a: AnyArray) -> AnyArray:
    while isinstance(a.base, np.ndarray):
        a = a.base
    return a


def region_of(a: object) -> Region | None:
    """Return the region that an array lies in; None if it is not shared, or was freed.  Local."""
    if not isinstance(a, np.ndarray) or not _regions:
        return None
    # An array without elements may begin one past the end of its region.
    address = byte_bounds(_root_of(a) if a.size == 0 else a)[0]
    runtime = _runtime.active()
    found = runtime.ffi.new("struct dsm_region *")
    if runtime.lib.dsm_region_of(runtime.ffi.cast("void *", address), found) != runtime.lib.DSM_OK:
        return None
    region = _regions.get(int(found.id))
    return None if region is None or region.freed else region


def label_of(a: object) -> str | None:
    """Return the label of the shared array that `a` is a part of; None if `a` is not shared.  Local."""
    region = region_of(a) if _runtime.is_active() else None
    return None if region is None else region.label


def shared_region(a: object, function: str) -> Region:
    """Return the region that an array lies in, or raise ValueError in the name of `dsm.function`.  Local."""
    _runtime.refuse_if_ended()
    region = region_of(a)
    if region is None:
        thing = f"an array of shape {a.shape}" if isinstance(a, np.ndarray) else f"an object of type {type(a).__name__}"
        raise ValueError(f"dsm.{function}: {thing} is not in shared memory (or was freed)")
    return region


def page_bytes_of(a: AnyArray, function: str) -> int:
    """Return the page size of the array that a shared array is a part of, in bytes.  Local."""
    return shared_region(a, function).page_bytes


def discard(a: AnyArray, what: str) -> None:
    """Free an array that the program has not seen yet, even if frames of an exception refer to it.  Collective."""
    region = shared_region(a, what)
    runtime = _runtime.active()
    done = runtime.ffi.new("char[]", what.encode(errors="replace"))
    if _recorder.active is not None:
        _recorder.active.take(region.id)
    runtime.wait(lambda slice_s: runtime.lib.dsm_free(region.id, runtime.ffi.NULL, done, slice_s))
    region.freed = True
