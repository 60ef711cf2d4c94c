"""The transport as a job of its own in C: order, large messages, closing, and what must end the job with a word."""

import os
import pathlib
import signal
import subprocess

import pytest

from dsm import _launch

ROOT = pathlib.Path(__file__).resolve().parents[2]
MACHINE = ROOT / "csrc" / "machine"
LAYERS = ("transport", "communicator", "sends", "receives", "parts", "chaos")
SOURCES = [MACHINE / f"{name}.c" for name in (*LAYERS, "mpi_process", "clock", "memory", "backing")]
SOURCES.append(ROOT / "tests/native/transport_main.c")


@pytest.fixture(scope="module")
def program(tmp_path_factory, mpicc):
    made = tmp_path_factory.mktemp("transport") / "transport_main"
    words = [mpicc, "-std=c11", "-O2", "-g", "-Wall", "-Wextra", f"-I{MACHINE}", "-o", str(made), *map(str, SOURCES)]
    subprocess.run(words, check=True)
    return made


def job(program, ranks, what, seed=0):
    """Run the job; one that does not end in time is ended with all its processes."""
    words, environ = _launch.command(ranks, [str(program), what, str(seed)])
    process = subprocess.Popen(
        words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            out, err = process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        pytest.fail(f"{what} on {ranks} ranks did not end: {out}{err}")
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("what", "ranks"),
    [
        ("random", 1),
        ("random", 2),
        ("random", 4),
        ("part", 4),
        ("flood", 2),
        ("unreceived", 3),
        ("collectives", 1),
        ("collectives", 3),
    ],
)
def test_messages_come_out_whole_in_order_and_every_buffer_comes_back(program, what, ranks):
    code, out, err = job(program, ranks, what)
    assert (code, out) == (0, "fine\n"), err


@pytest.mark.slow
@pytest.mark.parametrize(("what", "ranks"), [("random", 4), ("flood", 2), ("unreceived", 3), ("overtaking", 3)])
@pytest.mark.parametrize("seed", [1, 2])
def test_with_chaos_messages_come_out_whole_in_any_order(program, what, ranks, seed):
    code, out, err = job(program, ranks, what, seed)
    assert (code, out) == (0, "fine\n"), err


@pytest.mark.parametrize(
    ("what", "ranks", "words"),
    [
        ("null", 2, ["MPI_COMM_NULL"]),
        ("intercommunicator", 2, ["intracommunicator"]),
        ("level", 2, ["MPI_THREAD_MULTIPLE", "mpi4py.rc.thread_level"]),
    ],
)
def test_a_communicator_or_thread_level_that_does_not_do_is_refused_on_every_rank(program, what, ranks, words):
    code, out, err = job(program, ranks, what)
    assert code == 0, err
    lines = [line for line in out.splitlines() if line.startswith("rank ")]
    assert len(lines) == ranks
    assert all(word in line for line in lines for word in words)


@pytest.mark.parametrize(("what", "word"), [("no-such-rank", "broken: MPI_Isend failed: "), ("too-large", "2 GiB")])
def test_what_cannot_be_sent_ends_the_job_with_a_word(program, what, word):
    code, _, err = job(program, 2, what)
    assert code != 0
    assert word in err
