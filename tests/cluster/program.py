"""Blocks written by their owners, a lock that travels, a counter; each rank checks everything.

The argument is the number of ranks on each host, which are one node.
"""

import socket
import sys

import numpy as np

import dsm

ROUNDS = 50
WORDS = 1 << 16

rank, size = dsm.rank(), dsm.size()
names = dsm.zeros((size, 64), dtype=np.uint8)
name = socket.gethostname().encode()
names[rank, : len(name)] = np.frombuffer(name, dtype=np.uint8)

data = dsm.zeros((size, WORDS), dtype=np.int64)
data[rank] = np.arange(WORDS) + rank
dsm.barrier()
for other in range(size):
    np.testing.assert_array_equal(data[other], np.arange(WORDS) + other)
hosts = {}
for other, row in enumerate(names):
    hosts.setdefault(bytes(row).rstrip(b"\0"), []).append(other)
assert {len(ranks) for ranks in hosts.values()} == {int(sys.argv[1])}, hosts
assert sorted(dsm.stats().nodes) == sorted(map(tuple, hosts.values())), (dsm.stats().nodes, dsm.stats().apart)

lock, counter = dsm.Lock(), dsm.Counter()
total = dsm.zeros(2, dtype=np.int64)
while counter.next() < ROUNDS * size:
    with lock:
        total[0] += 1
        total[1] = max(total[1], rank)
dsm.barrier()
assert total[0] == ROUNDS * size, int(total[0])

shared_row = dsm.zeros(4096, dtype=np.uint8)
for step in range(1, 4):
    shared_row[rank::size] = step * 10 + rank
    dsm.barrier()
    for other in range(size):
        assert (shared_row[other::size] == step * 10 + other).all()
    dsm.barrier()
stats = dsm.stats()
assert (stats.host["pages_received"] > 0) == (len(hosts) > 1), stats.host
print(f"rank {rank} of {size} on {socket.gethostname()}: all is right", flush=True)
dsm.finalize()
