"""`python -m benchmarks run`, `list`, `sweep`, `compare`: what is counted and kept, and how bad input is told."""

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # last: what is measured is the dsm that is installed, or named by PYTHONPATH

from mpi4py import MPI  # noqa: E402

from benchmarks import ablation, apps, cli, counting, floor, job, lines, results, run  # noqa: E402
from benchmarks.app import SIZES, VERSIONS, Team, WrongResultError, private  # noqa: E402
from dsm import _launch  # noqa: E402

APPS = apps.load()


def call(*words, timeout=100):
    """Run the command as users do, in a process of its own, which takes a second to import the libraries."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture
def call_here(capsys):
    """Run the command in this process; returns what `call` does."""

    def run_here(*words):
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        capsys.readouterr()
        try:
            status = cli.main(list(map(str, words)), "")
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return subprocess.CompletedProcess(words, status, *capsys.readouterr())

    return run_here


def record(version="dsm", times=(1.0, 1.0, 1.0), **more):
    made = {"kind": "app", "job": "j", "time": "t", "commit": "c", "mpi": "X 1", "network": "one host", "node": "host"}
    made |= {"machine": {"host": "a", "cpu": "b", "cores": 2}, "software": {}, "ranks": 2, "page_size": 4096}
    made |= {"aggregation": True, "app": "jacobi", "size": "small", "scaling": "strong", "version": version}
    return made | {"times_s": list(times), "checksum": "0", "counters": {}, "lines": 1} | more


def write(path, *records):
    results.append(path, records)
    return path


# ---- applications ----


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
def test_an_application_has_all_that_the_suite_needs(app):
    assert set(app.sizes) == set(SIZES)
    assert 0 < app.reach <= 1
    assert all(app.memory(app.sizes[size]) > 0 for size in SIZES)
    assert app.memory(app.sizes["tiny"]) <= app.memory(app.sizes["paper"])
    assert all(lines.lines_of(app, version) > 0 for version in VERSIONS)


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
def test_a_wrong_result_is_refused(app):
    problem = app.make(app.sizes["tiny"])
    reference = private(app.serial(problem, Team(None, 0, 1)))
    app.verify(problem, reference, reference)
    refused = 0
    for name, value in reference.items():
        wrong = dict(reference) | {name: np.logical_not(value) if value.dtype == bool else value + np.ones_like(value)}
        try:
            app.verify(problem, wrong, reference)
        except WrongResultError:
            refused += 1
    assert refused, f"{app.name}: no part of its result can be wrong"


AN_APP = """
from functools import cache as kernel

@kernel
def loop(x):
    return x

def shared():
    return 1

class Queue:
    '''Two
    lines.'''

    def get(self):
        '''Get.'''
        return 1  # why

def serial(p, t):
    '''S.'''
    return loop(shared())

def by_mpi4py(p, t):
    '''M.'''
    # a comment

    a = Queue().get()
    return loop(shared() +
                a)

def by_dsm(p, t):
    return loop(shared())
