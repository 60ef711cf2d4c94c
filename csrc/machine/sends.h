/* sends - what MPI has been given to send and has not finished.
 *
 * States of a send: posted -> finished.  Finished, the memory of an envelope goes back with `give`; the last send of a
 * message's parts reports the message with `sent`.
 *
 * Invariants
 *  1. items[i] belongs to requests[i].
 *  2. The memory of a message belongs to its sends from sends_post until MPI says that they are complete.
 */
#pragma once

#include "communicator.h"

struct sends {
    const struct communicator *comm;
    unsigned count, capacity;
    MPI_Request *requests;
    struct send *items;
};

/* Send an envelope: `bytes` of `buffer`, which was taken with `capacity` bytes. */
void sends_post(struct sends *sends, int peer, enum envelope_kind kind, void *buffer, uint64_t bytes,
                uint64_t capacity);
/* Send the parts behind the envelope that was posted last. */
void sends_post_parts(struct sends *sends, int peer, const struct transport_part *parts, int count, void *token);
/* Finish what MPI is done with. */
void sends_poll(struct sends *sends);
void sends_close(struct sends *sends);
