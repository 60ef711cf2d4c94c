/* roll - the roll call: which nodes have not arrived at a meeting of threads.
 *
 * A node of which a space waits calls the roll, when its runtime wants to know.  The call goes up the tree to the root,
 * and from there down to where arrivals are missing; each other node that has not arrived answers the caller itself.
 * Nothing depends on it: a node that does not answer is not named.
 */
#pragma once

#include "protocol/base/context.h"

enum { ROLL_NAMED_MAX = 16 };

/* A node that has not arrived, and which of its spaces have not. */
struct absent {
    node_id node;
    uint64_t spaces;
};

/* The answers to the last call of this node, or to the one before, until the first new one comes. */
struct roll {
    uint64_t meeting;  /* departures before the one that it was about */
    uint32_t call;     /* its number, */
    uint32_t answered; /* and that of the one that these answer: */
    uint32_t absent;   /* how many have answered; the first of them: */
    struct absent named[ROLL_NAMED_MAX];
};

/* A space of this node has arrived: ask which other nodes have not. */
void roll_call(struct node *node);
/* True: there are answers about the meeting that is under way. */
bool roll_known(const struct node *node);

void roll_receive_call(struct node *node, const struct message *message);
void roll_receive_absent(struct node *node, const struct message *message);
