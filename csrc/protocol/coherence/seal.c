/* A page is protected before it is encoded: a write after that faults and finds its way into the next diff. */
#include "protocol/coherence/seal.h"

#include <string.h>

#include "protocol/coherence/preopened.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/writes.h"
#include "protocol/page/history.h"
#include "protocol/page/region.h"

/* True: the page is served as a snapshot and stays open, because it was written again after each of the last servings.
 * Not where the whole page is served: closed, it travels without a copy.  (An exclusive page has no twin; the snapshot
 * becomes its first.) */
static bool served_open(const struct node *node, const struct page *page)
{
    const struct page_history *history = page_history(page);
    bool allowed = node->options.open_bytes_max && node->collection.phase == COLLECTION_IDLE;
    bool rewritten = history && history->rewritten >= HISTORY_REWRITTEN && !page->served_whole;
    bool exempt = page_served_from_twin(page) || page_pinned(page);
    return allowed && rewritten && !exempt && page->writable && page_valid(page);
}

static bool closes(const struct node *node, const struct page *page)
{
    return page->access == ACCESS_WRITE && !page_served_from_twin(page) && !served_open(node, page);
}

/* Pages at a small stride would be a call each.  Open pages between this one and those that are about to be closed are
 * closed with them; the next write there opens them again.  In a matrix product that halves the calls. */
static void shut_between(struct node *node, const struct page *page)
{
    enum { BETWEEN_PAGES = 7 };
    const struct region *region = page_region(page);
    uint64_t closing = node->protection->offset + node->protection->bytes, offset = page_offset(page);
    bool closes_others = node->protection->bytes && node->protection->access == ACCESS_READ;
    bool near = node->protection->offset >= region->offset && closing < offset &&
                offset - closing <= BETWEEN_PAGES * region->page_bytes;
    if (!closes_others || !near)
        return;
    uint64_t first = (closing - region->offset) / region->page_bytes, end = page_index(page);
    for (uint64_t index = first; index < end; index++) {
        const struct page *between = region_page_if(region, index);
        if (!between || !closes(node, between))
            return;
    }
    for (uint64_t index = first; index < end; index++)
        protection_set(node, region_page_if(region, index), ACCESS_READ);
}

void seal_shut(struct node *node, struct page *page)
{
    context_assert(node, page->copy, "seal: a page without a copy is made ready to be sent (R13)");
    if (!closes(node, page))
        return;
    shut_between(node, page);
    protection_set(node, page, ACCESS_READ);
}

/* A page pinned for writing stays open: a snapshot is encoded and sent, and becomes the twin (R10). */
static void seal_pinned(struct node *node, struct page *page, stamp tag)
{
    context_assert(node, page->copy, "seal: a pinned page without a copy");
    context_assert(node, !page->owed, "seal: a second snapshot during a collection");
    uint64_t bytes = page_region(page)->page_bytes;
    unsigned char *snapshot = pool_take(&node->pool, bytes);
    memcpy(snapshot, node->port->view + page_offset(page), bytes);
    if (page->twin) {
        page_encode(page, snapshot, &node->pool, tag);
        page_region(page)->stats.diffs_made++;
    }
    page_twin_drop(page, &node->pool);
    page->twin = snapshot;
    if (context_silent(node))
        page->owed = node->collection.owing = true;
    else
        writes_mark_dirty(node, page);
}

void seal_encode_deferred(struct node *node, struct page *page)
{
    if (!page->extension || !page->extension->deferred_tag)
        return;
    page->served_whole = page_worth_whole(page, page_encode_deferred(page, &node->pool, node->port));
    page_region(page)->stats.diffs_made++;
}

/* The whole page is sent: its diff is for other readers, if any ask for it, and can wait.  No node needs it
 * after a collection, or when all have it. */
static void seal_closed(struct node *node, struct page *page, stamp tag, bool late)
{
    context_assert(node, page->access != ACCESS_WRITE, "seal: a page is encoded that the program can write (R4)");
    context_assert(node, node->protection->bytes == 0 || node->protection->access == ACCESS_WRITE,
                   "seal: a page is encoded before the kernel was told (R4)");
    page->writable = false;
    if (!page->twin)
        return;
    if (late && !page_fetch(page)) {
        context_assert(node, !page->extension || !page->extension->deferred_tag, "seal: a second deferred diff");
        page_defer_encoding(page, &node->pool, tag);
        return;
    }
    page_encode(page, node->port->view + page_offset(page), &node->pool, tag);
    page_twin_drop(page, &node->pool);
    page_region(page)->stats.diffs_made++;
}

stamp seal_page(struct node *node, struct page *page, bool late)
{
    context_assert(node, page->copy, "seal: a page without a copy is sealed");
    context_assert(node, !page->arriving, "seal: an arriving page is sealed (R15)");
    bool unchanged = !page->twin && !page->writable; /* since it was sealed: a deferred encoding may stay deferred */
    if (!late || !unchanged)
        seal_encode_deferred(node, page);
    if (page->owed)
        return vector_get(&page->have, node->number); /* the same snapshot for everybody until the collection ends */
    if (page->writable && page->access == ACCESS_WRITE && !page_pinned_write(page)) { /* seal_shut left it open */
        seal_snapshot(node, page);
        return vector_get(&page->have, node->number);
    }
    page->served = page->served || page->writable;
    stamp tag = context_tick(node);
    page_fill(page, node->port);
    if (page->preopened) {
        page->preopened = false;
        if (preopened_changed(node, page))
            writes_mark_dirty(node, page);
    }
    if (page_pinned_write(page))
        seal_pinned(node, page, tag);
    else
        seal_closed(node, page, tag, late);
    vector_raise(&page->have, &node->pool, node->number, tag);
    page_event(node, EVENT_SEAL, page, node->number);
    return tag;
}

/* The copy is taken first: writes of other threads meanwhile are then in the page and not in its new twin. */
void seal_snapshot(struct node *node, struct page *page)
{
    context_assert(node, page->writable, "seal: a snapshot of a page that is not open");
    context_assert(node, !page_served_from_twin(page), "seal: a snapshot of a page that is served from its twin");
    seal_encode_deferred(node, page);
    uint64_t bytes = page_region(page)->page_bytes;
    stamp tag = context_tick(node);
    unsigned char *snapshot = pool_take(&node->pool, bytes);
    memcpy(snapshot, node->port->view + page_offset(page), bytes);
    if (page->twin) {
        page_encode(page, snapshot, &node->pool, tag);
        page_region(page)->stats.diffs_made++;
        const struct diff *last = page->extension ? page->extension->diffs_last : NULL;
        if (page->preopened && last && last->tag == tag)
            writes_mark_dirty(node, page); /* nobody has found it changed before */
    }
    page_twin_drop(page, &node->pool);
    page->twin = snapshot;
    vector_raise(&page->have, &node->pool, node->number, tag);
    preopened_add(node, page, true);
    page_event(node, EVENT_SEAL, page, node->number);
}
