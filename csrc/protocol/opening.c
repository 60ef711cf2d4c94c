/* A page's life under writes: opened for its first write, sealed when it is served, stale when somebody else wrote. */
#include "protocol/node.h"

#include <string.h>

void node_mark_dirty(struct node *node, struct page *page)
{
    if (page->dirty)
        return;
    page->dirty = true;
    node->dirty = pool_grow(&node->pool, node->dirty, &node->dirty_capacity, node->dirty_count + 1, sizeof(struct page *));
    node->dirty[node->dirty_count++] = page;
}

bool page_open(struct node *node, struct page *page)
{
    if (page->writable)
        return true;
    if (node->collection.holding)
        return false;
    if (apart_leaves(node, page)) {
        node->hurry = true;
        return false;
    }
    node_mark_dirty(node, page);
    page->writable = true;
    if (!page->twin) {
        page_twin(page, &node->pool, &node->port);
        node->stats.twins_made++;
        page->region->stats.twins_made++;
    }
    node_event(node, EVENT_OPEN, page, 0, node->rank);
    return true;
}

void page_shut(struct node *node, struct page *page)
{
    if (page->access == ACCESS_WRITE && !page_stays_open(page))
        page_protect(node, page, ACCESS_READ);
}

static void count_diff(struct node *node, struct page *page)
{
    node->stats.diffs_made++;
    page->region->stats.diffs_made++;
}

/* A page pinned for writing stays open: what is cut and sent is a snapshot, which becomes the twin (R10). */
static void seal_pinned(struct node *node, struct page *page, stamp tag)
{
    uint64_t bytes = page->region->page_bytes;
    unsigned char *snapshot = pool_take(&node->pool, bytes);
    memcpy(snapshot, node->port.view + page_offset(page), bytes);
    if (page->twin) {
        page_cut(page, snapshot, &node->pool, tag);
        count_diff(node, page);
    }
    page_twin_drop(page, &node->pool);
    page->twin = snapshot;
    if (collection_silent(node))
        page->owed = node->collection.owing = true;
    else
        node_mark_dirty(node, page);
}

stamp page_seal(struct node *node, struct page *page)
{
    if (page->owed)
        return vector_get(&page->have, node->rank);     /* the same snapshot for everybody until the collection ends */
    stamp tag = node_tick(node);
    page_fill(page, &node->port);
    if (page->pins_write) {
        seal_pinned(node, page, tag);
    } else {
        page->writable = false;
        if (page->twin) {
            page_cut(page, node->port.view + page_offset(page), &node->pool, tag);
            page_twin_drop(page, &node->pool);
            count_diff(node, page);
        }
    }
    vector_raise(&page->have, &node->pool, node->rank, tag);
    node_event(node, EVENT_SEAL, page, tag, node->rank);
    return tag;
}

void page_make_stale(struct node *node, struct page *page)
{
    if (page->pins_write)
        return;                     /* exempt until it is unpinned; an acquire brings it up to date (node_pins_valid) */
    page->writable = false;
    if (page->pins_read) {
        if (page->access == ACCESS_WRITE)
            page_protect(node, page, ACCESS_READ);
        return;
    }
    if (page->access != ACCESS_NONE) {
        page_protect(node, page, ACCESS_NONE);
        node->stats.invalidations++;
        page->region->stats.invalidations++;
        node_event(node, EVENT_STALE, page, 0, NODE_NONE);
    }
}
