/* meeting - all nodes arrive, learn every interval, and depart together: barriers and all other collective calls.
 *
 * An arrival goes up the tree (tree.h) when a node and all its children have arrived, with all intervals that they know
 * since the last cut: another thread of a node that arrived early may have gone on under locks, and a thread that saw
 * that before arriving must be able to rely on everybody seeing it after.  The root answers with a departure, which
 * goes down and lists the intervals of all (node/departure.h).  So a meeting of 1,000 nodes costs ten hops, five up and
 * five down, and every node handles each notice once.
 *
 * Two meetings may be under way at a time, one of application threads and one of the collection.  Each node takes all
 * departures in the order in which the root decided them: a departure carries its number, and a node defers one that
 * overtook the one before (node/departure.h).
 *
 *   IDLE  -- meeting_arrive -->  ARRIVED  -- departure -->  DEPARTED  -- meeting_take -->  IDLE
 *              by all spaces                                               by all spaces
 *
 * The spaces of a node meet in its memory (H6): a space that has taken a departure may arrive again before the others
 * have taken it.
 *
 * The meeting of a collection goes from ARRIVED to IDLE: no thread takes it.
 *
 * Invariants
 *  1. The departure is a cut: after it every node knows every interval that it lists (cut.h).
 *  2. `own` and `children` hold the arrivals that have not gone up yet; they are empty once all below have arrived.
 */
#pragma once

#include "protocol/sync/ballot.h"
#include "protocol/sync/tree.h"

enum meeting_class { MEETING_THREADS = 0, MEETING_COLLECTION = 1, MEETING_CLASSES };

/* A meeting as one node sees it. */
struct meeting {
    enum { MEETING_IDLE, MEETING_ARRIVED, MEETING_DEPARTED } state;
    uint64_t joined;     /* spaces that have arrived at the next departure, */
    uint64_t leaving;    /* and spaces that have not taken the last one; a bit each */
    struct message *own; /* this node's arrival, in the form of a message */
    bool withheld;       /* it has no intervals yet, because a notice is owed (collection.h) */
    struct message *children[TREE_CHILDREN];
    int32_t child_ranks[TREE_CHILDREN]; /* the processes that have sent these: they wait for the departure */
    enum meeting_outcome outcome;
    char text[BALLOT_TEXT_BYTES]; /* of an outcome that is not AGREED */
    uint32_t result;              /* number of the region, lock or counter */
    uint64_t passed;              /* departures so far */
};

/* A space arrives: its thread at a meeting of threads, or the node at a collection's.  The node arrives with the
 * last of its spaces; that closes the interval, unless the arrival is withheld. */
void meeting_arrive(struct node *node, enum meeting_class which, const struct ballot *ballot);
/* A collection has ended: complete an arrival that had to wait for it. */
void meeting_resume(struct node *node);
/* Of a meeting of threads.  True after the departure, once for each space: outcome, text and result can be read until
 * the space arrives again. */
bool meeting_take(struct node *node, enum meeting_class which);

/* The departure has come. */
void meeting_depart(struct node *node, enum meeting_class which);

void meeting_receive_arrive(struct node *node, struct message *message);
/* Pass a departure on to the children. */
void meeting_forward(struct node *node, const struct message *message, enum meeting_class which);

/* Other nodes may have departed already and use its result: a lock or counter of the number that is next
 * here. Such a message is deferred until this node departs, too. */
bool meeting_will_make(const struct node *node, uint32_t number, uint32_t next);
/* Departures that may be on their way to this node: of the meetings at which all below it have arrived. */
uint64_t meeting_departures_due(const struct node *node);
