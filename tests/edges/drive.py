"""Run random programs that start and end in every way, and say which did not come to the end that README promises.

    python -P tests/edges/drive.py --seed 1 --runs 2000 [--jobs 2]

Runs the programs of the seeds 1, 2, ... and prints of each that fails its seed, the promise, what came of it, and the
program, which is small enough to be cut down by hand.  The same seed is the same program; its schedule is what the
machine makes of it, so a failure may need --again 20.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import os
import pathlib
import re
import secrets
import signal
import sys
import tempfile
import time

import psutil

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))

import jobs
from edges import programs

LIMIT_S = 10  # for a whole job, on a machine that has nothing else to do
LIMIT_OF_BUSY_S = 60
LAST_WORDS = r"dsm: rank (\d+) of \d+: "
NOT_OF_A_SUCCESS = r"Traceback|Exception ignored|[Ss]egmentation fault|Fatal Python error"
FILES = {"program.py", "saved.npy"}


def limit_s():
    """The limit on this machine as it is now: longer, the more threads than cores want to run."""
    return min(LIMIT_OF_BUSY_S, LIMIT_S * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0))))


def ranks_of(job):
    """The processes of the ranks, and not those of the launcher."""
    for process in job.processes():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[:1] == [sys.executable]:
                yield process


def wait(job, started):
    """Wait for the end; a job that hangs is asked where it is, and ended."""
    while job.process.poll() is None:
        if time.monotonic() - started > limit_s():
            for process in ranks_of(job):
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGUSR2)
            time.sleep(1)
            job.kill()
            raise AssertionError(f"still running after {time.monotonic() - started:.0f} s")
        time.sleep(0.02)
    job.wait()


def send(job, by, ranks, delay_s):
    """Send the signal that the program waits for."""
    job.wait_for(r"rank \d is process \d+", times=ranks, seconds=limit_s())
    name, to = by.split()
    time.sleep(delay_s)
    number = signal.Signals[name]
    if to == "group":
        os.killpg(job.process.pid, number)
    elif to == "launcher":
        job.process.send_signal(number)
    else:
        os.kill(int(re.search(rf"rank {to} is process (\d+)", job.out).group(1)), number)


def check(promise, job):
    """Compare what came of a job with what was promised."""
    if promise.statuses:
        assert job.status in promise.statuses, "another status"
    else:
        assert job.status != 0, "status 0"
    for text in promise.printed:
        assert job.out.count(text) == 1, f"{text!r} is printed {job.out.count(text)} times"
    for pattern in promise.told:
        assert re.search(pattern, job.err), f"{pattern!r} is not told"
    about = re.findall(LAST_WORDS, job.err)
    assert {int(rank) for rank in about} <= promise.about, "dsm's last words are about another rank"
    assert len(about) <= 1 or len(promise.about) > 1, "dsm has more than one last word"
    if promise.statuses == {0}:
        assert not (found := re.search(NOT_OF_A_SUCCESS, job.err)), f"{found.group()!r} is told"
    assert "passed" not in job.out, "a rank passed that could not"


def run(program, folder):
    """Run a program and return how long it took; AssertionError with all that is known if a promise was not kept."""
    file = pathlib.Path(folder) / "program.py"
    file.write_text(program.text)
    started = time.monotonic()
    # What a program prints must come out at its end, whatever it flushes.
    job = jobs.start(folder, program.ranks, [str(file)], {"PYTHONUNBUFFERED": "", **program.env})
    try:
        if program.by:
            send(job, program.by, max(1, program.ranks), 0.1 * (program.seed % 4))
        wait(job, started)
        check(program.promise, job)
        job.assert_nothing_is_left()
        left = set(os.listdir(folder)) - FILES
        assert not left, f"files are left: {left}"
    except AssertionError as error:
        took_s = time.monotonic() - started
        settings = " ".join(f"{name}={value}" for name, value in program.env.items())
        raise AssertionError(
            f"seed {program.seed}, {program.kind} {program.by}: {str(error).splitlines()[0]}\n"
            f"--- the program: {program.ranks} ranks, {settings} ---\n{program.text}"
            f"--- promised ---\n{program.promise}\n--- what came of it after {took_s:.1f} s: {job!r}"
        ) from None
    finally:
        job.kill()
    return time.monotonic() - started


def run_all(seeds, workers, tell=lambda text: None):
    """Run the programs of some seeds, and return the failures; `tell` is told each at once."""
    failures, took_s = [], collections.defaultdict(list)

    def run_one(seed):
        program = programs.program(seed)
        with tempfile.TemporaryDirectory(prefix="dsm-edges-") as folder:
            try:
                seconds = run(program, folder)
                took_s[program.kind].append(seconds)
            except AssertionError as error:
                failures.append(str(error))
                tell(f"{error}\n{'=' * 100}")

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for done, _ in enumerate(pool.map(run_one, seeds), 1):
            if done % 100 == 0:
                tell(f"{done} programs, {len(failures)} failures")
    for kind, seconds in sorted(took_s.items()):
        mean_s = sum(seconds) / len(seconds)
        tell(f"{kind}: {len(seconds)} as promised, {mean_s:.1f} s each, at most {max(seconds):.1f} s")
    return failures


def main():
    """Run programs as the command line says; the status is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31), help="of the first program")
    parser.add_argument("--runs", type=int, default=200, help="how many programs")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--again", type=int, default=1, help="how often each")
    parser.add_argument("--show", action="store_true", help="only print the programs, and what is promised")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.runs)
    print(f"--seed {arguments.seed} --runs {arguments.runs}", flush=True)
    if arguments.show:
        for seed in seeds:
            program = programs.program(seed)
            print(
                f"{program.text}\n{seed}: {program.kind} {program.by} {program.ranks} {program.env}\n{program.promise}"
            )
        return 0
    repeated = [seed for seed in seeds for _ in range(arguments.again)]
    failures = run_all(repeated, arguments.jobs, lambda text: print(text, flush=True))
    print(f"{len(repeated)} programs, {len(failures)} failures: --seed {arguments.seed} --runs {arguments.runs}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
