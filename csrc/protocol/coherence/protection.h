/* protection - what the kernel lets the space that is inside do with each page (page.h, `readers` and `writers`).
 *
 * Changes reach the kernel in batches of neighbouring pages.  A batch is flushed before its protection is relied
 * on: before a diff is encoded, and before the caller gives up the mutex.
 *
 * Invariants
 *  1. `edges` is the number of changes of access along the whole range, of each space, as recorded in the pages.
 */
#pragma once

#include "protocol/page/page.h"

struct protection {
    uint64_t offset, bytes; /* the batch that has not reached the kernel yet; 0 bytes: none */
    enum access access;     /* of the batch */
    uint64_t edges[SPACES_MAX];
};

void protection_set(struct node *node, struct page *page, enum access access);
void protection_flush(struct node *node);
/* The region goes: its edges, of all spaces, are counted no longer. */
void protection_remove_region(struct node *node, struct region *region);
/* Make bytes inaccessible that belong to no region any more. */
void protection_close(struct node *node, uint64_t offset, uint64_t bytes);
/* What was freed and this space has not followed yet takes up mappings of the kernel, too.  False: a call failed. */
bool protection_close_graves(struct node *node);
