"""Several hosts on one machine: network namespaces with addresses, host names and shared-memory folders of their own.

    python tests/cluster/hosts.py [-n HOSTS] prog.py ...      one rank per host, over TCP, with the MPICH wheel

The bridge that joins the hosts lies in a namespace too, the head, where mpiexec runs: so nothing is added to the
machine's own network, two runs do not meet, and deleting the namespaces deletes everything.  Needs root, iproute2
and util-linux.

Two ranks of one machine find shared memory, whatever their addresses are: MPICH's transport is told to use TCP
alone, and each host has a /dev/shm of its own.
"""

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
from pathlib import Path

from dsm import _launch, _mpi

NET = "10.93.17"
HEAD = 254
_made = itertools.count(1)

# Stands in for ssh: options, a host, and a command that is one line for a shell.
_REMOTE_SHELL = """\
#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
host=$1
shift
exec ip netns exec {prefix}$host unshare --uts --mount --propagation private sh -c '
  hostname "$1" && shift
  mount -t tmpfs -o mode=1777 tmpfs /dev/shm
  mount --bind {folder}/hosts /etc/hosts
  eval "exec $*"' sh "$host" "$@"
"""


class NoHostsError(Exception):
    """Namespaces cannot be made here; the message says why."""


def _ip(*words):
    made = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise NoHostsError(f"`ip {' '.join(words)}` failed: {made.stderr.strip() or made.returncode}")
    return made.stdout


def why_not():
    """Say what is missing on this machine; empty when nothing is obviously so."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "unshare", "mount", "hostname") if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (iproute2, util-linux, hostname)"
    if _mpi.family(_launch.loaded_mpi().library) != "MPICH":
        return f"written for the MPICH wheel; loaded is {_mpi.short(_launch.loaded_mpi().library)}"
    return ""


class Hosts:
    """`count` hosts named n1, n2, ...; a context manager that leaves nothing behind."""

    def __init__(self, count):
        self.names = [f"n{number}" for number in range(1, count + 1)]
        self.prefix = f"dsmtest{os.getpid()}x{next(_made)}-"
        self._undo = contextlib.ExitStack()

    def __enter__(self):
        problem = why_not()
        if problem:
            raise NoHostsError(problem)
        with contextlib.ExitStack() as undo:
            self._make(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *raised):
        self._undo.close()

    def _make(self, undo):
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="dsm-hosts-")))
        head = self._namespace("head", undo)
        _ip("-n", head, "link", "add", "bridge", "type", "bridge")
        _ip("-n", head, "address", "add", f"{NET}.{HEAD}/24", "dev", "bridge")
        _ip("-n", head, "link", "set", "bridge", "up")
        lines = ["127.0.0.1 localhost", f"{NET}.{HEAD} head"]
        for number, name in enumerate(self.names, start=1):
            host = self._namespace(name, undo)
            _ip("-n", head, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", host)
            _ip("-n", head, "link", "set", f"to-{name}", "master", "bridge", "up")
            _ip("-n", host, "address", "add", f"{NET}.{number}/24", "dev", "eth0")
            _ip("-n", host, "link", "set", "eth0", "up")
            lines.append(f"{NET}.{number} {name}")
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        self.remote_shell = folder / "remote_shell"
        self.remote_shell.write_text(_REMOTE_SHELL.format(prefix=self.prefix, folder=folder))
        self.remote_shell.chmod(0o755)

    def _namespace(self, name, undo):
        full = self.prefix + name
        _ip("netns", "add", full)
        undo.callback(self._delete, full)
        _ip("-n", full, "link", "set", "lo", "up")
        return full

    @staticmethod
    def _delete(namespace):
        # A process that outlives its job would keep the namespace; all that are inside were started by this object.
        inside = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
        for process in inside.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)

    def command(self, program):
        """Make the words and the environment that run `program` on all hosts, one rank on each."""
        extra = ["-launcher", "ssh", "-launcher-exec", str(self.remote_shell), "-localhost", f"{NET}.{HEAD}"]
        extra += ["-genv", "UCX_TLS", "tcp,self"]
        made = _launch.plan(len(self.names), program, hosts=",".join(self.names), extra=extra, oversubscribe=True)
        return ["ip", "netns", "exec", f"{self.prefix}head", *made.words], made.environ

    def run(self, program, timeout_s, environ=None):
        """Run `program` on all hosts; ends it, and all that it started, after `timeout_s` seconds."""
        words, made = self.command(program)
        job = subprocess.Popen(
            words,
            env=made | (environ or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = job.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            output, _ = job.communicate()
            output += f"\nended after {timeout_s} s: {shlex.join(words)}"
        return job.returncode, output


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("-n", "--hosts", type=int, default=4)
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    try:
        with Hosts(options.hosts) as hosts:
            status, output = hosts.run(_launch.rank_command(options.program), options.timeout)
    except (NoHostsError, _launch.DSMError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(output, end="")
    return status


if __name__ == "__main__":
    sys.exit(main())
