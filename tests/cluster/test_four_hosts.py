"""dsm over TCP: four hosts on one machine, one rank on each."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import hosts as host_module

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples"


@pytest.fixture(scope="module")
def hosts():
    try:
        with host_module.Hosts(4) as made:
            yield made
    except host_module.NoHostsError as error:
        pytest.skip(f"no hosts can be made on this machine: {error}")


def namespaces():
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("progress", ["doorbell", "poll"])
def test_four_hosts_agree(hosts, progress):
    status, output = hosts.run([sys.executable, "-P", str(HERE / "program.py")], 90, {"DSM_PROGRESS": progress})
    assert status == 0, output
    for rank in range(4):
        assert f"rank {rank} of 4 on n{rank + 1}: all is right" in output


@pytest.mark.parametrize("example", ["heat.py --size 256 --steps 50", "tsp.py burma14"])
def test_examples_on_four_hosts(hosts, example):
    script, *arguments = example.split()
    status, output = hosts.run([sys.executable, str(EXAMPLES / script), *arguments], 110)
    assert status == 0, output


def test_an_exit_status_comes_back(hosts):
    status, _ = hosts.run([sys.executable, "-c", "raise SystemExit(5)"], 60)
    assert status == 5


def test_nothing_is_left_behind(hosts):
    with host_module.Hosts(1) as more:
        assert more.prefix + "n1" in namespaces()
        assert more.prefix != hosts.prefix
    assert more.prefix not in namespaces()
    assert not more.remote_shell.exists()


def test_a_job_that_does_not_end_is_ended(hosts):
    with host_module.Hosts(2) as more:
        status, output = more.run(["sleep", "1000"], 3)
        assert status != 0
        assert "ended after 3 s" in output
    assert more.prefix not in namespaces()
