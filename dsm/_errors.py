"""The one exception that is dsm's own."""


class DSMError(RuntimeError):
    """The machine, the MPI or the launcher does not allow what was asked; the message says the cure."""
