/* cache - what this node holds of other nodes' pages.
 *
 * A page is *cached* while this node has memory for it, or is fetching it, and is not its owner.  The cached pages lie
 * in a queue, the one that was fetched first at its head; coherence/evict.h shortens it.
 *
 * Invariants (node/check.c)
 *  1. `bytes` is the sum of the cached pages; each of them is in the queue.  (A queued page may be cached no longer.)
 */
#pragma once

#include "protocol/page/page.h"

struct cache {
    struct page **queue;             /* a ring */
    uint32_t first, count, capacity; /* capacity: a power of two, or 0 */
    uint32_t added;                  /* pages since evict_step last looked for room */
    uint64_t bytes;
    uint64_t stuck_bytes; /* seen since the last collection: kept for no other reason than that a node may ask */
    uint64_t asked;       /* where the log of changes ended when spaces were last asked to give access up */
    bool promised;        /* a thread was given access, and has still to use it */
};

/* There will be memory for the page. */
void cache_add(struct node *node, struct page *page);
/* There is none any more, or this node is the owner. */
void cache_leave(struct node *node, struct page *page);
/* All nodes choose another owner (R7). */
void cache_owner(struct node *node, struct page *page, node_id owner);
void cache_remove_region(struct node *node, const struct region *region);

/* The queue. */
void cache_append(struct node *node, struct page *page);
struct page *cache_take_first(struct cache *cache);
