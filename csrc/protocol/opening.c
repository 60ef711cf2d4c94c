/* A page's life under writes: opened for its first write, sealed when it is served, stale when somebody else wrote.
 *
 * Opening early spares the fault of the first write.  Whether a page that was opened early is written cannot be seen when it
 * happens, so it is looked at before each interval closes: compared with its twin, which is what all others were sent
 * last.  What has changed belongs to the interval that closes; what has not belongs to none, and costs nobody anything.
 */
#include "protocol/node.h"

#include <string.h>

enum { PATIENCE_MIN = 4, PATIENCE_MAX = 128, REWRITTEN = 2 };

void writes_mark_dirty(struct node *node, struct page *page)
{
    if (page->dirty)
        return;
    page->dirty = true;
    node->dirty =
        pool_grow(&node->pool, node->dirty, &node->dirty_capacity, node->dirty_count + 1, sizeof(struct page *));
    node->dirty[node->dirty_count++] = page;
}

/* A page that is written with the values that it has, or every few intervals only, was closed too soon; one that is written
 * again after each time it was served need not be closed for that at all. */
static void note_write(struct node *node, struct page *page)
{
    struct page_history *history = page->served ? history_of(page, &node->pool) : page_history(page);
    if (!history)
        return;
    if (page->served && history->rewritten < REWRITTEN)
        history->rewritten++;
    page->served = false;
    if (!history->closed)
        return;
    history->closed = false;
    if (history->patience < PATIENCE_MAX)
        history->patience = (uint8_t)(2 * history->patience);
}

bool writes_open(struct node *node, struct page *page)
{
    if (page->writable)
        return true;
    if (node->collection.holding)
        return false;
    if (bulk_leaves(node, page)) {
        node->send_blocked = true;
        return false;
    }
    note_write(node, page);
    writes_mark_dirty(node, page);
    page->writable = true;
    if (!page->twin) {
        page_twin(page, &node->pool, &node->port);
        node->stats.twins_made++;
        page_region(page)->stats.twins_made++;
    }
    context_event(node, EVENT_OPEN, page, 0, node->rank);
    return true;
}

/* ---- opened early (R10) ---------------------------------------------------------------------------------------- */

