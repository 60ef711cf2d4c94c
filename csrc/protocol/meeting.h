/* meeting - all nodes arrive, learn every interval, and depart together: barriers and all other collective calls.
 *
 * Nodes form a tree (TREE_CHILDREN to a parent, node 0 at the root).  An arrival goes up when a node and all its
 * children have arrived, with all intervals that they know since the last cut: another thread of a node that arrived
 * early may have gone on under locks, and who saw that before arriving must be able to rely on everybody seeing it after.
 * The root answers with a departure that goes down and lists the intervals of all.  So a meeting of 1,000 nodes costs
 * ten hops, five up and five down, and every node handles each notice once.
 * Two meetings may be under way at a time, one of application threads and one of the collection; each node sees all
 * departures in the same order, because they come down one tree over channels that keep their order.
 *
 * A meeting also decides: every node brings a ballot (what it calls, and with which arguments), and the outcome is the
 * same everywhere, because the root decides it.
 *
 *   IDLE  -- meeting_arrive -->  ARRIVED  -- departure -->  DEPARTED  -- meeting_take -->  IDLE
 *
 * Invariants
 *  1. The departure is a cut: after it every node knows every interval that it lists (cut_pass).
 */
#ifndef PROTOCOL_MEETING_H
#define PROTOCOL_MEETING_H

#include "protocol/message.h"

struct node;

enum { TREE_CHILDREN = 4, MEETING_TEXT_BYTES = 1024, MEETING_FORGOTTEN_MAX = 64, MEETING_VARIANTS_MAX = 4 };

enum meeting_class { MEETING_THREADS = 0, MEETING_COLLECTION = 1, MEETING_CLASSES };

enum meeting_kind {
    MEETING_BARRIER = 1,
    MEETING_ALLOCATE,
    MEETING_FREE,
    MEETING_LOCK_NEW,
    MEETING_COUNTER_NEW,
    MEETING_FINALIZE,
    MEETING_COLLECT,
    MEETING_KINDS
};

/* What a node brings.  `what` is compared between nodes and shown where they differ; so are numbers and value. */
struct ballot {
    enum meeting_kind kind;
    uint64_t numbers[4]; /* ALLOCATE: bytes, page_bytes, bytes of value; FREE: region; COUNTER_NEW: start */
    const char *what;
    const char *name;    /* of the region, lock or counter */
    const char *refusal; /* why this node cannot, or NULL */
    const void *value;   /* ALLOCATE: the initial value, numbers[2] bytes */
};

enum meeting_outcome {
    MEETING_AGREED = 0,
    MEETING_KINDS_DIFFER,   /* nodes met in different calls */
    MEETING_BALLOTS_DIFFER, /* the same call with other arguments */
    MEETING_REFUSED,        /* some node cannot */
    MEETING_NO_SPACE        /* agreed, but the range has no room (found by every node alike) */
};

/* A meeting as one node sees it. */
struct meeting {
    enum { MEETING_IDLE, MEETING_ARRIVED, MEETING_DEPARTED } state;
    struct message *own; /* this node's arrival, in the form of a message */
    bool withheld;       /* it has no intervals yet, because a notice is owed (collection.h) */
    struct message *children[TREE_CHILDREN];
    enum meeting_outcome outcome;
    char text[MEETING_TEXT_BYTES]; /* of an outcome that is not AGREED */
    uint32_t result;               /* number of the region, lock or counter */
    uint64_t passed;               /* departures so far */
};

const char *meeting_kind_name(enum meeting_kind kind);

/* Arrive.  Closes the interval. */
void meeting_arrive(struct node *node, enum meeting_class which, const struct ballot *ballot);
/* A collection has ended: complete an arrival that had to wait for it. */
void meeting_resume(struct node *node);
/* True after the departure: the meeting is IDLE again, outcome, text and result can be read. */
bool meeting_take(struct node *node, enum meeting_class which);

void meeting_receive_arrive(struct node *node, struct message *message);
void departure_receive(struct node *node, struct message *message);

/* The tree. */
node_id tree_parent(node_id node);
node_id tree_child(node_id node, int k, node_id nodes);

#endif
