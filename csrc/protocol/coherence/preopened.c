/* A page is closed by the inspection after the one that has protected it: threads go on writing meanwhile. */
#include "protocol/coherence/preopened.h"

#include "protocol/coherence/bulk.h"
#include "protocol/coherence/changes.h"
#include "protocol/coherence/pin.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/writes.h"
#include "protocol/page/history.h"
#include "protocol/page/live.h"

enum { PATIENCE_MIN = 4 };

static void list(struct node *node, struct page *page)
{
    context_assert(node, page->twin, "preopened: a page is inspected that has no twin (R10)");
    if (page->preopened_listed)
        return;
    page->preopened_listed = true;
    node->preopened->pages = pool_grow(&node->pool, node->preopened->pages, &node->preopened->capacity,
                                       node->preopened->count + 1, sizeof(struct page *));
    node->preopened->pages[node->preopened->count++] = page;
}

static void enter(struct node *node, struct page *page, bool stays)
{
    context_assert(node, !context_holds(node), "preopened: a page is preopened during a collection (R10)");
    page->mode = PAGE_PREOPENED;
    page->preopened_stays = stays;
    if (stays) {
        struct page_history *history = history_of(page, &node->pool);
        if (!page->reopens)
            history->looks = 0;
        if (history->patience == 0)
            history->patience = PATIENCE_MIN;
    }
    list(node, page);
    node->stats[node->me].pages_preopened++;
}

void preopened_sent(struct node *node, struct page *page, bool stays_open)
{
    if (stays_open) {
        enter(node, page, true);
        return;
    }
    context_assert(node, page->writers, "preopened: a page lags that no space can write (H3)");
    page->mode = PAGE_LAGGED;
    page->preopened_stays = false;
    list(node, page);
    changes_add(node, page);
}

/* A stream comes over an unchanged page again: it is written with the value that it has (zeros over zeros), and would
 * be inspected and closed for ever.  Once a notice has named it, it stays open as other pages do.  This holds only
 * where no node is known to have written it: a stream runs into a neighbour's block, whose copies must not go stale for
 * that. */
static bool written_unchanged(const struct page *page)
{
    bool initial = page->fresh || (page->twin && page_twin_constant(page));
    return page->preopened_unused && initial && page->need.count == 0;
}

bool preopened_open(struct node *node, struct page *page, bool stays)
{
    bool blocked = node->collection.phase != COLLECTION_IDLE || bulk_leaves(node, page);
    if (page_open(page) || blocked || !page_valid(page))
        return false;
    if (!stays && written_unchanged(page)) {
        writes_open(node, page);
        protection_set(node, page, ACCESS_WRITE);
        return true;
    }
    writes_note(node, page);
    if (!page->twin)
        page_twin(page, &node->pool, node->port);
    enter(node, page, stays);
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
    uint64_t bytes = page_region(page)->page_bytes, granule = node->port->granule_bytes;
    if (untouched(node, page, touched))
        return false;
    return live_differs(node->port->view + page_offset(page), page->twin, bytes,
                        page_twin_constant(page) ? granule : bytes);
}

bool preopened_changed(const struct node *node, const struct page *page)
{
    return differs(node, page, &(struct touched){.asked = false});
}

bool preopened_written(const struct node *node, const struct page *page)
{
    return page->dirty || (page_inspected(page) && preopened_changed(node, page));
}

bool preopened_owing(const struct node *node)
{
    if (!context_silent(node))
        return false;
    for (uint32_t i = 0; i < node->preopened->count; i++)
        if (page_inspected(node->preopened->pages[i]) && preopened_changed(node, node->preopened->pages[i]))
            return true;
    return false;
}

/* Unchanged, and no space can write it. */
static void close_unused(struct node *node, struct page *page)
{
    context_assert(node, page->twin, "preopened: an unchanged page has no twin to show it");
    context_assert(node, !page->writers, "preopened: a page is closed that some space can write");
    context_assert(node, !page->arriving, "preopened: an arriving page was preopened");
    node->stats[node->me].pages_preopened_unused += page->mode == PAGE_PREOPENED;
    if (page->preopened_stays)
        page_history(page)->closed = true;
    page->mode = PAGE_CLOSED;
    if (page_twin_constant(page)) {
        page->twin = NULL;
        page->fresh = page->preopened_unused = true;
    } else
        page_twin_drop(page, &node->pool);
}

/* It is noticed by the interval that closes. */
static void join_interval(struct node *node, struct page *page)
{
    page->mode = page_open(page) ? PAGE_OPEN : PAGE_CLOSED;
    writes_mark_dirty(node, page);
}

static bool patient(const struct page *page)
{
    bool stays = page->mode == PAGE_PREOPENED && page->preopened_stays;
    return stays && page_history(page)->looks++ < page_history(page)->patience;
}

/* It is closed as far as this process can do it: pinned pages stay, and other spaces follow later.  The next inspection
 * finds what threads have written until then. */
static void shut(struct node *node, struct page *page)
{
    if (page->mode == PAGE_PREOPENED) {
        changes_add(node, page);
        node->stats[node->me].pages_preopened_unused++;
    }
    page->mode = PAGE_LAGGED;
    page->preopened_unused = page_twin_constant(page);
    if (page_access(node, page) == ACCESS_WRITE && !pin_find(node, page))
        protection_set(node, page, ACCESS_READ);
}

/* A space that gives the page up during the look may have written it before: so the writers are asked for first. */
static void inspect(struct node *node, struct page *page, struct touched *touched)
{
    bool lags = page->writers;
    context_assert(node, page->twin, "preopened: a page that is inspected has lost its twin (R10)");
    if (differs(node, page, touched))
        join_interval(node, page);
    else if (patient(page))
        return;
    else if (lags)
        shut(node, page);
    else
        close_unused(node, page);
}

void preopened_inspect(struct node *node)
{
    uint32_t kept = 0;
    struct touched touched = {.asked = false};
    if (context_silent(node))
        return;
    protection_flush(node); /* what is recorded as closed is closed */
    for (uint32_t i = 0; i < node->preopened->count; i++) {
        struct page *page = node->preopened->pages[i];
        context_assert(node, page->preopened_listed, "preopened: a page is in the list and not marked so");
        if (page_inspected(page))
            inspect(node, page, &touched);
        page->preopened_listed = page_inspected(page);
        if (page->preopened_listed)
            node->preopened->pages[kept++] = page;
    }
    node->preopened->count = kept;
    protection_flush(node); /* a push may seal these pages next */
}

void preopened_remove_region(struct node *node, const struct region *region)
{
    struct preopened *list = node->preopened;
    list->count = page_list_remove_region(list->pages, list->count, region);
}
