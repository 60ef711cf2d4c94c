"""What every test runs under: one report for all ranks, and a job that ends when one rank fails.

A rank whose test fails goes on to the next one while its peers wait for it in a collective call, for ever.  So in a
job of several ranks the first failure is printed by the rank that has it, and ends the job.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import hypothesis
import pytest

from dsm import _launch, _leftovers

hypothesis.settings.register_profile("dsm", deadline=None, database=None)
# The ranks of a job must see the same examples in the same order.
hypothesis.settings.register_profile("dsm-ranks", parent=hypothesis.settings.get_profile("dsm"), derandomize=True)


def _world(config):
    """Return COMM_WORLD in a job of several ranks, else None."""
    if not config.getoption("--with-mpi", default=False):
        return None
    from mpi4py import MPI

    return MPI.COMM_WORLD if MPI.COMM_WORLD.Get_size() > 1 else None


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Let rank 0 speak for all; called before pytest chooses where it writes."""
    world = _world(config)
    hypothesis.settings.load_profile("dsm" if world is None else "dsm-ranks")
    config.stash[_WORLD] = world
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell's background jobs have it
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the jobs that tests start must hear Ctrl-C
    if world is None:
        _leftovers.remove_afterwards()  # what the jobs leave that the tests start and abort
    if world is not None and world.Get_rank() > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process


_WORLD = pytest.StashKey()
_config = None


def pytest_sessionstart(session):
    global _config
    _config = session.config


def _end_job(report, what):
    world = _config.stash[_WORLD] if _config is not None else None
    if world is None:
        return
    print(f"\nrank {world.Get_rank()} of {world.Get_size()}: {what} failed", file=sys.__stderr__)
    print(report.longreprtext, file=sys.__stderr__)
    for title, text in report.sections:
        print(f"--- {title} ---\n{text}", file=sys.__stderr__)
    sys.__stderr__.flush()
    time.sleep(0.3)  # mpiexec forwards what was printed; the abort would overtake it
    world.Abort(3)


def pytest_runtest_logreport(report):
    if report.failed:
        _end_job(report, report.nodeid)


def pytest_collectreport(report):
    if report.failed:
        _end_job(report, f"collecting {report.nodeid or 'the tests'}")


@pytest.fixture(scope="session")
def mpicc():
    """The compiler of the MPI whose mpiexec starts the jobs."""
    beside = Path(_launch.command(1, ["true"])[0][0]).with_name("mpicc")
    found = os.environ.get("MPICC") or (str(beside) if beside.exists() else shutil.which("mpicc"))
    if not found:
        pytest.skip("needs the mpicc of the MPI that mpi4py loads")
    return found
