"""One rank's content for all, brought before anybody touches it."""

from __future__ import annotations

from dsm import _runtime
from dsm._exchange import Exchange
from dsm._numpy import AnyArray
from dsm._pin import pinned
from dsm._regions import place_of


def broadcast(a: AnyArray, root: int = 0) -> None:
    """Let every rank have what `root` has in a view, without a page fault.  Collective.

    A barrier, after which the other ranks bring all pages of the view that they lack before the call returns.  It
    changes no value: after a barrier all ranks see the same in any case.  It pays where every rank reads most of it.

    Parameters
    ----------
    a : numpy.ndarray
        A shared array or a part of one; the same one on every rank.
    root : int, optional
        The rank whose content it is; it brings nothing itself.

    Raises
    ------
    ValueError
        `a` is not shared, there is no such rank, or ranks disagree about either.

    Notes
    -----
    The pages travel in the runtime's own messages, from the ranks that wrote them.  With many ranks the one that wrote
    all of them sends them to each of the others.
    """
    number, offset = place_of(a, "broadcast")
    if not 0 <= root < _runtime.size():
        raise ValueError(f"broadcast: root must be a rank from 0 to {_runtime.size() - 1}, not {root}")
    what = f"broadcast(array {number} at byte {offset}, {a.shape}, {a.strides}, {a.dtype.str}, root={root})"
    with Exchange(_runtime.active(), "broadcast", what):  # its first meeting publishes, its last ends the call
        if _runtime.rank() != root:
            with pinned(a, "r"):
                pass  # the pages stay when the pin is gone
