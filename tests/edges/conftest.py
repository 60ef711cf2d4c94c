"""Which random programs are run: new ones each time, unless a seed is given."""

import os
import secrets

import pytest

RUNS = int(os.environ.get("DSM_TEST_EDGES", "200"))
SEED = int(os.environ.get("DSM_TEST_SEED", "0")) or secrets.randbelow(1 << 31)


def pytest_report_header():
    return f"random starts and ends: python -P tests/edges/drive.py --seed {SEED} --runs {RUNS}"


@pytest.fixture
def seeds():
    return range(SEED, SEED + RUNS)
