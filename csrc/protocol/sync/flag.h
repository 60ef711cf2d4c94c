/* flag - an event of the user, as one node knows it: threads of all nodes set it, clear it, and wait until it is set
 * (sync/event.h).
 *
 * A set releases and a wait acquires.  Both a set and a clear are run of an interval (page/interval.h), so they travel
 * with the write notices: a node that has synchronised with a set, or with a clear, knows of it without a message.  The
 * latest of them counts, by the stamp of its interval: stamps agree with happens-before (Lamport 1978), so messages
 * may overtake each other.  A flag is made by its first use: all ranks count alike.
 *
 *   CLEAR  -- a set, in an interval later than the last clear -->  SET
 *     ^------ a clear, in an interval later than the last set ------+
 *
 * In a node that is alone (H8) a flag is a word in its memory: odd is set.
 *
 * Invariants (flag_check)
 *  1. asked implies that no set later than asked_after is known.
 *  2. A node waits at most once at the home of a flag.
 */
#pragma once

#include <stdatomic.h>

#include "protocol/base/context.h"
#include "protocol/base/table.h"
#include "protocol/page/interval.h"

enum { FLAG_NAME_BYTES = 40, FLAG_EXPECTED = 2 };

/* At its home: a node that waits. */
struct flag_waiter {
    struct flag_waiter *next;
    node_id node;
    int32_t rank; /* its process that asked */
    stamp after;
    struct vector known; /* the notices that it had */
};

struct flag {
    uint32_t id;
    char name[FLAG_NAME_BYTES];  /* of the user; "": none */
    _Atomic uint32_t turns;      /* of a node that is alone: sets and clears so far that changed it, */
    _Atomic uint32_t sleepers;   /* and the runtime's: threads that sleep on it */
    _Atomic stamp set, clear;    /* the latest that are known here; 0: none */
    _Atomic uint64_t followed;   /* spaces that have followed the node since it was set: their waits are over at once */
    node_id setter;              /* of `set` */
    bool unasked;                /* it was published, and nobody here had asked */
    bool asked;                  /* a request of this node is under way or waits at the home */
    stamp asked_after;           /* the clear that it names */
    stamp told;                  /* at its home: the latest set that was told by a message, */
    node_id teller;              /* and its setter */
    struct flag_waiter *waiters; /* nodes that wait */
};

/* What a node has published to another one, and the other way. */
struct flag_peer {
    struct vector told;      /* a subscriber has these notices, or will have */
    stamp since;             /* when it subscribed */
    uint64_t sent, received; /* numbers of the last unasked PUBLISH */
    int32_t rank;            /* its process that is published to */
    bool subscribed;         /* the other node is a subscriber of this one */
    uint32_t unused;         /* unasked, received, and none used since */
};

struct flags {
    struct table all;
    struct flag_peer *peers; /* NULL: no flag was used */
    uint32_t expected;       /* waits in a row that ended by unasked sets, up to FLAG_EXPECTED */
};

static inline bool flag_is_set(const struct flag *flag)
{
    return atomic_load(&flag->set) > atomic_load(&flag->clear);
}

/* NULL: not used here yet.  Needs no mutex. */
struct flag *flag_find(const struct node *node, uint32_t id);
/* The same, made if need be; NULL: there are no so many. */
struct flag *flag_use(struct node *node, uint32_t id);
/* Of another node, or its own interval has closed. */
void flag_learn_set(struct node *node, struct flag *flag, stamp set, node_id setter);
/* Of a node that is alone, outside of its mutex (H8).  True: it changed. */
bool flag_turn_alone(struct flag *flag, bool set);

/* A run of an interval that sets or clears a flag.  False: it cannot be. */
bool flag_notice(struct node *node, const struct interval *interval, const struct run *run);

/* What the node has published to another one; at their home, the nodes that wait. */
struct flag_peer *flag_peer_of(struct node *node, node_id peer);
struct flag_waiter *flag_take_waiter(struct node *node, struct flag_waiter **link);
void flag_free_waiter(struct node *node, struct flag_waiter *waiter);

void flag_check(const struct node *node);
void flags_fini(struct node *node);
