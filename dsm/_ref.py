"""Tokens that name shared memory to another rank, for programs that send work by messages.

A token has the number of the region, which is the same on all ranks, and the place of the view in it.  It also has the
job's random number, so that a token from a file or from another job is recognized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dsm import _runtime
from dsm._numpy import AnyArray
from dsm._regions import place_of, root_of_region


@dataclass(frozen=True)
class Ref:
    """The name of a view of shared memory, which other ranks of the job can open.  Local.

    Made by `ref`.  It holds no data, and pickles into some hundred bytes.

    Attributes
    ----------
    job : int
        Random number of the job; 64 bits.
    region : int
        Number of the allocation.
    offset : int
        From the start of the allocation to the first element, in bytes.
    shape, strides : tuple of int
        Of the view; strides in bytes.
    dtype : numpy.dtype
        Of the view.
    writeable : bool
        Whether the view was writeable.
    """

    job: int
    region: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    writeable: bool

    def open(self) -> AnyArray:
        """Return the view, over the same memory as on the rank that made the token.  Local.

        Returns
        -------
        numpy.ndarray
            A plain array.

        Raises
        ------
        ValueError
            The array was freed, or the token is from another job, or the view does not lie in the allocation.
        RuntimeError
            dsm is not started.

        Notes
        -----
        A message publishes no write.  The view shows the writes that a lock or a barrier has published to this rank.
        """
        runtime = _runtime.active()
        if self.job != runtime.lib.dsm_job():
            raise ValueError("this dsm.ref is from another job, and names no memory of this one")
        root = root_of_region(self.region)
        if root is None:
            raise ValueError(f"the array of this dsm.ref was freed: allocation {self.region} does not exist any more")
        if not 0 <= self.offset <= root.nbytes:
            raise ValueError(
                f"this dsm.ref lies outside of its allocation: offset {self.offset} of {root.nbytes} bytes"
            )
        view = np.ndarray(self.shape, self.dtype, root, self.offset, self.strides)  # raises if it does not fit
        view.flags.writeable = self.writeable
        return view


def ref(a: AnyArray) -> Ref:
    """Make a small token for a view of shared memory, to send to another rank.  Local.

    There `Ref.open` returns an array over the same memory.  A pickle of the array itself would be a private copy.

    Parameters
    ----------
    a : numpy.ndarray
        A shared array or a view of one; any shape, strides and dtype.

    Returns
    -------
    Ref
        Can be pickled, for example by mpi4py's ``comm.send``.

    Raises
    ------
    ValueError
        `a` is not shared.

    Examples
    --------
    >>> import dsm, pickle
    >>> a = dsm.zeros((100, 3))
    >>> token = pickle.dumps(dsm.ref(a[10:20, 1]))
    >>> pickle.loads(token).open().shape
    (10,)
    """
    number, offset = place_of(a, "ref")
    return Ref(
        job=int(_runtime.active().lib.dsm_job()),
        region=number,
        offset=offset,
        shape=a.shape,
        strides=a.strides,
        dtype=a.dtype,
        writeable=bool(a.flags.writeable),
    )
