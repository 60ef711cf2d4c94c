/* prefetch - pages that a thread will use, and does not wait for.
 *
 *   asked -- there is room for more fetches --> fetched ahead, or passed over --> forgotten
 *
 * A hint: pages that are valid, on their way, or never named to this node are passed over, and so are those of a region
 * that is freed meanwhile.  While a collection holds (context_holds) none starts (R8, R11); what is left then goes on
 * afterwards.
 *
 * Invariants
 *  1. While `under_way`, some thread must receive answers, although none waits for them.
 *  2. Ranges are started in the order in which they were asked for.
 */
#pragma once

#include "protocol/page/page.h"

struct prefetch {
    struct prefetch *next;
    region_id region;
    uint64_t page, end; /* the next one to look at, and the one behind the last */
};

struct prefetches {
    struct prefetch *first, *last;
    bool under_way; /* there are ranges, or fetches of some have not ended */
};

/* Pages `page` to `end - 1` of the region.  They are started by node_settle. */
void prefetch_add(struct node *node, const struct region *region, uint64_t page, uint64_t end);
/* Start what there is room for.  Called by node_settle while `under_way`. */
void prefetch_step(struct node *node);
void prefetch_fini(struct node *node);
