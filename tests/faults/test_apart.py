"""Which ranks are one node, as users see it; and a host whose ranks may not share memory."""

import re
import subprocess

import pytest

# Files of other processes are refused as /proc refuses them, and the socket over which they could be sent.
REFUSED = """\
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>

enum { NONBLOCK = 04000 }; /* the core opens with it, MPI does not */

int bind(int file, const struct sockaddr *address, socklen_t bytes)
{
    if (address->sa_family == AF_UNIX && memcmp(address->sa_data + 1, "dsm+", 4) == 0) {
        errno = EPERM;
        return -1;
    }
    return ((int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "bind"))(file, address, bytes);
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    unsigned mode = va_arg(rest, unsigned);
    va_end(rest);
    if (strncmp(path, "/proc/", 6) == 0 && strstr(path, "/fd/") && (flags & NONBLOCK)) {
        errno = EACCES;
        return -1;
    }
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open"))(path, flags, mode);
}
"""
PROGRAM = """
a = dsm.zeros(dsm.size())
a[dsm.rank()] = 1
dsm.barrier()
assert a.sum() == dsm.size()
found = dsm.stats()
MPI.COMM_WORLD.gather(found.nodes)
if dsm.rank() == 0:
    print("nodes", found.nodes, "apart", repr(found.apart))
"""


@pytest.mark.parametrize(
    ("node", "ranks", "nodes", "said"),
    [
        ("rank", 2, "((0,), (1,))", "rank 1 of 2: node 1 of 2 (rank 1), "),
        ("2", 3, "((0, 1), (2,))", "rank 1 of 3: node 0 of 2 (ranks 0-1), "),
        ("host", 3, "((0, 1, 2),)", "rank 2 of 3: node 0 of 1 (ranks 0-2), "),
        ("", 2, "((0, 1),)", "rank 1 of 2: node 0 of 1 (ranks 0-1), "),  # the default
    ],
)
def test_statistics_say_which_ranks_are_a_node(run, node, ranks, nodes, said):
    job = run(ranks, PROGRAM, env={"DSM_NODE": node, "DSM_STATS": "1"})
    assert job.status == 0, job
    assert f"nodes {nodes} apart ''" in job.out
    assert f"dsm stats of {said}" in job.err


def test_ranks_that_may_not_share_memory_are_nodes_and_say_why(run, tmp_path, mpicc):
    source, library = tmp_path / "refused.c", tmp_path / "refused.so"
    source.write_text(REFUSED)
    subprocess.run([mpicc, "-shared", "-fPIC", "-D_FORTIFY_SOURCE=0", "-o", str(library), str(source)], check=True)
    job = run(3, PROGRAM, env={"DSM_NODE": "host", "LD_PRELOAD": str(library)})
    assert job.status == 0, job
    assert "nodes ((0,), (1,), (2,)) apart '/proc/" in job.out
    lines = re.findall(r"dsm: each rank of this host is a node of its own.* because rank (\d) .*", job.err)
    assert lines == ["1"], job
    assert "not dumpable" in job.err
    assert "; this process may not have an abstract unix socket" in job.err
