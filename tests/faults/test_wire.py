"""A malformed message in a running job ends it: one clear line, on the rank that received it, and all ranks are gone.

Real messages of a real job are damaged on their way into MPI by a library that stands before MPI_Isend
(tests/native/fuzz_job.c), so nothing in the product is there for this test.
"""

import pathlib
import re
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = ("fetch", "reply", "push", "acquire", "pass", "grant", "busy", "withdraw", "withdrawn", "arrive", "depart",
         "add", "sum", "request_collection", "collect", "roll_call", "absent", "held")  # fmt: skip

# Every kind of message travels from each rank to the other that sends it at all; ends by itself if nobody minds.
PROGRAM = """
a = dsm.zeros(20_000)
b = dsm.zeros(20_000)
locks = [dsm.Lock() for _ in range(2)]
counters = [dsm.Counter() for _ in range(2)]
end = time.monotonic() + 20
step = 0
while time.monotonic() < end and step < 300:
    step += 1
    a[dsm.rank() :: 2] = step
    for lock in locks:
        if lock.acquire(blocking=False):
            b[:600] += 1
            time.sleep(0.001)  # long enough for the other rank to be refused
            lock.release()
        with lock:
            b[dsm.rank() * 100] += 1
    for counter in counters:
        counter.next()
    dsm.barrier()
    assert (a == step).all()
    dsm.barrier()
print("nobody minded", flush=True)
"""

# The same of what ranks ask each other when they wait for long.
ASKED = ("roll_call", "absent", "held")
ASKING = """
lock = dsm.Lock()
end = time.monotonic() + 20
for step in range(40):
    if time.monotonic() > end:
        break
    if dsm.rank() == 1:
        lock.acquire()
    dsm.barrier()
    if dsm.rank() == 0:
        lock.acquire()
    else:
        time.sleep(0.4)
    lock.release()
    dsm.barrier()
    if dsm.rank() == step % 2:
        time.sleep(0.4)
    dsm.barrier()
print("nobody minded", flush=True)
"""


@pytest.fixture(scope="module")
def damaged(tmp_path_factory, mpicc):
    made = tmp_path_factory.mktemp("damage") / "fuzz_job.so"
    words = [mpicc, "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-shared", "-fPIC", f"-I{ROOT / 'csrc'}"]
    subprocess.run([*words, "-o", str(made), str(ROOT / "tests" / "native" / "fuzz_job.c")], check=True)
    return made


def damage(start, library, rank, kind, how, after=3):
    job = start(
        2,
        ASKING if kind in ASKED else PROGRAM,
        env={
            "DSM_WATCHDOG_S": "0.4" if kind in ASKED else "10",
            "LD_PRELOAD": str(library),
            "DSM_TEST_DAMAGE_RANK": str(rank),
            "DSM_TEST_DAMAGE_KIND": str(1 + KINDS.index(kind)),
            "DSM_TEST_DAMAGE_HOW": how,
            "DSM_TEST_DAMAGE_AFTER": str(after),
            "DSM_COLLECT_BYTES": "20000",
        },
    )
    return job.wait(60)


def sender_of(kind):
    """The rank that sends such messages to the other in a job of two: lock, counter and root are on rank 0, or on 1."""
    return 0 if kind in ("depart", "collect") else 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_message_of_every_kind_that_ends_early(start, damaged, kind):
    """The last byte of the body is missing; where there is no body, of the header."""
    sender = sender_of(kind)
    job = damage(start, damaged, sender, kind, "stub" if kind in ("request_collection", "collect") else "short")
    assert job.status != 0, job
    assert "nobody minded" not in job.out
    lines = re.findall(r"dsm: rank (\d) of 2: malformed message(?: of kind (\d+))? from rank (\d) \(\d+ b", job.err)
    assert len(lines) == 1, job
    receiver, said, peer = lines[0]
    assert (int(receiver), int(peer)) == (1 - sender, sender)
    assert said in ("", str(1 + KINDS.index(kind)))
    assert re.search(r"dsm:   stamp \d+ \w+", job.err), "the last events of the node are told"


@pytest.mark.parametrize("how", ["length", "magic", "sender", "kind", "stamp", "stub", "empty"])
def test_a_header_that_is_wrong(start, damaged, how):
    begin = time.monotonic()
    job = damage(start, damaged, 1, "arrive", how)
    assert time.monotonic() - begin < 30
    assert job.status != 0, job
    assert "nobody minded" not in job.out
    assert len(re.findall(r"dsm: rank 0 of 2: malformed message.* from rank 1 \(\d+ bytes\)", job.err)) == 1, job


def test_a_job_without_damage_is_left_alone(start, damaged):
    """The library is there, but no message is the one: what ends the other jobs is the damage."""
    job = damage(start, damaged, 1, "arrive", "short", after=10**9)
    assert job.status == 0, job
    assert job.out.count("nobody minded") == 2
