"""How many bits a second pass between two ranks: one way, the other way, and both ways at once; rank 0 prints JSON."""

import json
import sys
import time

import numpy as np
from mpi4py import MPI

size = int(sys.argv[1])
comm = MPI.COMM_WORLD
other = 1 - comm.rank
sent, received, word = np.ones(size, np.uint8), np.zeros(size, np.uint8), np.zeros(1, np.uint8)


def pass_on(senders):
    """Until the last byte arrived, which the receiver acknowledges: what the sockets hold has not passed."""
    requests = [comm.Irecv(received, other)] if other in senders else []
    requests += [comm.Isend(sent, other)] if comm.rank in senders else []
    MPI.Request.Waitall(requests)
    comm.Sendrecv(word, other, recvbuf=word, source=other)


def rate(*senders):
    pass_on(senders)
    comm.Barrier()
    start = time.perf_counter()
    pass_on(senders)
    return 8 * size / (time.perf_counter() - start)


rates = {"from 0": rate(0), "from 1": rate(1), "both ways": rate(0, 1)}
assert received.all()
if comm.rank == 0:
    print(json.dumps(rates), flush=True)