"""


def test_the_lines_of_a_version_leave_out_what_is_shared_with_serial_and_what_is_no_code(tmp_path, monkeypatch):
    (tmp_path / "an_app.py").write_text(AN_APP)
    monkeypatch.syspath_prepend(tmp_path)
    import an_app

    app = dataclasses.replace(APPS["jacobi"], serial=an_app.serial, mpi4py=an_app.by_mpi4py, dsm=an_app.by_dsm)
    assert lines.lines_of(app, "dsm") == 2
    assert lines.lines_of(app, "mpi4py") == 4 + 3  # and Queue, get, return
    assert lines.lines_of(app, "serial") == 2 + 2  # and shared


# ---- messages of mpi4py programs ----


@pytest.mark.parametrize(
    ("buffer", "bytes_"),
    [
        (np.zeros(5), 40),
        ([np.zeros(5), 3], 24),
        ([np.zeros(5), [1, 2]], 24),
        ([np.zeros(5), ([1, 3], [0, 1])], 32),
        ([np.zeros(5), "d"], 40),
        (None, 0),
    ],
)
def test_the_bytes_of_a_buffer_are_those_that_it_names(buffer, bytes_):
    assert counting.bytes_of(buffer) == bytes_


def test_a_call_that_is_not_counted_is_an_error():
    class Comm:
        rank, size = 1, 2

        def Neighbor_alltoall(self):
            pass

    with pytest.raises(AttributeError, match="Neighbor_alltoall is not counted"):
        _ = counting.CountedComm(Comm()).Neighbor_alltoall


# ---- results ----


def test_what_is_appended_is_read_again(tmp_path):
    path = write(tmp_path / "new" / "results.jsonl", record("mpi4py"), record("dsm"))
    write(path, record("dsm", job="k"))
    assert [r["job"] for r in results.load(path)] == ["j", "j", "k"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: not a record"),
        ('{"kind": "app"}', "line 2: lacks time"),
        (json.dumps(record(times=[])), "line 2: times_s holds no times"),
        (json.dumps(record(times=[1.0, -1.0])), "line 2: times_s holds something that is not a time"),
    ],
)
def test_a_damaged_file_is_named_with_its_line_and_stays_as_it_is(call_here, tmp_path, line, told):
    path = write(tmp_path / "results.jsonl", record())
    before = path.read_text() + line + "\n"
    path.write_text(before)
    with pytest.raises(results.ResultsError, match=told):
        results.load(path)
    made = call_here("run", "jacobi", "--size", "tiny", "--results", path)
    assert (made.returncode, path.read_text()) == (2, before)
    assert told in made.stderr
    assert made.stderr.count("\n") == 1


def test_results_of_other_nodes_are_other_runs_and_old_ones_had_a_node_for_each_rank(tmp_path):
    old = record()
    del old["node"]
    path = write(tmp_path / "results.jsonl", old, record(node="rank"), record(node="host"))
    found = results.load(path)
    assert [r["node"] for r in found] == ["rank", "rank", "host"]
    assert [key.node for key in results.latest(found)] == ["rank", "host"]


def test_jobs_are_told_which_ranks_are_a_node_and_where_they_run(monkeypatch):
    monkeypatch.setenv("DSM_NODE", "7")
    with run.Place(node="2").command(2, ["x"], {"DSM_PAGE_SIZE": "8192"}) as (_, environ):
        assert (environ["DSM_NODE"], environ["DSM_PAGE_SIZE"]) == ("2", "8192")
    assert run.Place(rate="full").network == "full"
    assert run.Place(rate="full", per_host=2).network == "full, 2 ranks a host"


def test_sweeps_over_pages_run_between_hosts_unless_something_else_is_said(call_here, monkeypatch, tmp_path):
    places = []
    monkeypatch.setattr(cli, "measure", lambda runs, known, place, options: places.append(place) or 0)
    words = ("sweep", "pages", "jacobi", "--results", tmp_path / "results.jsonl")
    monkeypatch.setattr(cli.hosts, "Hosts", lambda count: contextlib.nullcontext())
    monkeypatch.setattr(cli.hosts, "why_not", lambda: "")
    assert call_here(*words).returncode == 0
    assert call_here(*words, "--node", "host").returncode == 0

    def refuse(count):
        raise cli.hosts.NoHostsError("not here")

    monkeypatch.setattr(cli.hosts, "Hosts", refuse)
    assert "nodes of this host stand for them: not here" in call_here(*words).stderr
    assert [(place.rate, place.node) for place in places] == [("full", "host"), ("", "host"), ("", "rank")]


def test_nodes_are_compared_on_hosts_of_two_ranks_or_on_one_host_that_stands_for_them(call_here, monkeypatch, tmp_path):
    places = []
    monkeypatch.setattr(cli, "measure", lambda runs, known, place, options: places.append((runs[0].ranks, place)) or 0)
    words = ("sweep", "nodes", "jacobi", "--results", tmp_path / "results.jsonl")
    monkeypatch.setattr(cli.hosts, "Hosts", lambda count: contextlib.nullcontext())
    monkeypatch.setattr(cli.hosts, "why_not", lambda: "")
    assert call_here(*words).returncode == 0

    def refuse(count):
        raise cli.hosts.NoHostsError("not here")

    monkeypatch.setattr(cli.hosts, "Hosts", refuse)
    assert call_here(*words).returncode == 0
    found = [(ranks, place.rate, place.per_host, place.node) for ranks, place in places]
    assert found == [(4, "full", 2, "host"), (4, "full", 2, "rank"), (4, "", 1, "2"), (4, "", 1, "rank")]


def test_versions_of_different_jobs_are_not_put_beside_each_other():
    found = results.latest([record("mpi4py"), record("dsm"), record("dsm", job="k")])
    assert [set(versions) for versions in found.values()] == [{"dsm"}]


def test_the_interval_holds_the_median_and_is_the_same_each_time():
    times = [1.0, 1.1, 1.2, 1.3, 5.0]
    found = results.median(times)
    assert found == results.median(times)
    assert found.value == 1.2
    assert 1.0 <= found.low <= 1.2 <= found.high <= 5.0
    ratio = results.ratio([2.0, 2.2, 2.4], [1.0, 1.1, 1.2])
    assert math.isclose(ratio.value, 2.0)
    assert ratio.low < 2.0 < ratio.high


def test_runs_of_different_machines_are_not_compared(call_here, tmp_path):
    old = write(tmp_path / "old", record())
    new = write(tmp_path / "new", record(machine={"host": "z", "cpu": "b", "cores": 4}))
    made = call_here("compare", old, new)
    assert made.returncode == 2
    assert made.stderr.count("\n") == 1
    assert "runs of different machines cannot be compared: a (b, 2 cores) and z (b, 4 cores)" in made.stderr


def test_a_change_is_told_where_the_interval_leaves_no_doubt(call_here, tmp_path):
    old = write(tmp_path / "old", record(times=[2.0, 2.01, 2.02]), record("mpi4py", [1.0, 1.5, 2.0]))
    new = write(tmp_path / "new", record(times=[1.0, 1.01, 1.02]), record("mpi4py", [1.1, 1.4, 2.1]))
    made = call_here("compare", old, new)
    assert made.returncode == 0
    assert "faster" in made.stdout
    assert "slower" not in made.stdout


# ---- the command ----


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "nothing"], "there is no application 'nothing'; there are"),
        (["run", "--page-size", "5000"], "page size 5000 must be a power of two"),
        (["run", "--page-size", "4G"], "page sizes are like"),
        (["run", "--ranks", "0"], "numbers of ranks are like 1,2,4"),
        (["run", "--size", "huge"], "invalid choice: 'huge'"),
        (["run", "--hostfile", "/nowhere"], "host file /nowhere: No such file"),
        (["run", "--node", "some"], "a node is host, rank or a number of ranks, not 'some'"),
        (["sweep", "pages", "--node", "0"], "a node is host, rank or a number of ranks, not '0'"),
        (["run", "--per-host", "2"], "--per-host 2 needs --hosts"),
        (["run", "--repetitions", "3"], "3 repetitions are too few"),
        (["run", "matmul", "--size", "large", "--ranks", "4096"], "GiB are free: take a smaller --size or fewer"),
        (["sweep", "tsp"], "invalid choice: 'tsp'"),
        (["compare", "/nowhere", "/nowhere"], "/nowhere: cannot be read: No such file"),
        (["report", "/nowhere"], "/nowhere: cannot be read: No such file"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_bad_input_is_told_in_a_line(call_here, words, told, tmp_path):
    path = tmp_path / "results.jsonl"
    made = call_here(*words, *(["--results", path] if words[0] in ("run", "sweep") else []))
    assert (made.returncode, made.stdout) == (2, "")
    assert told in made.stderr
    assert made.stderr.count("\n") == 1
    assert not path.exists()


def test_a_host_that_is_not_known_is_named(call_here, tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("# ours\nlocalhost slots=2\nno-such-host.invalid:4\n")
    made = call_here("run", "--hostfile", hosts, "--results", tmp_path / "results.jsonl")
    assert (made.returncode, made.stderr.count("\n")) == (2, 1)
    assert "there is no host 'no-such-host.invalid'" in made.stderr


def test_list_shows_every_application(call_here):
    shown = call_here("list").stdout
    assert all(name in shown for name in APPS)


def test_a_run_is_kept_with_what_explains_it(tmp_path):
    path = tmp_path / "results.jsonl"
    words = (
        "run",
        "jacobi",
        "--size",
        "tiny",
        "--repetitions",
        "2",
        "--ranks",
        "1,2",
        "--page-size",
        "64K",
        "--node",
        "rank",
    )
    made = call(*words, "--results", path)
    assert made.returncode == 0, made.stderr
    records = results.load(path)
    assert [(r["ranks"], r["version"]) for r in records] == [
        *((1, version) for version in VERSIONS),
        *((2, version) for version in VERSIONS[1:]),
    ]
    assert len({r["checksum"] for r in records}) == 1  # bit by bit the same
    for r in records:
        assert r["node"] == "rank"
        assert (len(r["times_s"]), r["page_size"], r["machine"]) == (2, 65536, results.machine())
    messages = records[4]["counters"]
    assert messages == {"messages_sent": 2 * 6, "bytes_sent": 2 * 6 * 64 * 8}  # a row each way in six steps
    assert records[5]["counters"]["barriers"] == 2 * 6
    assert records[6]["counters"] == {}  # the floor has no dsm in it


# ---- the ablation ----


def counted(app, without, messages, **more):
    counters = dict.fromkeys(("faults_read", "faults_write", "faults_local", "refetch_waits", "bytes_sent"), 0)
    counters |= {"messages_sent": messages}
    return record(kind="ablation", app=app, without=without, counters=counters) | more


def test_what_gains_little_everywhere_falls_and_noise_is_no_gain():
    made = ablation.Ablation(
        [
            *(counted("jacobi", word, 1000) for word in ("", "push", "pieces", "join", "")),
            *(counted("tsp", word, n) for word, n in (("", 1000), ("push", 1000), ("pieces", 1180), ("join", 1010))),
            counted("tsp", "", 1300),
            counted("jacobi", "push", 1150, ranks=4),
            *[counted("jacobi", "", 1000, ranks=4)] * 2,
        ]
    )
    assert made.words == ["push", "pieces", "join"]
    assert [made.falls(word) for word in made.words] == [False, True, True]
    assert made.largest("push")[1:] == ("jacobi", "messages", 4)
    table = ablation.markdown(made)
    assert "| `pieces` | 1.01 |  | " in table  # tsp with all: the mean of 1000 and 1300
    assert "| tsp | 1,000 to 1,300 | 0.87 | 1.03 | 0.88 |" in table


def test_next_to_nothing_decides_nothing():
    made = ablation.Ablation(
        counted(app, *run) for app in ("ep", "cg") for run in (("", 6), ("push", 6 + (app == "ep")))
    )
    assert made.falls("push")


def test_an_ablation_runs_all_applications_and_goes_into_a_document(call_here, tmp_path):
    path, document = tmp_path / "ablation.jsonl", tmp_path / "page.md"
    document.write_text(f"before\n{ablation.BEGIN}\nold\n{ablation.END}\nafter\n")
    words = ("ablation", "jacobi", "ep", "-n", "2", "--size", "tiny", "--repetitions", "1", "--node", "rank")
    made = call_here(*words, "--without", "refetch", "--results", path, "--into", document)
    assert made.returncode == 0, made.stderr
    found = [(r["without"], r["app"]) for r in results.load(path)]
    assert found == [(word, app) for word in ("", "refetch", "") for app in ("jacobi", "ep")]
    assert document.read_text().startswith(f"before\n{ablation.BEGIN}\n\nWithout one optimisation")
    assert document.read_text().endswith(f"\n{ablation.END}\nafter\n")
    assert "old" not in document.read_text()
    assert ablation.Ablation(results.load(path)).largest("refetch").app == "jacobi"
    assert call_here("ablation", "--kept", "--results", path).stdout in made.stdout
    assert len(results.load(path)) == 6


A_PROGRAM_ON_THE_FLOOR = """
import sys
sys.path.append({root!r})
import numpy as np
from mpi4py import MPI
from benchmarks.floor import Floor

