/* A write fault opens a page: from then on its writes are in the open interval, and its twin shows them. */
#include "protocol/coherence/writes.h"

#include "protocol/coherence/bulk.h"
#include "protocol/page/history.h"

enum { PATIENCE_MAX = 128 };

void writes_mark_dirty(struct node *node, struct page *page)
{
    if (page->dirty)
        return;
    context_assert(node, page->copy, "writes: a page without a copy was written");
    page->dirty = true;
    node->writes->dirty = pool_grow(&node->pool, node->writes->dirty, &node->writes->dirty_capacity,
                                    node->writes->dirty_count + 1, sizeof(struct page *));
    node->writes->dirty[node->writes->dirty_count++] = page;
}

/* A page that is written with the values that it has, or every few intervals only, was closed too soon. */
void writes_note(struct node *node, struct page *page)
{
    context_assert(node, !page_open(page), "writes: a page is opened that is open");
    struct page_history *history = page_history(page);
    if (!history || !history->closed)
        return;
    history->closed = false;
    if (history->patience < PATIENCE_MAX)
        history->patience = (uint8_t)(2 * history->patience);
}

void writes_stale(struct page *page)
{
    if (page_open(page))
        page->reopens = page->mode == PAGE_OPEN || page->preopened_stays;
    if (page->mode == PAGE_OPEN)
        page->mode = PAGE_CLOSED;
    else if (page->mode == PAGE_PREOPENED)
        page->mode = PAGE_LAGGED;
}

bool writes_open(struct node *node, struct page *page)
{
    if (page_open(page))
        return true;
    if (context_holds(node))
        return false;
    if (bulk_leaves(node, page)) {
        node->send_blocked = true;
        return false;
    }
    context_assert(node, page->copy, "writes: a page without a copy is opened");
    context_assert(node, !page->arriving, "writes: a page is opened while it arrives (R15)");
    context_assert(node, !page_fetch(page), "writes: a page is opened while it is fetched");
    writes_note(node, page);
    writes_mark_dirty(node, page);
    page->mode = PAGE_OPEN;
    if (!page->twin) {
        page_twin(page, &node->pool, node->port);
        page_region(page)->stats[node->me].twins_made++;
    }
    context_assert(node, page->twin, "writes: an open page has no twin");
    context_assert(node, page->dirty, "writes: an opened page is in no interval");
    page_event(node, EVENT_OPEN, page, node->number);
    return true;
}

void writes_remove_region(struct node *node, const struct region *region)
{
    struct writes *writes = node->writes;
    writes->dirty_count = page_list_remove_region(writes->dirty, writes->dirty_count, region);
}
