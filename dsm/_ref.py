"""Tokens that name shared memory to another rank, for programs that send work by messages.

A view is the number of its region, which all ranks know it by, and where in the region it lies.  The job's name, drawn
by chance at the start, tells a token that was kept in a file, or sent to another job, from one of this job.
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

    Made by `ref`; it holds no data, and pickles into some hundred bytes.

    Attributes
    ----------
    job : int
        Names the job; 64 bits.
    region : int
        Number of the allocation.
    offset : int
        From the start of the allocation to the first element, in bytes.
    shape, strides : tuple of int
        Of the view; strides in bytes.
    dtype : numpy.dtype
        Of the view.
    writeable : bool
        Whether the view could be written.
    """

    job: int
    region: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    writeable: bool

    def open(self) -> AnyArray:
        """Return the view, of the same memory as on the rank that made this.  Local.

        Returns
        -------
        numpy.ndarray
            A plain array.

        Raises
        ------
        ValueError
            The array was freed, or this is from another job, or it does not lie in the allocation.
        RuntimeError
            dsm is not started.

        Notes
        -----
        As a message publishes nothing, what is in the memory is what a lock or a barrier has brought to this rank.
        """
        runtime = _runtime.active()
        if self.job != runtime.lib.dsm_job():
            raise ValueError("this dsm.ref is from another job, whose memory is not here")
        root = root_of_region(self.region)
        if root is None:
            raise ValueError(f"the array of this dsm.ref was freed (allocation {self.region} is not here)")
        if not 0 <= self.offset <= root.nbytes:
            raise ValueError(
                f"this dsm.ref lies outside of its allocation: offset {self.offset} of {root.nbytes} bytes"
            )
        view = np.ndarray(self.shape, self.dtype, root, self.offset, self.strides)  # refuses what does not lie in it
        view.flags.writeable = self.writeable
        return view


def ref(a: AnyArray) -> Ref:
    """Make a small token for a view of shared memory, to send to another rank.  Local.

    `Ref.open` there returns an array over the same memory.  Pickling the array itself would send a private copy.

    Parameters
    ----------
    a : numpy.ndarray
        A shared array or a view of one; any shape, strides and dtype.

    Returns
    -------
    Ref
        Can be pickled; sent by mpi4py's ``comm.send``, say.

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
