/* writes - the pages of the open interval: which pages this node has opened for writing since it last released.
 *
 * Invariants
 *  1. A page is listed exactly while it is dirty.
 */
#pragma once

#include "protocol/page/page.h"

struct writes {
    struct page **dirty; /* pages of the open interval */
    uint32_t dirty_count, dirty_capacity;
};

/* The page belongs to the open interval. */
void writes_mark_dirty(struct node *node, struct page *page);
/* A write fault: the page is opened and belongs to the open interval.  False: a collection holds, or the page is
 * leaving by a bulk transfer. */
bool writes_open(struct node *node, struct page *page);
/* The page has become stale: its writers must fault again, and those that lag are inspected as before. */
void writes_stale(struct page *page);
/* A page is about to be opened: learn from it whether it should have been left open. */
void writes_note(struct node *node, struct page *page);
void writes_remove_region(struct node *node, const struct region *region);
