/* races - two accesses of different nodes to the same bytes, one of them a write, neither ordered before the other
 * (Perkovic and Keleher, OSDI'96).
 *
 * The first half ends the stretches of this node where its rank synchronises.  The second half compares the logs of all
 * nodes.  It computes a vector clock for each stretch: the last stretch of every node that comes before it.  What
 * orders two stretches is what the program did (a release and the acquire that it led to, a meeting), not what the
 * protocol happened to carry along: a grant may tell more than the release that it follows.
 *
 * Two nodes with an access to one page in concurrent stretches are compared byte by byte.  A write is known by its
 * bytes, a read by its page only, and a read of a page that was written before in the same stretch not at all.
 */
#pragma once

#include "protocol/page/accesses.h"

struct lock;

/* ---- at the synchronising calls of a rank ----------------------------------------------------------------------- */

void races_before_release(struct node *node, uint32_t site);
/* A thread of this node holds the lock now. */
void races_after_lock(struct node *node, const struct lock *lock, uint32_t site);
/* A thread found a flag set: by this node, in the interval that closed at this stamp. */
void races_after_flag(struct node *node, node_id setter, stamp set, uint32_t site);
void races_before_meeting(struct node *node, uint32_t site);
void races_after_meeting(struct node *node, uint32_t site);

/* The log so far, which is the caller's; give it back with accesses_give. */
struct access_log races_take(struct node *node);

/* ---- comparison ------------------------------------------------------------------------------------------------- */

enum race_kind {
    RACE_WRITES,    /* both wrote these bytes */
    RACE_READ,      /* `first` wrote them, and the other node read their page */
    RACE_MAYBE_READ /* `first` wrote them, and the other node had their page open */
};

struct race {
    uint64_t page;
    uint32_t from, to; /* bytes of the page */
    region_id region;
    uint32_t kind; /* enum race_kind */
    node_id nodes[2];
    uint32_t stretches[2]; /* in their nodes' logs */
};

struct races_found {
    uint64_t count;         /* may be more than there was room for */
    uint64_t pairs_skipped; /* of accesses to a page, by two nodes with very many */
};

/* Memory that a comparison needs, in bytes. */
uint64_t races_scratch_bytes(const struct access_log *logs, node_id nodes);
/* All races between the nodes' logs; the first `room` of them go to `races`. */
struct races_found races_compare(const struct access_log *logs, node_id nodes, void *scratch, struct race *races,
                                 uint64_t room);
