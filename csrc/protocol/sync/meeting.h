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
 *   IDLE  -- meeting_arrive -->  ARRIVED  -- departure -->  IDLE
 *
 * The spaces of a node meet in its memory (H6): each has a seat.  A space leaves its ballot there, unless it is that of
 * a barrier before which it has made nothing, and joins; the last one makes the node arrive.  Each space takes the
 * departure once, and may join again before the others have taken it.  To join and to take need no mutex, so that the
 * ranks of a host do not queue for a barrier.  No thread takes the departure of a collection.
 *
 * Invariants
 *  1. The departure is a cut: after it every node knows every interval that it lists (cut.h).
 *  2. `own` and `children` hold the arrivals that have not gone up yet; they are empty once all below have arrived.
 *  3. A space joins when it has taken all departures (taken == passed).  So outcome, text and result stay until all
 *     spaces have arrived again.
 */
#pragma once

#include <stdatomic.h>

#include "protocol/sync/ballot.h"
#include "protocol/sync/tree.h"

enum meeting_class { MEETING_THREADS = 0, MEETING_COLLECTION = 1, MEETING_CLASSES };

/* Of a space at a meeting of threads; its process alone writes there until all have joined. */
struct seat {
    struct message *ballot; /* in the form of an arrival; NULL: a barrier's, and nothing was made */
    uint32_t rank;          /* that has joined */
    uint64_t taken;         /* departures */
    char padding[40];       /* seats of two spaces lie on two lines of the cache */
};

/* A meeting as one node sees it. */
struct meeting {
    enum { MEETING_IDLE, MEETING_ARRIVED } state;
    _Atomic uint64_t joined; /* spaces that have joined before the next arrival; a bit each */
    struct seat *seats;      /* of each space */
    struct message *own;     /* this node's arrival, in the form of a message */
    bool withheld;           /* it has no intervals yet, because a notice is owed (collection.h) */
    struct message *children[TREE_CHILDREN];
    int32_t child_ranks[TREE_CHILDREN]; /* the processes that have sent these: they wait for the departure */
    enum meeting_outcome outcome;
    char text[BALLOT_TEXT_BYTES]; /* of an outcome that is not AGREED */
    uint32_t result;              /* number of the region; from which number ranks go on */
    uint64_t made;                /* what all ranks had made, as a sum, when they last agreed on that (ballot.h) */
    _Atomic uint64_t passed;      /* departures so far */
};

void meeting_init(struct node *node);
void meeting_fini(struct node *node);

/* Needs a rank no ballot?  Then it is at a barrier, and has made nothing since all agreed. */
bool meeting_needs_no_ballot(const struct node *node, const struct ballot *ballot);
/* The space that is inside brings its ballot to the meeting of threads that it is about to join. */
void meeting_bring(struct node *node, const struct ballot *ballot);
/* What a space finds that has joined. */
enum meeting_join {
    MEETING_WAITS,  /* for spaces that have not joined yet */
    MEETING_PASSES, /* it was the last one, and there is the departure: threads are to be woken */
    MEETING_ARRIVES /* it was the last one: it is to call meeting_arrive */
};
/* A space joins the meeting of threads, outside of the node's mutex.  A barrier of a node that is alone has nothing to
 * tell and nothing to decide (H8): it ends here. */
enum meeting_join meeting_join(struct node *node, uint32_t space, uint32_t rank);
/* All spaces have joined, or the node arrives at the meeting of a collection.  Closes the interval, unless the arrival
 * is withheld. */
void meeting_arrive(struct node *node, enum meeting_class which);
/* A collection has ended: complete an arrival that had to wait for it. */
void meeting_resume(struct node *node);
/* Of the meeting of threads, outside of the node's mutex: there is a departure that the space has not taken. */
bool meeting_departed(const struct node *node, uint32_t space);
/* Likewise.  True after the departure, once for each space: outcome, text and result can be read until the space joins
 * again. */
bool meeting_take(struct node *node, uint32_t space);

/* The departure has come.  The last step of a meeting of threads: spaces may go on at once. */
void meeting_depart(struct node *node, enum meeting_class which);

void meeting_receive_arrive(struct node *node, struct message *message);
/* Pass a departure on to the children.  False: there are none. */
bool meeting_forward(struct node *node, const struct message *message, enum meeting_class which);

/* Departures that may be on their way to this node: of the meetings at which all below it have arrived. */
uint64_t meeting_departures_due(const struct node *node);
