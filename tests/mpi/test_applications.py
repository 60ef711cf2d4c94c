"""The applications of the benchmark suite, tiny, on the ranks of this job: each version computes what it should."""

import sys
from pathlib import Path

import pytest
from mpi4py import MPI

sys.path.append(str(Path(__file__).resolve().parents[2]))  # last: the dsm that is tested is the one that is installed

import dsm
from benchmarks import apps, suite_rank

APPS = apps.load()


@pytest.mark.parametrize("name", APPS)
def test_all_versions_of_an_application_are_right(name):
    app = APPS[name]
    versions = ["serial", "mpi4py", "dsm"] if MPI.COMM_WORLD.size == 1 else ["mpi4py", "dsm"]
    records = suite_rank.Job(app, app.sizes["tiny"]).run(versions, 1)
    assert [record["version"] for record in records] == versions
    for record in records:
        assert len(record["times_s"]) == 1
        assert record["checksum"] or MPI.COMM_WORLD.rank
    if MPI.COMM_WORLD.size > 1:
        assert records[0]["counters"]["messages_sent"] > 0
        assert (records[1]["counters"]["messages_sent"] > 0) == (len(dsm.stats().nodes) > 1)


@pytest.mark.parametrize("name", [name for name, app in APPS.items() if app.grow])
def test_an_application_that_grows_with_the_ranks_is_right(name):
    app = APPS[name]
    suite_rank.Job(app, app.grow(app.sizes["tiny"], MPI.COMM_WORLD.size)).run(["dsm"], 1)