with Floor(MPI.COMM_WORLD) as floor:
    rank, size = floor.rank(), floor.size()
    a, counts, turn = floor.array(np.arange(5.0)), floor.zeros((size, 3), int), floor.zeros(1, int)
    assert a.tolist() == [0, 1, 2, 3, 4] and not counts.any() and floor.zeros_like(counts).shape == (size, 3)
    lock, turns = floor.Lock(), floor.Condition()
    for step in range(200):
        counts[rank, 0] = step
        floor.barrier()
        assert (counts[:, 0] == step).all()
        floor.barrier()
        with lock:
            counts[0, 1] += 1
        with turns:
            turns.wait_for(lambda: turn[0] % size == rank)
            assert turn[0] == step * size + rank
            turn[0] += 1
            turns.notify_all()
    floor.barrier()
    assert counts[0, 1] == 200 * size
    del a, counts, turn
"""


@pytest.mark.parametrize("ranks", [1, 3])
def test_barriers_locks_and_conditions_of_the_floor_keep_ranks_apart(ranks, tmp_path):
    program = tmp_path / "floor.py"
    program.write_text(A_PROGRAM_ON_THE_FLOOR.format(root=str(ROOT)))
    plan = _launch.plan(ranks, [sys.executable, "-P", "-m", "mpi4py", str(program)])  # which aborts after an error
    assert job.wait(plan.words, plan.environ, 100) == 0


def test_an_application_runs_on_the_floor_and_has_dsm_back_afterwards():
    import dsm

    app, module = APPS["qsort"], sys.modules[APPS["qsort"].dsm.__module__]
    problem = app.make(app.sizes["tiny"])
    with floor.instead_of_dsm(app.dsm, MPI.COMM_SELF):
        assert module.dsm is not dsm
        app.verify(problem, private(app.floor(problem, Team(None, 0, 1))), None)
    assert module.dsm is dsm


def test_a_wrong_result_is_an_error_and_not_a_time(tmp_path, monkeypatch):
    program = tmp_path / "rank.py"
    program.write_text(
        f"import sys\nsys.path.append({str(ROOT)!r})\n"
        "import dataclasses\nfrom benchmarks import apps, suite_rank\n"
        "app = apps.load_one('jacobi')\n"
        "wrong = lambda problem, team: {'grid': app.dsm(problem, team)['grid'] + 1}\n"
        "apps.load_one = lambda name: dataclasses.replace(app, dsm=wrong)\n"
        "raise SystemExit(suite_rank.main())\n"
    )
    made = run.Run("jacobi", "tiny", 1)
    monkeypatch.setattr(run.Run, "program", lambda self, repetitions: _program(program, repetitions))
    path = tmp_path / "results.jsonl"
    runner = run.Runner(APPS, run.Place(), 1, path)
    runner.run([made])
    assert runner.kept == 0
    assert "wrong result: jacobi, dsm: " in runner.failures[0]
    assert "points differ from serial" in runner.failures[0]
    assert not path.read_text()


def _program(program, repetitions):
    words = [sys.executable, "-P", str(program), "--app", "jacobi", "--size", "tiny", "--versions", "mpi4py,dsm"]
    return [*words, "--repetitions", str(repetitions)]


def test_ctrl_c_leaves_no_process_and_keeps_what_was_finished(tmp_path):
    path = tmp_path / "results.jsonl"
    words = ["run", "jacobi", "--size", "tiny", "--ranks", "1", "--repetitions", "200000", "--results", str(path)]
    write(path, record())
    job = subprocess.Popen([sys.executable, "-m", "benchmarks", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (ranks := _ranks_of(job.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ranks
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 130
    assert "what was finished is kept" in said
    assert len(results.load(path)) == 1
    while any(os.path.exists(f"/proc/{rank}") for rank in ranks) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{rank}") for rank in ranks)


def _ranks_of(pid):
    """Return the processes below one that run the rank's program."""
    import psutil

    found = psutil.Process(pid).children(recursive=True)
    return [p.pid for p in found if any("suite_rank.py" in word for word in p.cmdline()) and "mpiexec" not in p.name()]
