/* race - the real runtime with all its threads under ThreadSanitizer: csrc/runtime, csrc/protocol, and of csrc/machine the
 * memory, the faults (real SIGSEGV), the doorbell and chaos.  Only MPI is missing, which ThreadSanitizer cannot look into:
 * race_transport.c keeps the promises of transport.h over sockets.  A rank is a process forked by race_main.c, because the
 * runtime is one per process.
 */
#ifndef TESTS_NATIVE_RACE_H
#define TESTS_NATIVE_RACE_H

#include <stdatomic.h>

enum { RACE_RANKS_MAX = 4, RACE_SLOT_BYTES = 256 };

/* In memory that all ranks share: where they meet at the start and at the end. */
struct race_shared {
    atomic_uint arrived, round, quiet, closing;
    unsigned char slots[RACE_RANKS_MAX][RACE_SLOT_BYTES];
};

/* What dsm_init is given in place of a communicator. */
struct race_job {
    int rank, size;
    int files[RACE_RANKS_MAX]; /* stream sockets to the others */
    struct race_shared *shared;
};

#endif
