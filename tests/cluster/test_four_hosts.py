"""dsm over TCP: hosts on one machine, with one rank or two on each."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EXAMPLES = ROOT / "examples"
sys.path.append(str(ROOT))  # last: what is tested is the dsm that is installed, or named by PYTHONPATH

from benchmarks.cluster import hosts as host_module  # noqa: E402


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
    status, output = hosts.run([sys.executable, "-P", str(HERE / "program.py"), "1"], 90, {"DSM_PROGRESS": progress})
    assert status == 0, output
    for rank in range(4):
        assert f"rank {rank} of 4 on n{rank + 1}: all is right" in output


@pytest.mark.parametrize("count", [1, 2])
def test_the_ranks_of_a_host_share_its_memory(hosts, count):
    """By default, beside other hosts and without any."""
    with host_module.Hosts(count, per_host=2) as more:
        status, output = more.run([sys.executable, "-P", str(HERE / "program.py"), "2"], 90)
    assert status == 0, output
    assert len(re.findall(rf"rank \d of {2 * count} on n\d: all is right", output)) == 2 * count, output


@pytest.mark.parametrize("example", ["heat.py --size 256 --steps 50", "tsp.py burma14"])
def test_examples_on_four_hosts(hosts, example):
    script, *arguments = example.split()
    status, output = hosts.run([sys.executable, str(EXAMPLES / script), *arguments], 110)
    assert status == 0, output


RUNG = """
import pathlib, time
import dsm
dsm.init()
assert len(dsm.stats().nodes) == 4
a, end = dsm.zeros((4, 8, 16 * 512)), pathlib.Path("END")
a[dsm.rank(), :, 0] = 1 + dsm.rank()
dsm.barrier()
dsm.stats(reset=True)
if dsm.rank() == 0:
    for peer in (1, 2, 3):
        assert [int(word) for word in a[peer, ::3, 0]] == [1 + peer] * 3
    end.touch()
while not end.exists():
    sum(range(10_000))
print(f"rank {dsm.rank()} heard {dsm.stats()['bells_heard'] > 0}", flush=True)
dsm.barrier()
"""


def test_ranks_that_compute_are_rung_on_their_host_and_on_others(hosts, tmp_path):  # hosts: where any can be made
    """By ranks that are nodes of their own, over the loopback address and over the network."""
    program = tmp_path / "rung.py"
    program.write_text(RUNG.replace("END", str(tmp_path / "end")))
    with host_module.Hosts(2, per_host=2) as pair:
        status, output = pair.run([sys.executable, "-P", str(program)], 90, {"DSM_NODE": "rank"})
    assert status == 0, output
    assert all(f"rank {rank} heard True" in output for rank in (1, 2, 3)), output
    assert "datagrams" not in output


HALVES = """
import numpy as np
import dsm
dsm.init()
words, rank = 1 << 18, dsm.rank()
a = dsm.zeros((2, words), page_size=4 << 20)
for step in range(20):
    a[rank] = np.random.default_rng(2 * step + rank).random(words)
    dsm.barrier()
    assert (a[1 - rank] == np.random.default_rng(2 * step + 1 - rank).random(words)).all()
    dsm.barrier()
objects = [bytearray(size) for size in range(1, 3000)]
del objects
print(f"rank {rank}: all is right", flush=True)
"""


def test_large_pages_leave_the_heap_alone(hosts, tmp_path):  # hosts: where any can be made
    """MPI's way of taking in large messages once outgrew the stack on which page faults were served."""
    program = tmp_path / "halves.py"
    program.write_text(HALVES)
    with host_module.Hosts(2) as more:
        status, output = more.run([sys.executable, "-P", str(program)], 90)
    assert (status, output.count("all is right")) == (0, 2), output


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


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_a_signal(hosts, end):
    program = ["-c", "import time; print('here', flush=True); time.sleep(1000)"]
    words = [sys.executable, "-P", host_module.__file__, "-n", "2", sys.executable, *program]
    started = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout.readline().startswith("here")  # mpiexec may put the words of two ranks in a line
        assert f"dsmtest{started.pid}x1-n2" in namespaces()
        started.send_signal(end)
        assert started.wait(30) == 128 + end
        assert f"dsmtest{started.pid}x" not in namespaces()
        started.stdout.read()  # ends when all who can write there have ended
    finally:
        started.kill()
        started.stdout.close()
        started.wait()


@pytest.mark.parametrize(("rate", "bits_s", "size"), [("1gbit", 1e9, 32 << 20), ("100mbit", 1e8, 4 << 20)])
def test_a_link_carries_no_more_than_its_rate(hosts, rate, bits_s, size):
    """What a bucket may let pass at once, and its kernel's clock, are the margin."""
    with host_module.Hosts(2, rate) as more:
        status, output = more.run([sys.executable, "-P", str(HERE / "bandwidth.py"), str(size)], 90)
    assert status == 0, output
    rates = json.loads(output.splitlines()[-1])
    assert len(rates) == 3
    for way, measured in rates.items():
        assert measured < 1.1 * bits_s, way


def test_a_rate_that_cannot_be_had_is_an_error_that_names_what_it_needs(hosts):
    more = host_module.Hosts(1, "wide")
    with pytest.raises(host_module.NoHostsError, match="sch_tbf"), more:
        pass
    assert more.prefix not in namespaces()
