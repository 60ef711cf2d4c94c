/* offers - parts that the receiver copies itself, from the memory of a rank of its host (board.h).
 *
 * MPI sends long messages in several steps, in each of which both sides have to look for messages, and copies them
 * twice.
 *
 * States of an offer, at the sender: made -> taken, when the receiver's board counts so many messages of this rank.
 */
#pragma once

#include "envelope.h"

struct board;

struct offers {
    const struct transport_buffers *buffers;
    struct board *board; /* NULL: none can be made */
    unsigned count, capacity;
    struct offer *items;
    uint64_t *made;  /* to each peer, so far */
    uint64_t copied; /* bytes that were copied here, until transport_copied */
};

/* 0, or -1 where there is no memory. */
int offers_open(struct offers *offers, int size, const struct transport_buffers *buffers);
void offers_close(struct offers *offers);

/* Offer the parts of a message to the peer; false: it cannot read this rank's memory. */
bool offers_make(struct offers *offers, int peer, void *token);
/* Report what has been taken. */
void offers_poll(struct offers *offers);

/* Copy the parts that a peer has offered.  In the order of its messages: the peer learns only how many have been
 * copied. */
void offers_copy(struct offers *offers, int source, const struct transport_part *parts, int count);
