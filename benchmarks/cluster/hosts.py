"""Several hosts on one machine: network namespaces with addresses, host names and shared-memory folders of their own.

    python benchmarks/cluster/hosts.py [-n HOSTS] [--per-host RANKS] [--rate 1gbit] prog.py ...

The bridge that joins the hosts lies in a namespace too, the head, where mpiexec runs: so nothing is added to the
machine's own network, two runs do not meet, and deleting the namespaces deletes everything.  Needs root, iproute2
and util-linux.

Two ranks of one machine find shared memory, whatever their addresses are.  So each host has a /dev/shm of its own and
System V memory of its own, and MPI is told to use TCP between hosts.  Several ranks of one host share its memory.

A rate limits what each host sends and what it receives, by a token bucket (tc-tbf(8)) at either end of its link to the
bridge.  The delay of a link stays that of the machine, which is shorter than a cable's and a switch's.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# Last, so that an installed dsm, or the one that PYTHONPATH names, is the one that runs.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks import job
from dsm import _launch, _mpi

NET = "10.93.17"
HEAD = 254
RATES = ("full", "1gbit", "100mbit")
# Two of the largest segments that TCP gives to a card, so that the kernel need not cut them: what may pass at once.
BURST_BYTES = 128 << 10
# The longest time that a byte waits for its turn, before it is dropped and TCP slows down.
QUEUE_MS = 50
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_made = itertools.count(1)

# Stands in for ssh: options, a host, and a command that is one line for a shell.
_REMOTE_SHELL = """\
#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
host=$1
shift
exec ip netns exec {prefix}$host unshare --uts --ipc --mount --propagation private sh -c '
  hostname "$1" && shift
  mount -t tmpfs -o mode=1777 tmpfs /dev/shm
  mount --bind {folder}/hosts /etc/hosts
  exec sh -c "$*"' sh "$host" "$@"
"""


class NoHostsError(Exception):
    """Namespaces cannot be made here; the message says why."""


def _call(*words: str) -> None:
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise NoHostsError(f"`{shlex.join(words)}` failed: {made.stderr.strip() or made.returncode}")


def _limit(namespace: str, device: str, rate: str) -> None:
    """Let no more than `rate` out of a device."""
    bucket = ["rate", rate, "burst", f"{BURST_BYTES}b", "latency", f"{QUEUE_MS}ms"]
    try:
        _call("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", *bucket)
    except NoHostsError as error:
        raise NoHostsError(f"no link of this rate; it needs the kernel's token bucket, sch_tbf: {error}") from None


def why_not() -> str:
    """Say what is missing on this machine; empty when nothing is obviously so."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "tc", "unshare", "mount", "hostname") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (iproute2, util-linux, hostname)"
    return ""


