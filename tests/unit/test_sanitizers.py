"""The C code under the sanitizers: the protocol in the simulator and in the unit tests under those for addresses and
undefined behaviour, and the runtime with all its threads under the one for data races (tests/native/race.h).
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NATIVE = ROOT / "tests" / "native"
CC = os.environ.get("CC", "cc")


def library(name):
    """Where the compiler has a sanitizer's library; the test is skipped where it has none."""
    path = subprocess.run([CC, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
    if not pathlib.Path(path).is_absolute():
        pytest.skip(f"this compiler has no {name}")
    return path


def make(file, target, **variables):
    words = ["make", "-s", "-f", str(NATIVE / file), target, *(f"{name}={value}" for name, value in variables.items())]
    subprocess.run(words, check=True)


# --- addresses and undefined behaviour --------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_the_simulator_under_the_address_sanitizer(tmp_path):
    """Every block of protocol memory is one of malloc, so an access beyond it is seen."""
    library("libasan.so")
    make("sim.mk", "sim-asan", SIM_BUILD=tmp_path)
    for knobs in ([], ["--damage=3", "--steps_max=60000"]):
        words = [tmp_path / "sim-asan", "--seed=900000", "--runs=150", *knobs]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "ERROR" not in done.stderr
        assert int(re.search(r"programs +(\d+)", done.stdout).group(1)) > 50


# Runs tests/unit/test_simulator.py with a module that is compiled for the sanitizers, in a place of its own, and with
# the pool of malloc.  It is compiled without the sanitizer's library in front, which would slow the compiler down, and
# is loaded with it.
UNDER_SANITIZERS = """
import importlib.util, os, pathlib, sys
sys.path.insert(0, {tests!r})
from native import native_build
native_build.directory = lambda: pathlib.Path({folder!r})
sources = {{path.name: path for path in native_build.sources()}}
sources["pool.c"] = native_build.HERE / "pool_malloc.c"
native_build.sources = lambda: list(sources.values())
if "LD_PRELOAD" not in os.environ:
    importlib.util.spec_from_file_location = lambda *_: sys.exit(0)
    native_build.load()
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", {root!r}, {file!r}, "-k", {which!r}]))
"""
PARTS = "diff or vector or message or reader or log or addresses or departure or sizes or bodies"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_unit_tests_of_the_protocol_under_the_address_sanitizer(tmp_path):
    """Python is not compiled for it, so its library is loaded first; leaks are Python's own, and not looked for."""
    first = [library("libasan.so"), library("libubsan.so")]
    flags = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
    file = ROOT / "tests" / "unit" / "test_simulator.py"
    which = f"({PARTS}) and not programs and not damaged"
    program = UNDER_SANITIZERS.format(
        tests=str(ROOT / "tests"), folder=str(tmp_path), root=str(ROOT), file=str(file), which=which
    )
    environ = {**os.environ, "CFLAGS": flags, "LDFLAGS": flags, "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=8"}
    words = [sys.executable, "-P", "-c", program]
    subprocess.run(words, env=environ, cwd=tmp_path, check=True)
    environ["LD_PRELOAD"] = " ".join(first)
    done = subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) > 200
    built = next(tmp_path.glob("*.so"))
    assert b"__asan_report" in built.read_bytes()


# --- data races -------------------------------------------------------------------------------------------------------


def build_race(folder, csrc=ROOT / "csrc"):
    library("libtsan.so")
    make("race.mk", "race", RACE_BUILD=folder, RACE_CSRC=csrc)
    return folder / "race"


def run_race(program, *arguments):
    """Run it, without random addresses where ThreadSanitizer cannot do with them."""
    words = [str(program), *arguments]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    if "unexpected memory mapping" in done.stderr:
        setarch = shutil.which("setarch")
        if setarch:
            done = subprocess.run([setarch, "-R", *words], capture_output=True, text=True, timeout=300)
        if not setarch or "personality" in done.stderr or "unexpected memory mapping" in done.stderr:
            pytest.skip("ThreadSanitizer cannot run with this kernel's random addresses, and setarch -R is not allowed")
    return done


@pytest.fixture(scope="module")
def race(tmp_path_factory):
    return build_race(tmp_path_factory.mktemp("race"))


@pytest.mark.parametrize(
    "arguments", [[], ["--budget=1"], ["--chaos=7", "--ranks=3"], ["--progress=2", "--budget=20000"]], ids=" ".join
)
@pytest.mark.timeout(600)
def test_the_runtime_has_no_data_race(race, arguments):
    """Two threads of each rank under locks, at barriers and in faults, beside the service thread and the watchdog."""
    seconds = os.environ.get("DSM_TEST_RACE_SECONDS", "3")
    done = run_race(race, f"--seconds={seconds}", *arguments)
    assert "ThreadSanitizer" not in done.stderr, done.stderr[:20000]
    assert done.returncode == 0, done.stderr
    ranks = re.findall(r"rank \d: (\d+) steps, .* (\d+) read and (\d+) write faults.* (\d+) lock grants", done.stdout)
    assert len(ranks) == (3 if "--ranks=3" in arguments else 2)
    assert all(int(number) > 5 for rank in ranks for number in rank), done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lock_that_is_taken_out_is_found(tmp_path):
    """A look at the statistics without the mutex, in a copy of the sources."""
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    path = tmp_path / "csrc" / "runtime" / "statistics.c"
    code = path.read_text()
    begin = code.index("static int sum(")
    function = code[begin : code.index("\n}\n", begin)]
    assert function.count("progress_lock(runtime);") == function.count("progress_unlock(runtime);") == 1
    without = function.replace("progress_lock(runtime);", "").replace("progress_unlock(runtime);", "")
    path.write_text(code.replace(function, without))
    done = run_race(build_race(tmp_path, tmp_path / "csrc"), "--seconds=3")
    assert done.returncode == 66
    assert re.search(r"WARNING: ThreadSanitizer: data race", done.stderr)
    assert re.search(r"#\d (sum|add_space|dsm_stats) ", done.stderr), done.stderr[:2000]
