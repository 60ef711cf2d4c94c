/* transport - the protocol's messages over MPI.
 *
 * A message is an envelope (envelope.h), and parts: memory that travels behind it without a copy.  The layers below,
 * each a file: communicator (the duplicates), sends, receives (envelopes on their way in), parts, and with DSM_CHAOS
 * chaos.
 *
 * Nothing here blocks, but for the collectives at the start and the end.  All functions are called under the runtime's
 * mutex, but for those that say otherwise; transport_receive makes all progress.
 *
 * States: asked (transport_open) -> open (transport_opened) -> closed.
 *
 * Invariants
 *  1. Between two ranks messages come out in the order in which they went in, unless chaos is on.
 *  2. The memory of a message belongs to the transport from transport_send until `give`; that of its parts must not
 *     change until `sent`.
 */
#pragma once

#include "envelope.h"

struct transport;

/* Ask for a duplicate of the communicator that mpi_comm points to.  Collective, but it does not wait for other
 * ranks: only rank and size may be asked before transport_opened says yes.  Without the mutex.  0, or -1 with
 * `text`. */
int transport_open(struct transport **transport, const void *mpi_comm, const struct transport_buffers *buffers,
                   char *text, int text_capacity);
/* 1: all ranks have asked, and the transport can be used; 0: not yet; -1 with `text`: it is deleted. */
int transport_opened(struct transport *transport, char *text, int text_capacity);
int transport_rank(const struct transport *transport);
int transport_size(const struct transport *transport);

/* From here on messages are delayed and mixed (chaos.h).  On all ranks, before the first message.  0, or -1 where
 * there is no memory. */
int transport_start_chaos(struct transport *transport, uint64_t seed);

/* Send `bytes` of `buffer`, which was taken with `capacity` bytes. */
void transport_send(struct transport *transport, int peer, void *buffer, uint64_t bytes, uint64_t capacity);

/* The same with parts; `sent` may be called with the token before this returns. */
void transport_send_parts(struct transport *transport, int peer, void *buffer, uint64_t bytes, uint64_t capacity,
                          const struct transport_part *parts, int count, void *token);

/* The next message that is complete, if any: its sender, or -1.  The caller owns *buffer (taken with *bytes).
 * *token is that of `place`, or NULL: a message without parts. */
int transport_receive(struct transport *transport, void **buffer, uint64_t *bytes, void **token);

/* Sends that MPI has not finished, parts that have not come, and messages that chaos delays: a thread has to go on
 * calling transport_receive for them to end. */
unsigned transport_pending(const struct transport *transport);

/* This rank will send no request any more: true when that holds for all ranks.  Called again and again; until then
 * this rank goes on receiving and answering. */
bool transport_quiet(struct transport *transport);

/* Complete all that is pending and free the duplicate.  Collective; after the protocol's own last meeting. */
void transport_close(struct transport *transport);

/* Start and end of a job only, before the service threads run: plain MPI collectives on the duplicate. */
uint64_t transport_agree_min(struct transport *transport, uint64_t value);
uint64_t transport_agree_max(struct transport *transport, uint64_t value);
void transport_gather(struct transport *transport, const void *mine, int bytes, void *all);
void transport_broadcast(struct transport *transport, void *value, int bytes);
