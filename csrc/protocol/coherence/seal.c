/* A page is protected before it is encoded: a write after that faults and finds its way into the next diff. */
#include "protocol/coherence/seal.h"

#include "protocol/coherence/pin.h"
#include "protocol/coherence/preopened.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/writes.h"
#include "protocol/page/accesses.h"
#include "protocol/page/history.h"
#include "protocol/page/live.h"
#include "protocol/page/region.h"

/* In the silence of a collection a page that is inspected is sent as the snapshot that there is (H5). */
static bool frozen(const struct node *node, const struct page *page)
{
    return context_silent(node) && page_inspected(page);
}

static bool closes(const struct node *node, const struct page *page)
{
    return page_access(node, page) == ACCESS_WRITE && !frozen(node, page) && !pin_find(node, page);
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

void seal_encode_deferred(struct node *node, struct page *page)
{
    if (!page->extension || !page->extension->deferred_tag)
        return;
    page->served_whole = page_worth_whole(page, page_encode_deferred(page, &node->pool, node->port));
    page_region(page)->stats[node->me].diffs_made++;
}

/* The diff between `now` and the twin, made and counted; with `races` logged.  Returns its bytes. */
static uint64_t encode(struct node *node, struct page *page, const unsigned char *now, stamp tag)
{
    uint64_t bytes = page_encode(page, now, &node->pool, tag);
    page_region(page)->stats[node->me].diffs_made++;
    if (node->options.races && bytes)
        accesses_wrote(node, page, page->extension->diffs_last);
    return bytes;
}

/* Whoever can write it goes on during the copy: those writes are in the page and not in its new twin.  (An exclusive
 * page has no twin; the snapshot becomes its first.)  False: nothing has changed since it was sealed last. */
static bool seal_snapshot(struct node *node, struct page *page, stamp tag, bool stays)
{
    uint64_t bytes = page_region(page)->page_bytes;
    bool changed = true;
    unsigned char *snapshot = page_twin_take(page, &node->pool);
    live_copy(snapshot, node->port->view + page_offset(page), bytes);
    if (page->twin)
        changed = encode(node, page, snapshot, tag) > 0;
    if (page_inspected(page) && changed)
        writes_mark_dirty(node, page); /* nobody has found it changed before */
    page_twin_drop(page, &node->pool);
    page->twin = snapshot;
    preopened_sent(node, page, stays);
    return changed;
}

/* The whole page is sent: its diff is for other readers, if any ask for it, and can wait.  No node needs it
 * after a collection, or when all have it.  False: nothing has changed since it was sealed last. */
static bool seal_closed(struct node *node, struct page *page, stamp tag, bool late)
{
    context_assert(node, !page->writers, "seal: a page is encoded that the program can write (R4)");
    context_assert(node, node->protection->bytes == 0 || node->protection->access == ACCESS_WRITE,
                   "seal: a page is encoded before the kernel was told (R4)");
    if (page_inspected(page) && preopened_changed(node, page))
        writes_mark_dirty(node, page);
    bool exclusive = page_open(page);
    page->mode = PAGE_CLOSED;
    if (!page->twin)
        return exclusive;
    if (late && !page_fetch(page)) {
        context_assert(node, !page->extension || !page->extension->deferred_tag, "seal: a second deferred diff");
        page_defer_encoding(page, &node->pool, tag);
        return true;
    }
    bool changed = encode(node, page, node->port->view + page_offset(page), tag) > 0;
    page_twin_drop(page, &node->pool);
    return changed;
}

/* An unchanged page keeps its stamp: with a new one, each reader would have to ask here for nothing, since what other
 * nodes send of the page names it (R3).  A stamp from before the end of a collection is not kept: the page may have got
 * a later one, which it has forgotten and others have not, and they would ask for that for ever. */
static stamp sealed(struct node *node, struct page *page, stamp tag, bool changed)
{
    stamp last = vector_get(&page->have, node->number);
    if (!changed && last > node->collection.ended && node->collection.phase == COLLECTION_IDLE)
        return last;
    vector_raise(&page->have, &node->pool, node->number, tag);
    page_event(node, EVENT_SEAL, page, node->number);
    return tag;
}

/* A frozen page is the same snapshot for everybody until the collection ends, but with a new stamp: a node that has
 * ended it already was perhaps sent it, with a stamp that is forgotten there. */
stamp seal_page(struct node *node, struct page *page, bool late)
{
    context_assert(node, page->copy, "seal: a page without a copy is sealed");
    context_assert(node, !page->arriving, "seal: an arriving page is sealed (R15)");
    bool unchanged = !page->twin && !page_open(page); /* since it was sealed: a deferred encoding may stay deferred */
    late &= !node->options.races;                     /* what a stretch wrote is logged before it ends */
    if (!late || !unchanged)
        seal_encode_deferred(node, page);
    stamp tag = context_tick(node);
    if (frozen(node, page))
        return sealed(node, page, tag, true);
    page_fill(page, node->port);
    bool changed = page->writers ? seal_snapshot(node, page, tag, false) : seal_closed(node, page, tag, late);
    return sealed(node, page, tag, changed);
}

stamp seal_open(struct node *node, struct page *page)
{
    context_assert(node, page_open(page), "seal: a page is left open that is closed");
    context_assert(node, node->collection.phase == COLLECTION_IDLE, "seal: a page is left open during a collection");
    seal_encode_deferred(node, page);
    stamp tag = context_tick(node);
    return sealed(node, page, tag, seal_snapshot(node, page, tag, true));
}
