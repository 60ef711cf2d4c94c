"""``python -m dsm run``: which mpiexec, which switches, what becomes of the words of the command line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsm import DSMError, __main__, _doctor, _launch, _preload

MPICH = _launch.LoadedMPI("MPICH Version:      5.0.2\n", "/opt/mpich/lib/libmpi.so.12")
OPEN_MPI = _launch.LoadedMPI("Open MPI v5.0.11, package: x", "/opt/ompi/lib/libmpi.so.40")
INTEL = _launch.LoadedMPI("Intel(R) MPI Library 2021.13 for Linux* OS", "/opt/impi/lib/libmpi.so.12")
HYDRA = "#!/bin/sh\necho 'HYDRA build details:'; echo '    Version:          {}'\n"
PRTE = "#!/bin/sh\necho 'mpiexec (Open MPI) {}'\n"


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(_launch, "cores", lambda: 2)


@pytest.fixture
def user(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


LIBRARY = "/env/dsm/_unmask.abi3.so"


@pytest.fixture(autouse=True)
def library(monkeypatch):
    """The library for LD_PRELOAD is tested by itself: it is not there."""
    monkeypatch.setattr(_preload, "library", lambda: None)


@pytest.fixture
def library_is_there(library, monkeypatch):
    monkeypatch.setattr(_preload, "library", lambda: LIBRARY)


def mpiexec(folder, text, name="mpiexec"):
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(text)
    file.chmod(0o755)
    return str(file)


def plan(ranks, mpi, environ=None, **options):
    return _launch.plan(ranks, ["prog"], mpi=mpi, mpiexec="mpiexec", environ=environ or {}, **options)


# ---- switches ----


MALLOC = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "134217728"}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
THROTTLE = {"MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1", "MPIR_CVAR_CH4_PROGRESS_THROTTLE_NO_PROGRESS_COUNT": "100"}


@pytest.mark.usefixtures("two_cores", "user")
def test_mpich_gets_its_switches_only_when_oversubscribed():
    assert plan(2, MPICH)[:2] == (["mpiexec", "-n", "2", "prog"], ONE_THREAD | MALLOC)
    words, environ, _ = plan(4, MPICH)
    assert words == ["mpiexec", "-n", "4", "prog"]
    assert environ == ONE_THREAD | MALLOC | THROTTLE


@pytest.mark.usefixtures("two_cores", "user")
def test_open_mpi_gets_its_switches():
    assert plan(2, OPEN_MPI).words == ["mpiexec", "--bind-to", "none", "-n", "2", "prog"]
    made = plan(4, OPEN_MPI)
    assert made.words == ["mpiexec", "--bind-to", "none", "--map-by", ":OVERSUBSCRIBE", "-n", "4", "prog"]
    assert made.environ == ONE_THREAD | MALLOC
    assert any(":OVERSUBSCRIBE" in word for word in made.settings)


@pytest.mark.usefixtures("two_cores", "user")
def test_an_mpi_of_mpichs_kind_gets_no_switches_that_it_does_not_know():
    assert plan(4, INTEL)[:2] == (["mpiexec", "-n", "4", "prog"], ONE_THREAD | MALLOC)


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize(
    ("cores", "ranks", "hosts", "threads"),
    [(8, 1, None, None), (8, 2, None, "4"), (8, 3, None, "2"), (8, 16, None, "1"), (8, 2, "a,b", None)]
    + [(8, 4, "a,b", "4"), (8, 16, "a:8,b:8", "1")],
)
def test_libraries_get_as_many_threads_as_there_are_cores_for_a_rank(monkeypatch, cores, ranks, hosts, threads):
    monkeypatch.setattr(_launch, "cores", lambda: cores)
    environ = plan(ranks, MPICH, hosts=hosts).environ
    assert environ.get("OMP_NUM_THREADS") == environ.get("NUMBA_NUM_THREADS") == threads


@pytest.mark.usefixtures("two_cores", "user")
def test_all_that_is_set_is_said_with_its_reason():
    for mpi in (MPICH, OPEN_MPI):
        made = plan(4, mpi)
        said = "; ".join(made.settings)
        assert all(f"{name}={value}" in said for name, value in made.environ.items())
        assert "OMP_NUM_THREADS=1, NUMBA_NUM_THREADS=1 (4 ranks on 2 cores)" in said
        assert "MALLOC_TRIM_THRESHOLD_=134217728 (freed memory is kept)" in said
    given = plan(4, MPICH, dict.fromkeys((*made.environ, *THROTTLE), "0"))
    assert given.settings == []


@pytest.mark.usefixtures("two_cores", "user")
def test_a_node_is_said_to_all_ranks():
    made = plan(4, OPEN_MPI, {"DSM_NODE": "rank"}, node="2", hosts="a,b")
    assert made.environ["DSM_NODE"] == "2"
    assert "-x DSM_NODE" in " ".join(made.words)
    assert "DSM_NODE=2 (--node)" in made.settings
    made = plan(4, OPEN_MPI, {"DSM_NODE": "host"})
    assert made.environ["DSM_NODE"] == "host"
    assert "DSM_NODE" not in "".join(made.settings)


@pytest.mark.parametrize(("uid", "expected"), [(0, True), (1000, False)])
def test_open_mpi_runs_as_root_only_for_root(monkeypatch, uid, expected):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    environ = plan(1, OPEN_MPI).environ
    assert ("OMPI_ALLOW_RUN_AS_ROOT" in environ) is expected
    assert ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM" in environ) is expected


@pytest.mark.usefixtures("two_cores", "user")
def test_what_the_user_has_set_wins():
    environ = {"MPIR_CVAR_CH4_PROGRESS_THROTTLE": "0", "OMP_NUM_THREADS": "5", "MALLOC_TRIM_THRESHOLD_": "1"}
    assert plan(4, MPICH, environ).environ.items() >= environ.items()
    words = plan(4, OPEN_MPI, extra=["--bind-to", "core", "--map-by", "slot:OVERSUBSCRIBE"]).words
    assert words == ["mpiexec", "--bind-to", "core", "--map-by", "slot:OVERSUBSCRIBE", "-n", "4", "prog"]


@pytest.mark.usefixtures("two_cores", "user")
def test_hosts():
    assert plan(8, MPICH, hosts="a,b").words == ["mpiexec", "-hosts", "a,b", "-n", "8", "prog"]
    environ = {"DSM_PAGE_SIZE": "65536", "HOME": "/", "OMP_NUM_THREADS": "3"}
    words = plan(8, OPEN_MPI, environ, hosts="a:4,b:4").words
    assert words[:5] == "mpiexec --bind-to none --host a:4,b:4".split()
    exported = {"DSM_PAGE_SIZE", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", *MALLOC}
    assert words[5:] == [part for name in sorted(exported) for part in ("-x", name)] + "-n 8 prog".split()


def test_a_host_file_is_counted(tmp_path):
    file = tmp_path / "hosts"
    for text in ("# two\nnode1 slots=8\nnode2 slots=8\n\n", "node1:8\nnode2:8\n"):
        file.write_text(text)
        assert _launch._hosts(None, str(file)) == {"node1", "node2"}
    words = plan(8, MPICH, hostfile=str(file)).words
    assert words == ["mpiexec", "-f", str(file), "-n", "8", "prog"]
    assert plan(8, OPEN_MPI, hostfile=str(file)).words[3:5] == ["--hostfile", str(file)]


@pytest.mark.usefixtures("two_cores", "user")
def test_oversubscription_can_be_said():
    assert plan(8, MPICH, hosts="a,b", oversubscribe=True).environ.items() >= THROTTLE.items()
    assert not plan(8, MPICH, oversubscribe=False).environ.keys() & THROTTLE


def test_a_rank_can_start_a_job_of_its_own():
    environ = {"PMI_RANK": "1", "PMI_FD": "9", "PMIX_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "HYDRA_LAUNCHER": "ssh"}
    environ |= {"PRTE_MCA_plm_ssh_agent": "rsh", "PATH": "/bin"}
    assert _launch.outside_of_job(environ) == {
        "HYDRA_LAUNCHER": "ssh",
        "PRTE_MCA_plm_ssh_agent": "rsh",
        "PATH": "/bin",
    }


@pytest.mark.usefixtures("library_is_there", "two_cores", "user")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, LIBRARY),
        ("", LIBRARY),
        ("/opt/own.so", f"/opt/own.so:{LIBRARY}"),  # the user's own goes first
        (f"/opt/own.so {LIBRARY}", f"/opt/own.so {LIBRARY}"),  # a job in a job
    ],
)
def test_the_library_that_keeps_faults_unmasked_is_preloaded(before, after):
    made = plan(2, MPICH, {} if before is None else {"LD_PRELOAD": before})
    assert made.environ["LD_PRELOAD"] == after
    said = [setting for setting in made.settings if "LD_PRELOAD" in setting]
    assert said == (
        [f"LD_PRELOAD={after} (for threads that block all signals, reads into arrays)"] if after != before else []
    )
    assert "LD_PRELOAD" not in plan(2, OPEN_MPI).words
    words = plan(2, OPEN_MPI, hosts="a,b").words
    assert words[words.index("LD_PRELOAD") - 1] == "-x"


def test_a_path_that_the_loader_cannot_be_told_is_left_out(monkeypatch, tmp_path):
    monkeypatch.undo()
    folder = tmp_path / "my environment"
    folder.mkdir()
    (folder / "_unmask.abi3.so").touch()
    monkeypatch.setattr(_preload, "__file__", str(folder / "_preload.py"))
    assert _preload.library() is None


def test_command_gives_words_and_environment():
    words, environ = _launch.command(2, ["prog"], mpi=MPICH, mpiexec="mpiexec", environ={"A": "b"}, oversubscribe=False)
    assert words == ["mpiexec", "-n", "2", "prog"]
    assert environ["A"] == "b"


# ---- which mpiexec ----


def test_mpiexec_beside_the_library_comes_before_path(tmp_path):
    right = mpiexec(tmp_path / "mpi/bin", HYDRA.format("5.0.2"))
    on_path = mpiexec(tmp_path / "path", HYDRA.format("5.0.2"))
    mpi = MPICH._replace(file=str(tmp_path / "mpi/lib/libmpi.so.12"))
    environ = {"PATH": os.path.dirname(on_path)}
    assert _launch.find_mpiexec(mpi, environ, str(tmp_path / "python")) == right


def test_the_mpiexec_of_another_mpi_is_passed_over(tmp_path):
    mpiexec(tmp_path / "mpi/bin", PRTE.format("5.0.2"))
    right = mpiexec(tmp_path / "path", HYDRA.format("4.0.2"), "mpiexec.hydra")
    mpi = MPICH._replace(file=str(tmp_path / "mpi/lib/libmpi.so.12"))
    environ = {"PATH": os.path.dirname(right)}
    assert _launch.find_mpiexec(mpi, environ, str(tmp_path / "python")) == right


def test_the_same_version_is_preferred_to_the_same_family(tmp_path):
    old, new = (mpiexec(tmp_path / number, PRTE.format(number)) for number in ("5.0.1", "5.0.11"))
    environ = {"PATH": f"{os.path.dirname(old)}:{os.path.dirname(new)}"}
    nowhere = OPEN_MPI._replace(file=str(tmp_path / "x" / "libmpi.so.40"))
    assert _launch.find_mpiexec(nowhere, environ, str(tmp_path / "python")) == new


def test_no_mpiexec_is_told_with_the_cure(tmp_path):
    nowhere = OPEN_MPI._replace(file=str(tmp_path / "x" / "libmpi.so.40"))
    alien = OPEN_MPI._replace(library="Frontier MPI 3", file=nowhere.file)
    with pytest.raises(DSMError, match=r"no mpiexec of Frontier MPI 3.*srun"):
        _launch.find_mpiexec(alien, {"PATH": str(tmp_path)}, str(tmp_path / "python"))


def test_the_loaded_mpi_has_an_mpiexec():
    mpi = _launch.loaded_mpi()
    assert os.path.isfile(mpi.file)
    assert os.access(_launch.find_mpiexec(mpi, os.environ), os.X_OK)


# ---- the command line ----


@pytest.mark.parametrize(
    ("words", "ours", "python", "program"),
    [
        (["-n", "4", "p.py", "-n", "7"], ["-n=4"], [], ["p.py", "-n", "7"]),
        (["-n4", "p.py"], ["-n4"], [], ["p.py"]),
        (["-np", "4", "p.py"], ["-np=4"], [], ["p.py"]),
        (["-n", "2", "-m", "pytest", "--with-mpi"], ["-n=2"], [], ["-m", "pytest", "--with-mpi"]),
        (["--hosts", "a,b", "--oversubscribe", "p"], ["--hosts=a,b", "--oversubscribe"], [], ["p"]),
        (["--mpi-args", "--mca x y", "p"], ["--mpi-args=--mca x y"], [], ["p"]),
        (["--mpi-args", "-l", "p"], ["--mpi-args=-l"], [], ["p"]),
        (["--mpi-args=-l", "p"], ["--mpi-args=-l"], [], ["p"]),
        (["-n", "2", "--", "-odd"], ["-n=2"], [], ["-odd"]),
        (["-n", "2", "-X", "dev", "p.py"], ["-n=2"], ["-X", "dev"], ["p.py"]),
        (["-Xdev", "-n", "2", "-u", "p.py", "-u"], ["-n=2"], ["-Xdev", "-u"], ["p.py", "-u"]),
        (["-W", "error", "-Wd", "-OO", "-BEIsS", "p.py"], [], ["-W", "error", "-Wd", "-OO", "-BEIsS"], ["p.py"]),
        (["-uW", "error", "-P", "p.py"], [], ["-uW", "error", "-P"], ["p.py"]),
        (["-n", "2", "-um", "pytest", "-x"], ["-n=2"], ["-u"], ["-m", "pytest", "-x"]),
        (["-n", "2", "-cprint()", "x"], ["-n=2"], [], ["-cprint()", "x"]),
        (["--check-hash-based-pycs", "never", "p"], [], ["--check-hash-based-pycs", "never"], ["p"]),
        (["-h"], ["-h"], [], []),
        (["-z", "p"], ["-z"], [], ["p"]),
        ([], [], [], []),
    ],
)
def test_whose_each_word_is(words, ours, python, program):
    assert _launch._split(words) == (ours, python, program)


def test_what_runs_under_this_python(tmp_path):
    script = tmp_path / "p.py"
    script.touch()
    assert _launch.rank_command([str(script), "x"]) == [sys.executable, str(script), "x"]
    assert _launch.rank_command([str(script)], ["-u"]) == [sys.executable, "-u", str(script)]
    assert _launch.rank_command(["-m", "pytest"], ["-X", "dev"]) == [sys.executable, "-X", "dev", "-m", "pytest"]
    assert _launch.rank_command(["-cpass"]) == [sys.executable, "-cpass"]
    assert _launch.rank_command(["env", "x"]) == ["env", "x"]
    with pytest.raises(DSMError, match="-u is an option of python, but 'env' is not a Python program"):
        _launch.rank_command(["env", "x"], ["-u"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "no program to run"),
        (["-m"], "needs an argument"),
        (["no_such_file.py"], "no file 'no_such_file.py'"),
        (["no-such-program"], "no program 'no-such-program'"),
    ],
)
def test_a_program_that_is_not_there(words, text):
    with pytest.raises(DSMError, match=text):
        _launch.rank_command(words)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run", "-n", "0", "env"], "at least 1"),
        (["run", "--hostfile", "no-such-file", "env"], "no host file"),
        (["run", "--hosts", "a", "--hostfile", "b", "env"], "exclude each other"),
        (["run", "no_such_file.py"], "no file"),
        (["run", "--node", "0", "env"], "--node must be host, rank or a number of ranks of a host, not '0'"),
        (["run", "--node=core", "env"], "not 'core'"),
        (["run", "-z", "env"], "-z is not an option of dsm run or of python"),
    ],
)
def test_mistakes_are_told_before_anything_starts(words, text, capsys):
    assert __main__.main(words) == 2
    assert text in capsys.readouterr().err


def test_help_and_unknown_commands(capsys):
    assert __main__.main(["--help"]) == 0
    assert "doctor" in capsys.readouterr().out
    assert __main__.main(["flourish"]) == 2
    assert "usage" in capsys.readouterr().err


def dsm_run(*words):
    return subprocess.run(
        [sys.executable, "-P", "-m", "dsm", "run", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_run_starts_the_ranks_and_says_what_it_set():
    ranks = _launch.cores() + 1
    made = dsm_run("-n", str(ranks), "-c", "from mpi4py import MPI; print('size', MPI.COMM_WORLD.Get_size())")
    assert made.returncode == 0, made.stderr
    assert made.stdout.split().count(str(ranks)) == ranks
    said = [line for line in made.stderr.splitlines() if line.startswith("dsm run: ")]
    assert len(said) == 1
    assert f"{ranks} ranks on {_launch.cores()} cores" in said[0]


def test_options_of_python_and_of_mpiexec_reach_them():
    label, told = ("--output", "x") if _launch.loaded_mpi().library.startswith("Open MPI") else ("-l", "[1]")
    mpi_args = "--tag-output" if label == "--output" else label
    made = dsm_run("-n", "2", "--mpi-args", mpi_args, "-X", "dev", "-uW", "error", "-c", SAY_FLAGS)
    assert made.returncode == 0, made.stderr
    assert made.stdout.count("dev True, warnings ['error'") == 2, made.stdout
    assert told == "x" or told in made.stdout
    assert re.search(r"[\[<].*[\]>].*dev True", made.stdout), made.stdout


SAY_FLAGS = "import sys; print(f'dev {sys.flags.dev_mode}, warnings {sys.warnoptions[-1:]}')"
SAY_THREADS = """
import numpy, threadpoolctl, numba
counts = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()] + [numba.get_num_threads()]
print(f"threads {counts};")
"""


def test_the_libraries_of_a_rank_have_their_share_of_the_cores(monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    ranks = max(2, _launch.cores())
    made = dsm_run("-n", str(ranks), "-c", SAY_THREADS)
    assert made.returncode == 0, made.stderr
    assert len(re.findall(r"threads \[1(, 1)+\];", made.stdout)) == ranks, made


def test_the_exit_status_passes_through():
    assert dsm_run("-n", "2", "-c", "raise SystemExit(7)").returncode == 7


def test_dry_run_prints_the_command():
    made = dsm_run("-n", "3", "--dry-run", "env", "x y")
    assert made.returncode == 0
    assert made.stdout.strip().endswith("-n 3 env 'x y'")


# ---- info and doctor ----


def test_the_doctor_finds_nothing_or_names_a_cure(capsys):
    checks = [check for checks in _doctor.CHECKS for check in checks()]
    assert {check.status for check in checks} <= {_doctor.OK, _doctor.ADVICE, _doctor.FAIL}
    assert all(check.remedy for check in checks if check.status != _doctor.OK)
    by_name = {check.name: check.status for check in checks}
    assert by_name["thread level"] == _doctor.OK
    assert by_name["dsm starts on one rank"] == _doctor.OK
    assert by_name["two ranks see each other"] == _doctor.OK
    assert by_name["ranks of a host share memory"] != _doctor.FAIL
    assert _doctor.report([_doctor.Check(_doctor.FAIL, "x", "y", "do z")]) == 1
    assert "do z" in capsys.readouterr().out
    assert _doctor.report([_doctor.Check(_doctor.ADVICE, "x", "y", "z")]) == 0


def test_the_doctor_sees_a_limited_address_space(monkeypatch):
    monkeypatch.setattr(_doctor.resource, "getrlimit", lambda which: (1 << 32, 1 << 32))
    check = _doctor.check_address_space()[0]
    assert check.status == _doctor.FAIL
    assert "ulimit -v unlimited" in check.remedy


def test_the_doctor_sees_few_mappings(monkeypatch):
    monkeypatch.setattr(_doctor, "_kernel_number", lambda name: 1000)
    check = _doctor.check_map_count()[0]
    assert check.status == _doctor.FAIL
    assert "sysctl" in check.remedy


def test_the_doctor_sees_the_wrong_pytest_plugin_and_two_wheels(monkeypatch):
    monkeypatch.setattr(_doctor, "_version", lambda name: "1.0")
    found = {check.name: check.status for check in _doctor.check_packages()}
    assert found == {"pytest plugin": _doctor.FAIL, "MPI wheels": _doctor.ADVICE}


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ((1, ""), _doctor.OK, ""),
        ((0, "no mpiexec"), _doctor.FAIL, "no mpiexec"),
        ((2, "it is in another pid namespace; process 7 is in another network"), _doctor.ADVICE, "--pid=host"),
        ((2, "/proc/7 is not there: is /proc mounted, and without hidepid?"), _doctor.ADVICE, "hidepid=0"),
        ((2, "it has snowed"), _doctor.ADVICE, "see the reason"),
    ],
)
def test_the_doctor_tells_why_ranks_cannot_be_one_node(monkeypatch, answer, status, said):
    monkeypatch.setattr(_doctor, "_two_ranks_as_a_node", lambda: answer)
    check = _doctor.check_nodes()[0]
    assert check.status == status
    assert said in check.remedy


def test_the_doctor_knows_a_remedy_for_the_reasons_of_the_core():
    share = (Path(__file__).resolve().parents[2] / "csrc/machine/share.c").read_text()
    assert [words for words in _doctor._APART if words not in share] == []


@pytest.mark.parametrize(("limit", "status"), [(1 << 20, _doctor.FAIL), (1 << 35, _doctor.ADVICE), (-1, _doctor.OK)])
def test_the_doctor_sees_a_limit_of_files(monkeypatch, limit, status):
    asked = _doctor.resource.RLIMIT_FSIZE
    monkeypatch.setattr(_doctor.resource, "getrlimit", lambda which: (limit if which == asked else -1, -1))
    check = _doctor.check_address_space()[1]
    assert check.status == status
    assert check.name == "size of files (ulimit -f)"


def test_the_doctor_counts_the_ranks_that_shared_memory_has_room_for(monkeypatch):
    monkeypatch.setattr(_launch, "cores", lambda: 8)
    monkeypatch.setattr(_launch, "loaded_mpi", lambda: OPEN_MPI)
    monkeypatch.setattr(_doctor.shutil, "disk_usage", lambda folder: _doctor.shutil._ntuple_diskusage(0, 0, 64 << 20))
    check = _doctor.check_sessions()[0]
    assert (check.status, check.name) == (_doctor.ADVICE, "/dev/shm")
    assert "room for 4 ranks" in check.found
    assert "--shm-size" in check.remedy
    monkeypatch.setattr(_launch, "loaded_mpi", lambda: MPICH)
    check = _doctor.check_sessions()[0]
    assert check.status == _doctor.OK
    assert "room for 10 ranks" in check.found


def test_the_doctor_tells_of_the_threads_of_libraries(monkeypatch):
    monkeypatch.setattr(_launch, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    check = _doctor.check_library_threads()[0]
    assert check.status == _doctor.ADVICE
    assert "8 in each rank" in check.found
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert _doctor.check_library_threads()[0].status == _doctor.OK


def test_the_doctor_sees_a_bell_that_cannot_be_rung(monkeypatch):
    monkeypatch.setattr(_doctor, "_ring", lambda: "silence")
    assert [check.status for check in _doctor.check_doorbell()] == [_doctor.FAIL]


def test_the_doctor_sees_a_core_that_does_not_load(monkeypatch):
    monkeypatch.setattr(_doctor, "probe", lambda: {"library": MPICH.library, "threads": 1, "error": "the core is ill"})
    failed = {check.name: check.remedy for check in _doctor.check_core() if check.status == _doctor.FAIL}
    assert "FUNNELED" in failed["thread level"]
    assert failed["dsm starts on one rank"] == "the core is ill"


def test_a_patient_that_dies_is_reported(monkeypatch):
    monkeypatch.setattr(_doctor, "_PROBE", "import os; os.kill(os.getpid(), 9)")
    assert "status -9" in _doctor.probe()["error"]


def test_info_shows_what_is_in_force(monkeypatch, capsys):
    monkeypatch.setenv("DSM_PAGE_SIZE", "65536")
    monkeypatch.setenv("DSM_TYPO", "1")
    monkeypatch.setenv("DSM_NODE", "2")
    _doctor.info()
    out = capsys.readouterr().out
    assert "65536 bytes, from DSM_PAGE_SIZE" in out
    assert "DSM_TYPO" in out
    assert "2 ranks of a host, from DSM_NODE" in out
    assert "vm.max_map_count" in out
    assert "MPI_THREAD_MULTIPLE" in out
