/* flag - an event of the user: threads of all nodes set it, clear it, and wait until it is set.
 *
 * A set releases and a wait acquires.  Both a set and a clear are run of an interval (page/interval.h), so they travel
 * with the write notices: a node that has synchronised with a set, or with a clear, knows of it without a message.  The
 * latest of them counts, by the stamp of its interval: stamps agree with happens-before (Lamport 1978), so messages
 * may overtake each other.  A flag is made by its first use; no meeting is needed, because all ranks count alike.
 *
 *   CLEAR  -- a set, in an interval later than the last clear -->  SET
 *     ^------ a clear, in an interval later than the last set ------+
 *
 * A thread that finds the flag cleared makes its node ask the flag's home (its number modulo the size):
 *
 *   waiter -- AWAIT --> home              the home keeps the request until the flag is set,
 *   setter -- SET ----> home              knows only who has set it, and takes no notices;
 *             home -- AWAIT --> setter    so it passes the request on,
 *                     setter -- PUBLISH --> waiter    and the setter answers with its notices.
 *
 * A node that was answered is a subscriber of the setter: it is published every flag that the setter sets, at once.  So a
 * hand-over that repeats is one message.  A subscriber that uses none of so many in a row unsubscribes.
 *
 * A PUBLISH that was not asked for holds the intervals that the one before to this subscriber did not.  These are
 * numbered, and one that overtook another is deferred.  All go to the same process of the subscriber: the one that asked.
 * An answer goes to the process that asked for it, and holds all that the vector of the request lacks.
 *
 * A wait ends at any set later than the last clear that was known when it began, even if the flag was cleared since.
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
#include "protocol/page/interval.h"

enum { FLAGS_MAX = 1 << 20, FLAG_CHUNK = 1 << 10, FLAG_NAME_BYTES = 40 };

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
    _Atomic(struct flag **) chunks[FLAGS_MAX / FLAG_CHUNK];
    struct flag_peer *peers; /* NULL: no flag was used */
};

static inline bool flag_is_set(const struct flag *flag)
{
    return atomic_load(&flag->set) > atomic_load(&flag->clear);
}

/* NULL: not used here yet.  Needs no mutex. */
struct flag *flag_find(const struct node *node, uint32_t id);
/* The same, made if need be; NULL: there are no so many. */
struct flag *flag_use(struct node *node, uint32_t id);
/* False: a collection lets no new notice out; ask again. */
bool flag_set(struct node *node, struct flag *flag);
bool flag_clear(struct node *node, struct flag *flag);
/* Was it set later than the clear `after`?  If not, the node asks its home. */
bool flag_poll(struct node *node, struct flag *flag, stamp after);

/* Of a node that is alone, outside of its mutex (H8).  True: it changed. */
bool flag_turn_alone(struct flag *flag, bool set);

/* A run of an interval that sets or clears a flag.  False: it cannot be. */
bool flag_notice(struct node *node, const struct interval *interval, const struct run *run);

void flag_receive_await(struct node *node, struct message *message);
void flag_receive_set(struct node *node, const struct message *message);
void flag_receive_unsubscribe(struct node *node, const struct message *message);
/* A PUBLISH (node/grant.c): one that was not asked for came before the one that it follows. */
bool flag_overtook(struct node *node, const struct message *message, uint64_t number);
/* What it tells the home: passed over, and taken in when its notices have been. */
void flag_skip_told(struct node *node, const struct message *message, struct reader *reader);
void flag_take_told(struct node *node, const struct message *message, struct reader reader);
void flag_count_unasked(struct node *node, const struct message *message, uint64_t number);

void flag_check(const struct node *node);
void flags_fini(struct node *node);
