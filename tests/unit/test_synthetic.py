"""The synthetic sharing programs: the points of a sweep, that all programs are right, and that a wrong sum is seen."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # last: what is measured is the dsm that is installed, or named by PYTHONPATH

from benchmarks import job, synthetic  # noqa: E402
from benchmarks.synthetic import PATTERNS, Point  # noqa: E402
from dsm import _launch  # noqa: E402

PROGRAM = [sys.executable, "-P", str(ROOT / "benchmarks" / "synthetic_rank.py")]


def run(ranks, results, *options):
    words = [*PROGRAM, "--results", str(results), "--repetitions", "1", "--tiny", *options]
    plan = _launch.plan(ranks, words)
    return job.wait(plan.words, plan.environ, 200)


def test_the_sweep_has_each_grain_with_each_page_size_and_a_slice_of_computation():
    points = synthetic.points()
    assert len(points) == len(set(points)) == 6 * (8 * 6 + 3)
    assert {point.bytes for point in points} == {8, 64, 512, 4 << 10, 32 << 10, 256 << 10, 2 << 20, 16 << 20}
    assert {point.page_size for point in points} == {4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20}


def test_computations_that_are_given_are_combined_with_everything():
    made = synthetic.points(patterns=["private"], grains=[8, 64], page_sizes=[4096], computes_us=[0, 7])
    assert made == [Point("private", grain, us, 4096) for grain in (8, 64) for us in (0, 7)]


def test_a_sum_is_that_of_what_is_filled_in():
    a = np.zeros((3, 5), np.int64)
    for first in (0, 1, 1 << 60):
        synthetic.fill(a, first)
        assert synthetic.total(a) == synthetic.total_of(first, 15)
    assert len({synthetic.compute(step, rounds) for step in range(50) for rounds in (0, 3)}) > 90


@pytest.mark.timeout(240)  # a few seconds of computing, which a busy machine stretches
@pytest.mark.parametrize(
    ("ranks", "options"),
    [
        (1, ["--grains", "8,8192", "--computes", "0"]),
        pytest.param(2, [], marks=pytest.mark.slow),
        pytest.param(3, ["--grains", "8,8192", "--computes", "0"], marks=pytest.mark.slow),
    ],
)
def test_every_pattern_is_right_and_measured(ranks, options, tmp_path):
    results = tmp_path / "results"
    assert run(ranks, results, *options) == 0
    records = [json.loads(line) for line in results.read_text().splitlines()]
    assert {record["pattern"] for record in records} == set(PATTERNS)
    assert len(records) == 6 * (2 * 2 if options else 2 * 2 + 1)
    for record in records:
        assert record["ranks"] == ranks
        for name in ("dsm", "mpi4py"):
            assert len(record[f"{name}_s"]) == 1
            assert min(*record[f"{name}_s"], record[f"{name}_mean_s"], record[f"{name}_first_s"]) > 0


@pytest.mark.timeout(240)
def test_a_wrong_sum_ends_the_job(tmp_path, capfd):
    """In one step the sum is one too large."""
    broken = tmp_path / "broken.py"
    broken.write_text(
        f"import sys; sys.path.append({str(ROOT)!r})\n"
        "from benchmarks import synthetic, synthetic_rank\n"
        "made = synthetic.AllToAllByDsm.step\n"
        "synthetic.AllToAllByDsm.step = lambda self, number: made(self, number) + (number == 9)\n"
        "sys.exit(synthetic_rank.main())\n"
    )
    words = [sys.executable, "-P", str(broken), "--results", str(tmp_path / "results"), "--tiny"]
    plan = _launch.plan(2, [*words, "--patterns", "all-to-all"])
    assert job.wait(plan.words, plan.environ, 200) == 3
    assert "wrong result: AllToAllByDsm, rank 0, step 9" in capfd.readouterr().err
