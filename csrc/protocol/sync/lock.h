/* lock - mutual exclusion, and the carrier of write notices from a releaser to the next acquirer.
 *
 * There is one token per lock.  It stays where it was last used, so that taking the lock there again is free.
 *
 *   REMOTE  -- ask -->  ASKED  -- grant -->  RESTING  -- a thread takes it -->  HELD
 *     ^                                        |   ^                              |
 *     +---- granted to the node that waits ----+   +-----------  release  --------+
 *
 * Threads of all spaces of a node queue at home, and hand the lock on there without a message (H6).
 * The manager of a lock (its number modulo the size) knows which node asked last and passes a request on to it; so the
 * nodes that wait form a chain, each knowing the one behind it (Keleher 1994, 3.4).  Threads of one node
 * queue at home, and a node that waits goes before them (R12).
 *
 * Trying.  A request of a thread that only tries is answered with the token or with BUSY.  BUSY is said by a node that
 * holds the token for a thread, or whose own request is firm: it keeps its place in the chain until the next request
 * reaches it.  A refused node leaves the chain again, so that the next try finds the lock as it is then:
 *
 *   ASKED  -- BUSY from a predecessor -->  WITHDRAWING  -- WITHDRAWN, and the follower's PASS if any -->  REMOTE
 *
 * The manager answers WITHDRAW with WITHDRAWN.  If no node asked since, the predecessor is the end of the chain again,
 * and no request will reach the refused node.  Otherwise the manager has sent it exactly one request, that of the
 * *follower*, and WITHDRAWN says so.  The refused node passes that request on to its predecessor, and stays in the
 * chain until it has, because WITHDRAWN may overtake the request.  Behind a try that is not answered yet a request
 * waits: it goes on to the predecessor with the BUSY, or is answered when the token comes.
 *
 * Invariants (node/check.c)
 *  1. held implies token.
 *  2. asked implies not token.
 *  3. A node waits behind another at most once (one request per node and lock is outstanding).
 *  4. withdrawing implies asked, by a thread that tries; no node waits meanwhile.
 *  5. passed_on and follower_due imply withdrawing, and exclude each other.
 */
#pragma once

#include <stdatomic.h>

#include "protocol/base/context.h"
#include "protocol/base/table.h"

enum { TRAIL_HOPS_MAX = 8, TRAIL_SITE_BYTES = 64, TRAIL_AGE_MAX = 2 };

/* A lock, its holder, where it took the lock ("": unknown), and what it waits for now. */
struct hop {
    uint32_t lock, rank, thread;
    uint32_t waits; /* enum wait_kind */
    uint64_t object;
    char site[TRAIL_SITE_BYTES];
};

struct trail {
    uint32_t count;
    uint32_t age; /* calls of trail_tell since it was told */
    struct hop hops[TRAIL_HOPS_MAX];
};

/* A thread as its process names it, and where in the program it took, or asked for, the lock ("": unknown). */
struct lock_user {
    uint32_t rank, thread;
    char site[TRAIL_SITE_BYTES];
};

/* A thread of this node that wants the lock. */
struct lock_waiter {
    struct lock_waiter *next, *before;
    const struct lock *lock;
    struct lock_user user;
    uint32_t space;
    void *sleeper; /* the caller's, of this space: how it wakes this thread when it is the first in line */
    bool trying;   /* one answer is enough */
    bool asked;    /* the request that is under way is this one's */
    bool refused;  /* and the answer was no */
};

struct lock_stats {
    uint64_t acquires, acquires_local, grants, wait_ns;
};

enum { LOCK_NAME_BYTES = 64 };

