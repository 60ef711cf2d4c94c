"""Programs with each fault that the report knows, which are told so; and the same without it, which are not."""

import json
import os
import textwrap

import pytest

from dsm._report.advice import KINDS, advise
from dsm._report.profile import Profile

# Each program reads whether it is `sound`; it then does the same work without the fault.
PROGRAMS = {}

PROGRAMS["shared-pages"] = """
    columns = 512 if sound else 500  # rows of a page, or blocks of 30 rows that end inside of a page
    grid = dsm.zeros((60, columns), name="grid")
    mine = dsm.local(grid)
    for step in range(1000):
        mine += 1
        dsm.barrier()
"""

PROGRAMS["large-pages"] = """
    sums = dsm.zeros((64, 512), page_size=4096 if sound else 1 << 20)
    mine = dsm.local(sums)
    for step in range(500):
        mine += 1
        dsm.barrier()
"""

PROGRAMS["small-pages"] = """
    field = dsm.zeros((4096, 512), page_size=65536 if sound else 4096)
    for step in range(2):
        if dsm.rank() == 0:
            field[...] = step
        dsm.barrier()
        if dsm.rank() == 1:
            for row in np.random.default_rng(step).permutation(len(field)):
                field[row].sum()
        dsm.barrier()
"""

PROGRAMS["interleaved"] = """
    grid = dsm.zeros((512, 64))
    mine = dsm.local(grid) if sound else grid[dsm.rank() :: dsm.size()]
    for step in range(200):
        mine += 1
        dsm.barrier()
"""

PROGRAMS["read-by-all"] = """
    table = dsm.zeros((2000, 512))
    for step in range(3):
        if dsm.rank() == 0:
            table[...] = np.random.default_rng(step).random(table.shape)
        if sound:
            dsm.broadcast(table)
        else:
            dsm.barrier()
        for row in np.random.default_rng(1).permutation(len(table)):
            table[row].sum()
        dsm.barrier()
"""

PROGRAMS["reads-everything"] = """
    x = dsm.zeros((512, 512))
    rows = dsm.split(len(x))
    for step in range(40):
        x[rows] += 1
        dsm.barrier()
        near = x[max(rows.start - 1, 0) : rows.stop + 1] if sound else x
        near.sum()
        dsm.barrier()
"""

PROGRAMS["first-touch"] = """
    field = dsm.zeros((4096, 512))
    mine = dsm.local(field)
    if sound:
        mine[...] = 1
    elif dsm.rank() == 0:
        field[...] = 1
    dsm.barrier()
    for step in range(3):
        mine[...] = np.sqrt(mine) + 1
        dsm.barrier()
"""

PROGRAMS["unread"] = """
    make = np.zeros if sound else dsm.zeros
    log = make((4096, 512))
    shared = dsm.zeros(512)
    for step in range(20):
        if dsm.rank() == 1:
            log[step % 2 :: 2] += 1
        dsm.barrier()
"""

PROGRAMS["lock-per-item"] = """
    lock, counts = dsm.Lock(name="counts"), dsm.zeros(512)
    found = np.zeros(512)
    dsm.barrier()
    for item in range(3000):
        found[item % 512] += 1
        if not sound or item % 500 == 499:
            with lock:
                counts += found
            found[:] = 0
    dsm.barrier()
"""

PROGRAMS["counter-per-item"] = """
    tickets, found = dsm.Counter(), dsm.zeros(2000)
    together = 100 if sound else 1
    while (first := together * tickets.next()) < len(found):
        for item in range(first, first + together):
            found[item] = item
    dsm.barrier()
"""

PROGRAMS["imbalance"] = """
    for step in range(10):
        time.sleep(0.06 if sound else 0.02 + 0.08 * dsm.rank())
        dsm.barrier()
"""

PROGRAMS["empty-barrier"] = """
    grid = dsm.zeros((64, 512))
    for step in range(500):
        dsm.local(grid)[...] += 1
        dsm.barrier()
        if not sound:
            dsm.barrier()
"""

PROGRAMS["scalar-loop"] = """
    grid = dsm.zeros((200, 512))
    rows = dsm.split(len(grid))
    for step in range(20):
        if sound:
            grid[rows] += 1
        else:
            for i in range(rows.start, rows.stop):
                for j in range(512):
                    grid[i, j] += 1
        dsm.barrier()
"""

PROGRAMS["never-freed"] = """
    for step in range(30):
        temporary = dsm.zeros((256, 512))
        dsm.local(temporary)[...] = step
        time.sleep(0.01)
        dsm.barrier()
        if sound:
            dsm.free(temporary)
"""

PROGRAMS["growing-memory"] = """
    parts = [dsm.zeros((1024, 512)) for _ in range(30)]
    for part in parts:
        for step in range(2):
            dsm.local(part)[...] = step + 1
            dsm.barrier()
            part[:: dsm.size()].sum()
            time.sleep(0.02)
            dsm.barrier()
"""
ENVIRONMENT = {"growing-memory": [{}, {"DSM_COLLECT_BYTES": "4M"}]}  # with the fault, without

PROGRAMS["more-ranks-than-cores"] = """
    grid = dsm.zeros((64, 512))
    for step in range(100):
        dsm.local(grid)[...] += 1
        dsm.barrier()
"""

RANKS = {"more-ranks-than-cores": [len(os.sched_getaffinity(0)) + 1, 1]}


def kinds(run, tmp_path, kind, sound):
    program = f"sound = {sound}\n" + textwrap.dedent(PROGRAMS[kind])
    env = {"DSM_NODE": "rank", "DSM_PROFILE": str(tmp_path / "out"), **ENVIRONMENT.get(kind, [{}, {}])[sound]}
    job = run(RANKS.get(kind, [2, 2])[sound], program, env=env, seconds=100)
    assert job.status == 0, job
    made = json.loads((tmp_path / "out" / "profile.json").read_text())
    return dict(advise(Profile(made)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_with_the_fault_is_told(run, tmp_path, kind):
    assert kind in kinds(run, tmp_path, kind, False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_program_without_the_fault_is_not(run, tmp_path, kind):
    assert kind not in kinds(run, tmp_path, kind, True)
