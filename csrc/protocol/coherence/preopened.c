/* A page is protected first and then inspected once more before it is closed: threads go on writing meanwhile. */
#include "protocol/coherence/preopened.h"

#include <string.h>

#include "protocol/coherence/bulk.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/writes.h"
#include "protocol/page/history.h"

enum { PATIENCE_MIN = 4 };

void preopened_add(struct node *node, struct page *page, bool stays)
{
    context_assert(node, page->writable, "preopened: a page is listed that is not open");
    context_assert(node, page->twin, "preopened: a page is preopened without a twin (R10)");
    context_assert(node, !context_holds(node), "preopened: a page is preopened during a collection (R10)");
    if (!page->preopened_listed) {
        node->preopened->pages = pool_grow(&node->pool, node->preopened->pages, &node->preopened->capacity,
                                           node->preopened->count + 1, sizeof(struct page *));
        node->preopened->pages[node->preopened->count++] = page;
    }
    page->preopened = page->preopened_listed = true;
    page->preopened_stays = stays;
    page->preopened_paused = false;
    if (stays) {
        struct page_history *history = history_of(page, &node->pool);
        history->looks = 0;
        if (history->patience == 0)
            history->patience = PATIENCE_MIN;
    }
    node->stats.pages_preopened++;
}

/* A stream comes over an unchanged page again: it is written with the value that it has (zeros over zeros), and would
 * be inspected and closed for ever.  Once a notice has named it, it stays open as other pages do.  This holds only
 * where no node is known to have written it: a stream runs into a neighbour's block, whose copies must not go stale for
 * that. */
static bool written_unchanged(const struct page *page)
{
    return page->preopened_unused && page->fresh && page->need.count == 0;
}

bool preopened_open(struct node *node, struct page *page, bool stays)
{
    bool exempt = page->writable || page_pinned(page) || page->owed;
    bool blocked = node->collection.phase != COLLECTION_IDLE || bulk_leaves(node, page);
    if (exempt || blocked || !page_valid(page))
        return false;
    if (!stays && written_unchanged(page)) {
        writes_open(node, page);
        protection_set(node, page, ACCESS_WRITE);
        return true;
    }
    writes_note(node, page);
    page->writable = true;
    if (!page->twin)
        page_twin(page, &node->pool, node->port);
    preopened_add(node, page, stays);
    protection_set(node, page, ACCESS_WRITE);
    page_event(node, EVENT_OPEN, page, node->number);
    return true;
}

/* The last answer of the port; pages come in ascending order. */
struct touched {
    uint64_t offset, bits;
    bool asked;
};

/* Memory that was never touched is unchanged; reading it would make it. */
static bool untouched(const struct node *node, const struct page *page, struct touched *touched)
{
    const struct port *port = node->port;
    uint64_t granule = port->granule_bytes, window = 64 * granule, offset = page_offset(page);
    if (!port->touched || page_region(page)->initial || !page_twin_constant(page))
        return false;
    for (uint64_t at = offset; at < offset + page_region(page)->page_bytes; at += granule) {
        if (!touched->asked || at / window != touched->offset / window) {
            touched->offset = at / window * window;
            touched->bits = port->touched(port->context, touched->offset);
            touched->asked = true;
        }
        if (touched->bits >> (at - touched->offset) / granule & 1)
            return false;
    }
    return true;
}

static bool differs(const struct node *node, const struct page *page, struct touched *touched)
{
    const unsigned char *now = node->port->view + page_offset(page);
    uint64_t bytes = page_region(page)->page_bytes, granule = node->port->granule_bytes;
    if (untouched(node, page, touched))
        return false;
    if (!page_twin_constant(page))
        return memcmp(now, page->twin, bytes) != 0;
    for (uint64_t at = 0; at < bytes; at += granule)
        if (memcmp(now + at, page->twin, granule) != 0)
            return true;
    return false;
}

bool preopened_changed(const struct node *node, const struct page *page)
{
    return differs(node, page, &(struct touched){.asked = false});
}

