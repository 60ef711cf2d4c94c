/* doorbell - a datagram that wakes a rank which computes: a message lies there for it.
 *
 * MPI carries every message; the bell carries only the job's token, and the receiver ignores every other datagram.  A
 * bell may get lost, so a rank sleeps with a time limit.
 *
 * States: open (own address known) -> connected (all addresses known) -> closed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define DOORBELL_ADDRESS_BYTES 128

struct doorbell;

/* What others need in order to ring this rank: plain bytes, exchanged by the caller with MPI. */
struct doorbell_address {
    unsigned char bytes[DOORBELL_ADDRESS_BYTES];
};

/* A bell for this rank, with its address.  It hears nothing where the system has no UDP.  NULL: no memory. */
struct doorbell *doorbell_open(struct doorbell_address *address);

/* Take the addresses of all ranks (size entries, in rank order) and the job's token.  0 or -errno. */
int doorbell_connect(struct doorbell *bell, const struct doorbell_address *all, int rank, int size, uint64_t token);
void doorbell_close(struct doorbell *bell);

/* True when this rank and `peer` are on one host, as their addresses say. */
bool doorbell_same_host(const struct doorbell *bell, int peer);

/* Ring a rank (its own too: wakes the sleeper).  Never blocks; a full queue means that it rings already. */
void doorbell_ring(struct doorbell *bell, int peer);

/* Sleep until rung or until the time is over.  True when rung.  Takes all bells that lie there. */
bool doorbell_wait(struct doorbell *bell, int64_t wait_ns);

/* Send a farewell to a rank of this host: this rank ends, and has printed the reason.  Has any rank sent one? */
void doorbell_farewell(struct doorbell *bell, int peer);
bool doorbell_farewell_heard(const struct doorbell *bell);

/* Self-test at start: every rank rings all ranks (doorbell_test_ring), and after a while asks from how many of them no
 * bell was heard (0 when all is well; a firewall swallows datagrams, and a loopback device may be down). */
void doorbell_test_ring(struct doorbell *bell);
int doorbell_test_missing(struct doorbell *bell, int64_t wait_ns);
