"""The nodes of a job: ranks of a host that share its memory, between which no page is copied."""

from __future__ import annotations

from collections.abc import Sequence

from dsm._runtime import Runtime


def nodes_of(runtime: Runtime) -> tuple[tuple[int, ...], ...]:
    """Return the ranks of each node.  Local."""
    ranks: list[list[int]] = [[] for _ in range(runtime.lib.dsm_nodes())]
    for rank in range(runtime.size):
        ranks[runtime.lib.dsm_node_of(rank)].append(rank)
    return tuple(map(tuple, ranks))


def why_apart(runtime: Runtime) -> str:
    """Return why the ranks of this host could not be one node, "" if they are or were not to be.  Local."""
    return str(runtime.ffi.string(runtime.lib.dsm_node_why()).decode(errors="replace"))


def named(ranks: Sequence[int]) -> str:
    """Return ranks in ascending order as words, such as "ranks 0-3" or "ranks 0, 2".  Local."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"ranks {ranks[0]}-{ranks[-1]}"
    return f"ranks {', '.join(map(str, ranks))}"
