"""`DSM_CHAOS`: the programs with invariants, and random programs against their oracle, on a bad network.

``DSM_TEST_CHAOS=20`` runs them with 20 seeds for every number of ranks and every page size, and with the other tests of
tests/mpi; without it one seed is run for three pairs of these.
"""

import os
import re

import pytest

SEEDS = int(os.environ.get("DSM_TEST_CHAOS") or 0)
PAGES = (4096, 64 << 10, 1 << 20)
SHORT = ["invariants", "random"]
LONG = [*SHORT, "sharing", "locks", "pinned", "threads", "arrays"]

if SEEDS:
    JOBS = [(ranks, page, seed) for seed in range(1, SEEDS + 1) for ranks in (2, 3, 4) for page in PAGES]
else:
    JOBS = [(4, PAGES[0], 1), (3, PAGES[1], 2), (2, PAGES[2], 3)]


@pytest.mark.slow
@pytest.mark.timeout(260)
@pytest.mark.parametrize(("ranks", "page_bytes", "seed"), JOBS)
def test_invariants_hold(run_again, ranks, page_bytes, seed):
    settings = {"DSM_CHECK": "1", "DSM_TEST_PROGRAMS": "3", "DSM_TEST_HANDOVERS": "600"}
    settings |= {"DSM_CHAOS": str(seed), "DSM_PAGE_SIZE": str(page_bytes)}
    run_again(ranks, LONG if SEEDS else SHORT, settings)


QUIET = """
a = dsm.zeros((80, 512))[40 * dsm.rank() :][:40]
a += 1
before = dsm.stats()
turns, stop = 0, time.time() + 0.5
while MPI.COMM_WORLD.allreduce(time.time() < stop, MPI.LAND):
    a += 1
    dsm.barrier()
    turns += 1
after = dsm.stats()
faults = after["faults_write"] + after["faults_read"] - before["faults_write"] - before["faults_read"]
assert (a == turns + 1).all()
if dsm.rank() == 0:
    print(f"{faults} faults, {after['faults_local']} local, {after['collections']} collections")
"""


@pytest.mark.parametrize("seed", ["0", "1", "2"])
def test_it_disturbs_only_when_asked(run, seed):
    """No page of a rank ever becomes stale, so what faults again was made inaccessible."""
    job = run(2, QUIET, env={"DSM_CHAOS": seed})
    assert job.status == 0, job
    faults, local, collections = map(int, re.search(r"(\d+) faults, (\d+) local, (\d+) coll", job.out).groups())
    if seed == "0":
        assert (faults, collections) == (0, 0)
    else:
        assert faults > 10
        assert collections > 0
    assert local > faults


def test_ranks_with_different_seeds_are_refused(run):
    job = run(2, 'os.environ["DSM_CHAOS"] = str(MPI.COMM_WORLD.rank + 1)\ndsm.init()')
    assert job.status != 0
    assert re.search(r"ValueError: .*DSM_CHAOS", job.err), job
