"""Freeing an array, and the other arrays over its memory that prevent it."""

from __future__ import annotations

import gc

import numpy as np

from dsm import _recorder, _runtime
from dsm._holders import NAME_CHARACTERS_MAX, holders
from dsm._numpy import AnyArray
from dsm._regions import Region, arrays_alive, shared_region

OTHERS_NAMED = 3  # arrays that an error of free() names


def free(a: AnyArray) -> None:
    """Give the memory of a shared array back.  Collective.

    `a` must be the only array over that memory, on every rank; it may be a view of the array that `zeros` returned.  An
    access afterwards ends the program with a message that names the array.

    Parameters
    ----------
    a : numpy.ndarray
        A shared array, the same on every rank.

    Raises
    ------
    BufferError
        Other arrays over the memory are alive on some rank.  Every rank raises, and the memory stays.  The text names
        the rank, and the variables there as far as Python knows them.
    ValueError
        `a` is not shared, or ranks free different arrays.

    Notes
    -----
    A memoryview, a DLPack consumer, an array of `numpy.lib.stride_tricks.as_strided` or a view of another class
    (recarray, masked array) is not counted.  The addresses are not used again while such a holder is alive, though.

    Examples
    --------
    >>> import dsm
    >>> a = dsm.zeros(1000)
    >>> dsm.free(a)
    """
    region = shared_region(a, "free")
    runtime = _runtime.active()
    refusal = runtime.ffi.NULL
    if arrays_alive(region) > 1:
        gc.collect()  # dead objects that refer to each other may hold arrays
        if others := arrays_alive(region) - 1:
            refusal = runtime.ffi.new("char[]", _others_text(region, id(a), others).encode(errors="replace"))
    # With the number, because several arrays may have one label.
    what = runtime.ffi.new("char[]", f"free({region.label} #{region.id})".encode())
    if _recorder.active is not None:
        _recorder.active.take(region.id)
    runtime.wait(lambda slice_s: runtime.lib.dsm_free(region.id, refusal, what, slice_s))
    if _recorder.active is not None:
        _recorder.active.freed(region.id)
    region.freed = True  # _forget follows when `a` ends


def _others_text(region: Region, freed: int, others: int) -> str:
    """Say how many other arrays there are, and where, without keeping a reference to one."""
    root = region.root()

    def is_other(thing: object) -> bool:
        return type(thing) is np.ndarray and thing.base is root and id(thing) != freed

    names = holders(is_other, min(others, OTHERS_NAMED))
    label = region.label[:NAME_CHARACTERS_MAX]  # there are dtypes of a thousand fields
    arrays = "1 other array" if others == 1 else f"{others} other arrays"
    if not names:
        return f"has {arrays} over {label}, and Python knows of no variable that leads there"
    more = f" and {others - len(names)} more" if others > len(names) else ""
    return f"has {arrays} over {label}, to be deleted first: {', '.join(names)}{more}"