struct lock {
    uint32_t id;
    char name[LOCK_NAME_BYTES]; /* of the user; "": none */
    _Atomic uint32_t use;       /* the rank that holds it, + 1, times 2; and LOCK_LINE */
    bool token, asked;
    bool asked_trying; /* the request that is under way was made by a thread that tries; */
    bool withdrawing;  /* it was refused, by its predecessor */
    bool passed_on;    /* while it withdraws: the follower's request went on to the predecessor, */
    bool follower_due; /* or is on its way here, as the manager says */
    node_id predecessor;
    node_id tail;                 /* at the manager: the last requester */
    node_id waiting;              /* the node that gets the token next, or NODE_NONE */
    int32_t waiting_rank;         /* its process that waits */
    bool waiting_trying;          /* one answer is enough for it */
    struct vector waiting_vector; /* the notices that it had when it asked */
    struct lock_waiter *queue, *queue_last;
    struct lock_user holder;    /* of a lock that is held */
    _Atomic uint32_t overtaken; /* times that a thread went ahead of those in line, in a row */
    bool held_long;             /* by the same thread since trail_tell looked */
    struct trail *told;         /* reported by its holder elsewhere, or NULL */
    node_id released_by;        /* last, or NODE_NONE; known with the option `races`, */
    stamp released_at;          /* as is the end of the stretch before */
    struct lock_stats *stats;   /* of each space */
};

struct locks {
    struct table all;
};

/* In `use`: threads stand in line. */
enum { LOCK_LINE = 1 };

static inline bool lock_held(const struct lock *lock)
{
    return atomic_load(&lock->use) > LOCK_LINE;
}
/* Of a lock that is held. */
static inline uint32_t lock_holder(const struct lock *lock)
{
    return (atomic_load(&lock->use) >> 1) - 1;
}

enum lock_answer { LOCK_TAKEN, LOCK_WAIT, LOCK_REFUSED };

/* Of all locks, by threads of a space; their waits are not added up. */
struct lock_stats lock_total(const struct node *node, uint32_t space);
struct lock *lock_find(const struct node *node, uint32_t id);
/* The same, made if need be: all ranks count alike.  NULL: there are no so many. */
struct lock *lock_use(struct node *node, uint32_t id);
/* All locks in turn: the first whose number is *next or larger, and *next is then the number behind it. */
struct lock *lock_next(const struct node *node, uint32_t *next);
/* A thread of the space that is inside gets in line; `site` may be NULL.  The ticket is never 0. */
uint64_t lock_enqueue(struct node *node, struct lock *lock, uint32_t thread, const char *site, bool trying);
/* The place in line that the ticket stands for. */
struct lock_waiter *lock_waiter_of(const struct node *node, const struct lock *lock, uint64_t ticket);
/* Is it this thread's turn?  TAKEN and REFUSED end the ticket. */
enum lock_answer lock_poll(struct node *node, struct lock *lock, uint64_t ticket);
/* Some lock was asked for by a thread that has left the line: its grant will come when nobody waits for it. */
bool lock_orphaned(const struct node *node);
/* Out of the line.  A request that is under way stands: the token then serves another thread, goes on, or rests. */
void lock_cancel(struct node *node, struct lock *lock, uint64_t ticket);
/* False: no thread of the rank holds it. */
bool lock_release(struct node *node, struct lock *lock, uint32_t rank);
/* Of a node that is alone, outside of its mutex (H8): take the lock if it is free, give it up if no thread stands in
 * line.  So a thread may go ahead of those in line, some times in a row: to wake another one for each turn takes ten
 * times as long.  The user's own site is not looked at. */
bool lock_take_alone(struct node *node, struct lock *lock, uint32_t space, const struct lock_user *user,
                     const char *site);
bool lock_give_alone(struct lock *lock, uint32_t rank);

void lock_receive_acquire(struct node *node, struct message *message);
void lock_receive_pass(struct node *node, const struct message *message);
void lock_receive_busy(struct node *node, const struct message *message);
void lock_receive_withdraw(struct node *node, const struct message *message);
void lock_receive_withdrawn(struct node *node, const struct message *message);

/* A collection has ended: grants that had to wait for it (collection.h). */
void lock_resume(struct node *node);

/* The token has come with a GRANT. */
void lock_take_token(struct node *node, struct lock *lock);
/* The lock has come, or this node has left the chain. */
void lock_forget_trail(struct node *node, struct lock *lock);
void locks_fini(struct node *node);
