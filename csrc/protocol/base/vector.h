/* vector - a sparse vector of stamps, one per node that matters; a missing entry is 0.
 *
 * Two of them per page carry all coherence state (need and have); written sparse, because a page has few writers and a
 * job may have a thousand nodes.  Most pages have one writer: the first entry lies in the vector itself.
 *
 * Invariants
 *  1. No node occurs twice, no stamp is 0.
 *  2. One entry is `stamp` and `node`; more are the first `count` of `entries`, an array of the pool.
 */
#pragma once

#include "protocol/base/pool.h"

struct vector_entry {
    stamp stamp;
    node_id node;
    uint32_t unused;
};

struct vector {
    union {
        stamp stamp;
        struct vector_entry *entries;
    };
    union {
        node_id node;
        uint32_t capacity;
    };
    uint32_t count;
};

struct vector_entry vector_at(const struct vector *vector, uint32_t position);
stamp vector_get(const struct vector *vector, node_id node);
/* entry := max(entry, to) */
void vector_raise(struct vector *vector, struct pool *pool, node_id node, stamp to);
void vector_copy(struct vector *to, struct pool *pool, const struct vector *from);
void vector_clear(struct vector *vector, struct pool *pool);
/* Every entry of `low` is at most that of `high`; `except` (or NODE_NONE) is not looked at. */
bool vector_covers(const struct vector *high, const struct vector *low, node_id except);
void vector_check(const struct vector *vector, const struct port *port);
