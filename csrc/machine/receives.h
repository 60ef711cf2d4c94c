/* receives - envelopes on their way in.
 *
 * States of an envelope: matched (by MPI_Improbe) -> complete -> handed out.
 *
 * Invariants
 *  1. items[i] belongs to requests[i]; both are in the order in which MPI matched them, which is the order of sending
 *     for each source.
 *  2. under_way[source] counts the items of that source.
 *  3. An envelope is handed out only when no older one of its source is left.
 */
#pragma once

#include "communicator.h"

enum { RECEIVES_MAX = 64 };

struct receives {
    const struct communicator *comm;
    unsigned count;
    MPI_Request requests[RECEIVES_MAX];
    struct envelope items[RECEIVES_MAX];
    unsigned *under_way;
};

/* 0, or -1 where there is no memory. */
int receives_open(struct receives *receives, const struct communicator *comm);
void receives_close(struct receives *receives);

/* The next envelope that has arrived; false: there is none. */
bool receives_next(struct receives *receives, struct envelope *envelope);
