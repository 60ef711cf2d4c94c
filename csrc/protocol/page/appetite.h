/* appetite - how much of what one writer names in a region the threads of this node use.
 *
 * A history knows a page that is written again and again, a stream pages at a stride.  A writer may name other pages
 * each time, at no stride, and all of them are used here: a pivot row, a block that changes hands.  So a region keeps,
 * for each writer, how many pages its last notices named and how many of those threads here used.
 *
 *   SATED -- APPETITE_VERSIONS times in a row nearly all used --> HUNGRY -- most probes unused --> SATED
 *
 * While this node is hungry all pages that the writer names are fetched at once (predict/update.h).  Their use shows no
 * longer, so some are *probed*: left inaccessible, until a thread touches them.
 *
 * Invariants
 *  1. used <= named, probes_used <= probes.
 */
#pragma once

#include "protocol/base/vector.h"

enum { APPETITE_VERSIONS = 2, APPETITE_PROBES_EVERY = 16 };

struct appetite {
    node_id writer;
    uint32_t batch; /* the notices that came together and named pages last */
    stamp since;    /* their first interval */
    uint32_t named, used, probes, probes_used;
    uint32_t versions; /* in a row of which nearly all was used */
};

struct appetites {
    struct appetite *items;
    uint32_t count, capacity;
};

/* A notice of the batch names `pages` of the region. */
struct appetite *appetite_notice(struct appetites *appetites, struct pool *pool, node_id writer, uint32_t batch,
                                 stamp closed, uint32_t pages);
/* Of a page that needs `need`: a thread uses it, or it is left inaccessible, or a thread uses it then. */
enum appetite_event { APPETITE_USED, APPETITE_PROBED, APPETITE_PROBE_USED };
void appetite_count(const struct appetites *appetites, const struct vector *need, enum appetite_event event);
static inline bool appetite_hungry(const struct appetite *appetite)
{
    return appetite->versions >= APPETITE_VERSIONS;
}
/* Pages of this batch are to be probed. */
static inline bool appetite_probes(const struct appetite *appetite)
{
    return appetite->versions % APPETITE_PROBES_EVERY == APPETITE_VERSIONS;
}
