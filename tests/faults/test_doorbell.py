"""A rank that computes and never calls dsm is rung, and serves; and what is said and done where datagrams are lost."""

import re
import subprocess

import pytest

# The first BUSY ranks of the last node compute until the file appears.  The first rank reads their pages, far apart and
# in no order, with pauses, so that the service thread that answers is asleep again each time.
PROGRAM = """
import pathlib
PAGES, APART = 24, 16 * 512
dsm.init()
nodes = dsm.stats().nodes
servers = nodes[-1]
a, lock = dsm.zeros((len(nodes), PAGES, APART)), dsm.Lock()
end = pathlib.Path("end")
if dsm.rank() == servers[-1]:
    a[-1] = 1 + np.arange(PAGES)[:, None]
    with lock:
        pass
dsm.barrier()
dsm.stats(reset=True)
if dsm.rank() == 0:
    waits = []
    for page in np.random.default_rng(5).permutation(PAGES):
        time.sleep(0.005)
        begin = time.monotonic()
        assert a[-1, page, 0] == page + 1
        waits.append(time.monotonic() - begin)
    begin = time.monotonic()
    with lock:
        waits.append(time.monotonic() - begin)
    found = dsm.stats()
    assert found["faults_read"] >= PAGES // 2, found
    end.touch()
    print(f"ms {1e3 * np.median(waits):.3f} {1e3 * max(waits):.3f} rung {found['bells_rung']}", flush=True)
elif dsm.rank() in servers[:BUSY]:
    while not end.exists():
        sum(range(10_000))
    print("heard", dsm.stats()["bells_heard"], flush=True)
dsm.barrier()
"""
SLEEP_MS = 100  # of a service thread that is not rung; a request comes 5 ms after the last one
EARLY_MS = 0.7 * SLEEP_MS


STEPS = """
dsm.init()
a, other, steps = dsm.zeros((2, 512)), 1 - dsm.rank(), 100
def take_steps():
    for _ in range(steps):
        a[dsm.rank()] += 1
        dsm.barrier()
        assert (a[other] == a[dsm.rank()]).all()
        dsm.barrier()
take_steps()
dsm.stats(reset=True)
take_steps()
found = dsm.stats()
if dsm.rank() == 1:
    print(f"sent {found['messages_sent'] / steps} pushed {found['pushes_used'] / steps}", flush=True)
"""


@pytest.mark.parametrize("without", ["", "join"])
def test_an_arrival_and_what_is_pushed_with_it_travel_as_one(run, without):
    job = run(2, STEPS, env={"DSM_NODE": "rank", "DSM_WITHOUT": without})
    assert job.status == 0, job
    sent, pushed = map(float, re.search(r"sent (\S+) pushed (\S+)", job.out).groups())
    assert pushed > 0.9, job
    assert (sent > 2.5) == bool(without), job  # two arrivals and a push


@pytest.mark.parametrize(("node", "ranks"), [("rank", 2), ("rank", 4), ("2", 4)])
def test_a_rank_that_computes_is_rung_and_serves(run, node, ranks):
    job = run(ranks, PROGRAM.replace("BUSY", "None"), env={"DSM_NODE": node})
    assert job.status == 0, job
    median, _, rung = re.search(r"ms (\S+) (\S+) rung (\d+)", job.out).groups()
    assert int(rung) > 0, job
    assert max(map(int, re.findall(r"heard (\d+)", job.out))) > 0, job
    assert float(median) < EARLY_MS, job
    assert "poll" not in job.err


def test_a_request_goes_to_the_rank_of_a_node_that_waits(run):
    """The first rank of the node computes; the second one waits in the barrier, and every message says so."""
    job = run(4, PROGRAM.replace("BUSY", "1"), env={"DSM_NODE": "2"})
    assert job.status == 0, job
    heard, rung = int(re.search(r"heard (\d+)", job.out)[1]), int(re.search(r"rung (\d+)", job.out)[1])
    assert heard < 4 or 3 * heard <= rung, job  # a bell that is not answered in 2 ms goes to all ranks of the node


# What the network does to the datagrams of dsm: those of the self-test have 16 bytes, bells have 8.
LOST = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

int bind(int file, const struct sockaddr *address, socklen_t bytes)
{
    int type = 0;
    socklen_t type_bytes = sizeof type;
    getsockopt(file, SOL_SOCKET, SO_TYPE, &type, &type_bytes);
    if (NO_UDP && address->sa_family == AF_INET && type == SOCK_DGRAM) {
        errno = EACCES;
        return -1;
    }
    return ((int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "bind"))(file, address, bytes);
}

ssize_t sendto(int file, const void *data, size_t bytes, int flags, const struct sockaddr *address, socklen_t length)
{
    if (bytes <= LOST_BYTES_MAX && address && address->sa_family == AF_INET)
        return (ssize_t)bytes;
    return ((ssize_t(*)(int, const void *, size_t, int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "sendto"))(
        file, data, bytes, flags, address, length);
}
"""


@pytest.fixture
def lost(tmp_path, mpicc):
    """Return the path of a library that loses datagrams of so many bytes, or forbids the socket."""

    def build(lost_bytes_max, no_udp):
        source, library = tmp_path / "lost.c", tmp_path / "lost.so"
        source.write_text(LOST)
        sizes = [f"-DLOST_BYTES_MAX={lost_bytes_max}", f"-DNO_UDP={no_udp}"]
        subprocess.run([mpicc, "-shared", "-fPIC", *sizes, "-o", str(library), str(source)], check=True)
        return str(library)

    return build


@pytest.mark.parametrize(("lost_bytes_max", "no_udp"), [(16, 0), (0, 1)], ids=["swallowed", "forbidden"])
def test_without_datagrams_ranks_poll_and_say_so(run, lost, lost_bytes_max, no_udp):
    job = run(2, PROGRAM.replace("BUSY", "None"), env={"DSM_NODE": "rank", "LD_PRELOAD": lost(lost_bytes_max, no_udp)})
    assert job.status == 0, job
    assert job.err.count("dsm: datagrams do not pass between all ranks") == 1, job
    assert float(re.search(r"ms (\S+)", job.out)[1]) < EARLY_MS, job


def test_one_node_says_nothing_of_datagrams_and_needs_none(run, lost):
    program = "a = dsm.zeros(2)\na[dsm.rank()] = 1\ndsm.barrier()\nassert a.sum() == 2\nprint('fine', flush=True)"
    job = run(2, program, env={"DSM_NODE": "host", "LD_PRELOAD": lost(0, 1)})
    assert (job.status, job.out.count("fine")) == (0, 2), job
    assert "datagrams" not in job.err


def test_a_rank_whose_bells_are_all_lost_answers_late(run, lost):
    """When its service thread has slept enough; nothing hangs."""
    job = run(2, PROGRAM.replace("BUSY", "None"), env={"DSM_NODE": "rank", "LD_PRELOAD": lost(8, 0)})
    assert job.status == 0, job
    assert "poll" not in job.err
    median, longest = map(float, re.search(r"ms (\S+) (\S+)", job.out).groups())
    assert EARLY_MS < median < 2 * SLEEP_MS, job
    assert longest < 20 * SLEEP_MS, job