bool preopened_written(const struct node *node, const struct page *page)
{
    return page->dirty || (page->preopened && preopened_changed(node, page));
}

/* It is protected and unchanged. */
static void close_unused(struct node *node, struct page *page)
{
    context_assert(node, page->twin, "preopened: an unchanged page has no twin to show it");
    context_assert(node, page->access != ACCESS_WRITE, "preopened: a page is closed that the program can write");
    context_assert(node, !page->arriving, "preopened: an arriving page was preopened");
    node->stats.pages_preopened_unused++;
    if (page->preopened_stays) {
        page_history(page)->closed = true;
        page_history(page)->rewritten = 0;
    }
    if (page_twin_constant(page)) {
        page->twin = NULL;
        page->fresh = true;
        page->preopened_unused = true;
    } else
        page_twin_drop(page, &node->pool);
}

/* Protect first and look again: threads go on writing meanwhile. */
static void close_opened(struct node *node)
{
    uint32_t kept = 0;
    struct touched touched = {.asked = false};
    protection_flush(node);
    for (uint32_t i = 0; i < node->preopened->count; i++) {
        struct page *page = node->preopened->pages[i];
        bool open = page->writable, changed = !open && differs(node, page, &touched);
        context_assert(node, page->preopened, "preopened: a page is closed that is not preopened");
        if (open || (page->preopened_paused && !changed)) {
            node->preopened->pages[kept++] = page;
            continue;
        }
        page->preopened = page->preopened_listed = page->preopened_paused = false;
        if (changed)
            writes_mark_dirty(node, page);
        else
            close_unused(node, page);
    }
    node->preopened->count = kept;
}

/* `pause`: nothing may be written unseen for a while; what has not changed keeps its twin, and is open again
 * afterwards. */
static void look(struct node *node, bool pause)
{
    uint32_t kept = 0;
    bool closing = false;
    struct touched touched = {.asked = false};
    for (uint32_t i = 0; i < node->preopened->count; i++) {
        struct page *page = node->preopened->pages[i];
        context_assert(node, page->preopened_listed, "preopened: a page is in the list and not marked so");
        context_assert(node, !page->preopened || page->twin, "preopened: a preopened page has lost its twin (R10)");
        if (page->preopened && differs(node, page, &touched)) {
            page->preopened = false;
            writes_mark_dirty(node, page);
        }
        if (!page->preopened) { /* it was served or pinned meanwhile, or has changed */
            page->preopened_listed = false;
            continue;
        }
        node->preopened->pages[kept++] = page;
        if (page->preopened_paused)
            continue;
        bool stays = page->writable && page->preopened_stays;
        if (stays && !pause && page_history(page)->looks++ < page_history(page)->patience)
            continue;
        page->writable = false;
        if (page->access == ACCESS_WRITE)
            protection_set(node, page, ACCESS_READ);
        page->preopened_paused = pause && stays;
        closing = true;
    }
    node->preopened->count = kept;
    if (closing)
        close_opened(node);
}

void preopened_inspect(struct node *node)
{
    look(node, false);
}

void preopened_pause(struct node *node)
{
    context_assert(node, !context_holds(node), "preopened: a second pause in one collection");
    look(node, true);
}

void preopened_resume(struct node *node)
{
    uint32_t kept = 0;
    context_assert(node, node->collection.phase == COLLECTION_IDLE,
                   "preopened: pages are opened before the collection has ended");
    for (uint32_t i = 0; i < node->preopened->count; i++) {
        struct page *page = node->preopened->pages[i];
        bool paused = page->preopened && page->preopened_paused;
        page->preopened_paused = false;
        if (paused && !page->writable && page_valid(page) && !page_pinned(page)) {
            page->writable = true;
            protection_set(node, page, ACCESS_WRITE);
        }
        node->preopened->pages[kept++] = page;
    }
    node->preopened->count = kept;
}

void preopened_remove_region(struct node *node, const struct region *region)
{
    struct preopened *list = node->preopened;
    list->count = page_list_remove_region(list->pages, list->count, region);
}