static void preopened_add(struct node *node, struct page *page, bool stays)
{
    if (!page->preopened_listed) {
        node->opened =
            pool_grow(&node->pool, node->opened, &node->opened_capacity, node->opened_count + 1, sizeof(struct page *));
        node->opened[node->opened_count++] = page;
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

/* A stream comes over it again: so it is written, with the value that it has (zeros over zeros), and to look at it and close
 * it would go on for ever.  Once it has been named it stays open as other pages do.  Only where nobody is known to have
 * written it: a stream runs into a neighbour's block, whose copies must not go stale for that. */
static bool written_in_vain(const struct page *page)
{
    return page->preopened_unused && page->fresh && page->need.count == 0;
}

bool preopened_open(struct node *node, struct page *page, bool stays)
{
    if (page->writable || page_pinned(page) || page->owed || node->collection.phase != COLLECTION_IDLE ||
        !page_valid(page) || bulk_leaves(node, page))
        return false;
    if (!stays && written_in_vain(page)) {
        writes_open(node, page);
        protection_set(node, page, ACCESS_WRITE);
        return true;
    }
    note_write(node, page);
    page->writable = true;
    if (!page->twin)
        page_twin(page, &node->pool, &node->port);
    preopened_add(node, page, stays);
    protection_set(node, page, ACCESS_WRITE);
    context_event(node, EVENT_OPEN, page, 1, node->rank);
    return true;
}

/* What was asked last of the port, since pages come in ascending order. */
struct touched {
    uint64_t offset, bits;
    bool asked;
};

/* Memory that was never touched is what it was, and is not made by looking at it. */
static bool untouched(const struct node *node, const struct page *page, struct touched *touched)
{
    const struct port *port = &node->port;
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

static bool preopened_changed(const struct node *node, const struct page *page, struct touched *touched)
{
    const unsigned char *now = node->port.view + page_offset(page);
    uint64_t bytes = page_region(page)->page_bytes, granule = node->port.granule_bytes;
    if (untouched(node, page, touched))
        return false;
    if (!page_twin_constant(page))
        return memcmp(now, page->twin, bytes) != 0;
    for (uint64_t at = 0; at < bytes; at += granule)
        if (memcmp(now + at, page->twin, granule) != 0)
            return true;
    return false;
}

bool preopened_written(const struct node *node, const struct page *page)
{
    return page->dirty || (page->preopened && preopened_changed(node, page, &(struct touched){.asked = false}));
}

/* It is protected, and nobody wrote it. */
static void close_unused(struct node *node, struct page *page)
{
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
    for (uint32_t i = 0; i < node->opened_count; i++) {
        struct page *page = node->opened[i];
        bool open = page->writable, changed = !open && preopened_changed(node, page, &touched);
        if (open || (page->preopened_paused && !changed)) {
            node->opened[kept++] = page;
            continue;
        }
        page->preopened = page->preopened_listed = page->preopened_paused = false;
        if (changed)
            writes_mark_dirty(node, page);
        else
            close_unused(node, page);
    }
    node->opened_count = kept;
}

/* `pause`: nothing may be written unseen for a while; what has not changed keeps its twin, and is open again afterwards. */
static void look(struct node *node, bool pause)
{
    uint32_t kept = 0;
    bool closing = false;
    struct touched touched = {.asked = false};
    for (uint32_t i = 0; i < node->opened_count; i++) {
        struct page *page = node->opened[i];
        if (page->preopened && preopened_changed(node, page, &touched)) {
            page->preopened = false;
            writes_mark_dirty(node, page);
        }
        if (!page->preopened) { /* it was served or pinned meanwhile, or has changed */
            page->preopened_listed = false;
            continue;
        }
        node->opened[kept++] = page;
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
    node->opened_count = kept;
    if (closing)
        close_opened(node);
}

void preopened_inspect(struct node *node)
{
    look(node, false);
}

void preopened_pause(struct node *node)
{
    look(node, true);
}

void preopened_resume(struct node *node)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < node->opened_count; i++) {
        struct page *page = node->opened[i];
        bool paused = page->preopened && page->preopened_paused;
        page->preopened_paused = false;
        if (paused && !page->writable && page_valid(page) && !page_pinned(page)) {
            page->writable = true;
            protection_set(node, page, ACCESS_WRITE);
        }
        node->opened[kept++] = page;
    }
    node->opened_count = kept;
}

void preopened_remove_region(struct node *node, const struct region *region)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < node->opened_count; i++)
        if (page_region(node->opened[i]) != region)
            node->opened[kept++] = node->opened[i];
    node->opened_count = kept;
}

/* ---- served and pushed ------------------------------------------------------------------------------------------- */

/* Served as a snapshot, and left open early: it has been written again after each of the last times.  Not where the whole
 * page is served: closed, it travels without a copy.  (An exclusive page has no twin; the snapshot becomes its first.) */
static bool served_open(const struct node *node, const struct page *page)
{
    const struct page_history *history = page_history(page);
    return history && history->rewritten >= REWRITTEN && !page->served_whole && page->writable && page_valid(page) &&
           !page_stays_open(page) && !page_pinned(page) && node->options.open_bytes_max &&
           node->collection.phase == COLLECTION_IDLE;
}

static bool closes(const struct node *node, const struct page *page)
{
    return page->access == ACCESS_WRITE && !page_stays_open(page) && !served_open(node, page);
}

/* Pages at a small stride would be a call each.  What is open between this one and those that are about to be closed is
 * closed with them, and the next write there opens it again (matrix product: 10,276 calls became 5,265). */
static void shut_between(struct node *node, const struct page *page)
{
    enum { BETWEEN_PAGES = 7 };
    const struct region *region = page_region(page);
    uint64_t closing = node->batch.offset + node->batch.bytes, offset = page_offset(page);
    if (!node->batch.bytes || node->batch.access != ACCESS_READ || node->batch.offset < region->offset ||
        closing >= offset || offset - closing > BETWEEN_PAGES * region->page_bytes)
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
    if (!closes(node, page))
        return;
    shut_between(node, page);
    protection_set(node, page, ACCESS_READ);
}

