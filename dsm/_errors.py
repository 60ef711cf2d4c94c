"""The only exception type of dsm's own."""


class DSMError(RuntimeError):
    """The machine, the MPI or the launcher does not allow the call.  The message says the remedy."""