class Hosts:
    """`count` hosts named n1, n2, ...; a context manager that leaves nothing behind.

    Parameters
    ----------
    count : int
        How many.
    rate : str
        What the link of each host carries in either direction: one of `RATES`, or as tc(8) writes it.
    per_host : int
        How many ranks run on each of them.
    """

    def __init__(self, count: int, rate: str = "full", per_host: int = 1) -> None:
        self.names = [f"n{number}" for number in range(1, count + 1)]
        self.rate, self.per_host = rate, per_host
        self.prefix = f"dsmtest{os.getpid()}x{next(_made)}-"
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Hosts:
        problem = why_not()
        if problem:
            raise NoHostsError(problem)
        try:
            self._make(self._undo)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        with _not_interrupted():
            self._undo.close()

    def _make(self, undo: contextlib.ExitStack) -> None:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="dsm-hosts-")))
        head = self._namespace("head", undo)
        _call("ip", "-n", head, "link", "add", "bridge", "type", "bridge")
        _call("ip", "-n", head, "address", "add", f"{NET}.{HEAD}/24", "dev", "bridge")
        _call("ip", "-n", head, "link", "set", "bridge", "up")
        lines = ["127.0.0.1 localhost", f"{NET}.{HEAD} head"]
        for number, name in enumerate(self.names, start=1):
            host, link = self._namespace(name, undo), f"to-{name}"
            _call("ip", "-n", head, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", host)
            _call("ip", "-n", head, "link", "set", link, "master", "bridge", "up")
            _call("ip", "-n", host, "address", "add", f"{NET}.{number}/24", "dev", "eth0")
            _call("ip", "-n", host, "link", "set", "eth0", "up")
            if self.rate != "full":
                _limit(host, "eth0", self.rate)
                _limit(head, link, self.rate)
            lines.append(f"{NET}.{number} {name}")
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        self.remote_shell = folder / "remote_shell"
        self.remote_shell.write_text(_REMOTE_SHELL.format(prefix=self.prefix, folder=folder))
        self.remote_shell.chmod(0o755)

    def _namespace(self, name: str, undo: contextlib.ExitStack) -> str:
        full = self.prefix + name
        undo.callback(self._delete, full)
        _call("ip", "netns", "add", full)
        _call("ip", "-n", full, "link", "set", "lo", "up")
        return full

    @staticmethod
    def _delete(namespace: str) -> None:
        # A process that outlives its job would keep the namespace; all that are inside were started by this object.
        inside = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
        for process in inside.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)

    def command(
        self, program: Sequence[str], environ: Mapping[str, str] | None = None, ranks: int = 0
    ) -> tuple[list[str], dict[str, str]]:
        """Make the words and the environment that run `program` on all hosts, one after the other filled with ranks.

        `environ` comes on top of the environment of this process; fewer `ranks` leave room on the last host.
        """
        ranks = ranks or len(self.names) * self.per_host
        if _mpi.family(_launch.loaded_mpi().library) == "Open MPI":
            extra = ["--prtemca", "plm_ssh_agent", str(self.remote_shell), "--mca", "pml", "ob1"]
            extra += [
                "--mca",
                "btl",
                "tcp,self" + ",sm" * (self.per_host > 1),
                "--mca",
                "btl_tcp_if_include",
                f"{NET}.0/24",
            ]
        else:
            extra = ["-launcher", "ssh", "-launcher-exec", str(self.remote_shell), "-localhost", f"{NET}.{HEAD}"]
            extra += ["-genv", "UCX_TLS", "tcp,self"]
        # The hosts share the cores of this machine.
        shared = ranks > _launch.cores()
        hosts = ",".join(f"{name}:{self.per_host}" for name in self.names)
        all_ = os.environ | dict(environ or {})
        made = _launch.plan(ranks, program, hosts=hosts, extra=extra, oversubscribe=shared, environ=all_)
        return ["ip", "netns", "exec", f"{self.prefix}head", *made.words], made.environ

    def run(
        self, program: Sequence[str], timeout_s: float, environ: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Run `program` on all hosts; returns status and output.  Ends it and all it started after `timeout_s`."""
        words, made = self.command(program, environ)
        started = subprocess.Popen(
            words,
            env=made,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = started.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            output, _ = started.communicate()
            output += f"\nended after {timeout_s} s: {shlex.join(words)}"
        return started.returncode, output


@contextlib.contextmanager
def _not_interrupted() -> Iterator[None]:
    """Keep signals that end a program waiting until the end of the block."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def main() -> int:
    """Run a program on hosts that are made for it, and return its status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-n", "--hosts", type=int, default=4)
    parser.add_argument("--per-host", type=int, default=1, metavar="RANKS", help="of each host (default 1)")
    parser.add_argument("--node", default="", help="ranks that are a node: host, rank or a number (default host)")
    parser.add_argument("--rate", default="full", help=f"of each link: {', '.join(RATES)}, or another (default full)")
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    # The job has a session of its own, and the hosts would outlive this process.
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would not have it
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        with Hosts(options.hosts, options.rate, options.per_host) as hosts:
            environ = job.node_environ(options.node) if options.node else None
            return job.wait(*hosts.command(_launch.rank_command(options.program), environ), options.timeout)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (NoHostsError, _launch.DSMError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