static void count_diff(struct node *node, struct page *page)
{
    node->stats.diffs_made++;
    page_region(page)->stats.diffs_made++;
}

/* A page pinned for writing stays open: what is cut and sent is a snapshot, which becomes the twin (R10). */
static void seal_pinned(struct node *node, struct page *page, stamp tag)
{
    uint64_t bytes = page_region(page)->page_bytes;
    unsigned char *snapshot = pool_take(&node->pool, bytes);
    memcpy(snapshot, node->port.view + page_offset(page), bytes);
    if (page->twin) {
        page_encode(page, snapshot, &node->pool, tag);
        count_diff(node, page);
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
    page->served_whole = page_worth_whole(page, page_encode_deferred(page, &node->pool, &node->port));
    count_diff(node, page);
}

/* The whole of the page is sent: its diff is for others, if any ask for it, and can wait.  A collection may come before, or
 * the news that all have it, and nobody needs it. */
static void seal_closed(struct node *node, struct page *page, stamp tag, bool late)
{
    page->writable = false;
    if (!page->twin)
        return;
    if (late && !page_fetch(page)) {
        page_defer_encoding(page, &node->pool, tag);
        return;
    }
    page_encode(page, node->port.view + page_offset(page), &node->pool, tag);
    page_twin_drop(page, &node->pool);
    count_diff(node, page);
}

stamp seal_page(struct node *node, struct page *page, bool late)
{
    bool unchanged = !page->twin && !page->writable; /* since it was sealed: what was put off can be put off further */
    if (!late || !unchanged)
        seal_encode_deferred(node, page);
    if (page->owed)
        return vector_get(&page->have, node->rank); /* the same snapshot for everybody until the collection ends */
    if (page->writable && page->access == ACCESS_WRITE && !page_pinned_write(page)) { /* seal_shut left it open */
        seal_snapshot(node, page);
        return vector_get(&page->have, node->rank);
    }
    page->served = page->served || page->writable;
    stamp tag = context_tick(node);
    page_fill(page, &node->port);
    if (page->preopened) {
        page->preopened = false;
        if (preopened_changed(node, page, &(struct touched){.asked = false}))
            writes_mark_dirty(node, page);
    }
    if (page_pinned_write(page))
        seal_pinned(node, page, tag);
    else
        seal_closed(node, page, tag, late);
    vector_raise(&page->have, &node->pool, node->rank, tag);
    context_event(node, EVENT_SEAL, page, tag, node->rank);
    return tag;
}

/* The copy is taken first: what other threads write meanwhile is then in the page and not in its new twin. */
void seal_snapshot(struct node *node, struct page *page)
{
    seal_encode_deferred(node, page);
    uint64_t bytes = page_region(page)->page_bytes;
    stamp tag = context_tick(node);
    unsigned char *snapshot = pool_take(&node->pool, bytes);
    memcpy(snapshot, node->port.view + page_offset(page), bytes);
    if (page->twin) {
        page_encode(page, snapshot, &node->pool, tag);
        count_diff(node, page);
        const struct diff *last = page->extension ? page->extension->diffs_last : NULL;
        if (page->preopened && last && last->tag == tag)
            writes_mark_dirty(node, page); /* nobody has found it changed before */
    }
    page_twin_drop(page, &node->pool);
    page->twin = snapshot;
    vector_raise(&page->have, &node->pool, node->rank, tag);
    preopened_add(node, page, true);
    context_event(node, EVENT_SEAL, page, tag, node->rank);
}

void protection_make_stale(struct node *node, struct page *page)
{
    if (page_pinned_write(page))
        return; /* exempt until it is unpinned; an acquire brings it up to date (access_caught_up) */
    page->writable = false;
    if (page_pinned_read(page)) {
        if (page->access == ACCESS_WRITE)
            protection_set(node, page, ACCESS_READ);
        return;
    }
    if (page->access != ACCESS_NONE) {
        protection_set(node, page, ACCESS_NONE);
        node->stats.invalidations++;
        page_region(page)->stats.invalidations++;
        context_event(node, EVENT_STALE, page, 0, NODE_NONE);
    }
}
