/* parts - messages whose envelope is here and whose parts may not be.
 *
 * States of a message: placed (the caller has said where its parts go) -> begun (its receives are posted) ->
 * complete -> taken.
 *
 * Invariants
 *  1. Messages are placed, and begun, in the order of their source: MPI matches parts by their order only.
 *  2. A message is taken only when no older one of its source is left.  Without chaos, messages without parts wait
 *     behind it.
 *  3. waiting[source] counts the messages of that source.
 */
#pragma once

#include "communicator.h"

struct chaos;

struct parts {
    const struct communicator *comm;
    struct chaos *chaos; /* begins parts late; NULL: at once */
    unsigned count;
    struct arrival *first, **end;
    unsigned *waiting;
};

/* 0, or -1 where there is no memory. */
int parts_open(struct parts *parts, const struct communicator *comm);
void parts_close(struct parts *parts);

/* Keep the envelope until its parts, and all messages of its source before it, are complete. */
void parts_await(struct parts *parts, const struct envelope *envelope);
/* The first message that is complete, with the token of `place`; false: there is none. */
bool parts_take(struct parts *parts, struct envelope *envelope, void **token);
