"""A barrier that also fetches one rank's content to all other ranks, before they touch it."""

from __future__ import annotations

from dsm import _runtime
from dsm._exchange import Exchange
from dsm._numpy import AnyArray
from dsm._pin import pinned
from dsm._regions import place_of


def broadcast(a: AnyArray, root: int = 0) -> None:
    """Fetch the content of a view from `root` to every rank, without page faults.  Collective.

    The call is a barrier, after which the other ranks fetch all pages of the view that they lack.  It changes no value,
    because all ranks see the same after any barrier.  It saves time if every rank reads most of the view.

    Parameters
    ----------
    a : numpy.ndarray
        A shared array or a part of one; the same one on every rank.
    root : int, optional
        The rank that has the content; it fetches nothing itself.

    Raises
    ------
    ValueError
        `a` is not shared, there is no such rank, or ranks disagree about either.

    Notes
    -----
    The ranks that wrote the pages send them in the runtime's own messages.  A rank that wrote all pages sends them to
    each of the others.
    """
    number, offset = place_of(a, "broadcast")
    if not 0 <= root < _runtime.size():
        raise ValueError(f"broadcast: root must be a rank from 0 to {_runtime.size() - 1}, not {root}")
    what = f"broadcast(array {number} at byte {offset}, {a.shape}, {a.strides}, {a.dtype.str}, root={root})"
    with Exchange(_runtime.active(), "broadcast", what):  # entering publishes; leaving waits for all ranks
        if _runtime.rank() != root:
            with pinned(a, "r"):
                pass  # the pages stay after the pin
