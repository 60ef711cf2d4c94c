"""What a kind of advice returns."""

from __future__ import annotations

from dataclasses import dataclass, field

GAIN_MIN = 0.02  # of the run: less is not worth a change of the program


@dataclass(frozen=True)
class Found:
    """A fault that was found.

    Attributes
    ----------
    title : str
        The fault, in a sentence without a full stop.
    evidence : list of str
        Sentences with the numbers of the profile that show it.
    remedy : str
        What to change, in a sentence or two.
    code : str
        The change as code, with names and numbers filled in; empty if there is none.
    gain_s : float
        Seconds of the run that the change brings at most; 0 if it gains only memory.
    gain_bytes : int
        Memory that the change brings at most.
    arrays, sites, locks : list of int
        The numbers of what the advice is about.
    """

    title: str
    evidence: list[str]
    remedy: str
    code: str
    gain_s: float
    gain_bytes: int = 0
    arrays: list[int] = field(default_factory=list)
    sites: list[int] = field(default_factory=list)
    locks: list[int] = field(default_factory=list)
