/* Slow: with DSM_CHECK=2 and in the simulator it runs after each step. */
#include "protocol/node/check.h"

#include "protocol/coherence/cache.h"
#include "protocol/coherence/changes.h"
#include "protocol/coherence/pin.h"
#include "protocol/page/interval.h"
#include "protocol/page/region.h"
#include "protocol/sync/flag.h"
#include "protocol/sync/lock.h"

static void check_diffs(const struct page *page, const struct page_extension *extension, const struct port *port)
{
    bool has_tag = extension->deferred_tag, has_twin = extension->deferred_twin;
    if (has_tag != has_twin || (has_tag && !page->copy))
        port->panic(port->context, "page: invariant 5: a deferred diff without a twin or a copy");
    for (const struct diff *diff = extension->diffs; diff && diff->next; diff = diff->next)
        if (diff->tag >= diff->next->tag)
            port->panic(port->context, "page: invariant 3: tags do not ascend");
}

/* Invariant 1: what each space may touch beyond the state. */
static void check_lag(const struct node *node, const struct page *page)
{
    uint64_t allowed_readers = page_valid(page) ? UINT64_MAX : 0, allowed_writers = page_open(page) ? UINT64_MAX : 0;
    uint64_t lag = (page->readers & ~allowed_readers) | (page->writers & ~allowed_writers);
    const struct pin *pins = page->extension ? page->extension->pins : NULL;
    for (const struct pin *pin = pins; pin; pin = pin->other)
        lag &= ~((uint64_t)1 << pin->space);
    for (uint32_t space = 0; lag >> space; space++)
        if (lag >> space & 1 && !changes_to_follow(node, page, space))
            node->port->panic(node->port->context, "page: invariant 1: a space lags and has nothing to follow");
}

static void check_page(const struct node *node, const struct page *page)
{
    const struct port *port = node->port;
    vector_check(&page->need, port);
    vector_check(&page->have, port);
    check_lag(node, page);
    if (page->writers & ~page->readers)
        port->panic(port->context, "page: a space can write and not read");
    if (page->cached && (!page->queued || page->owner == node->number))
        port->panic(port->context, "cache: invariant 1: a cached page is not queued, or is this node's own");
    if (page_open(page) && !page_valid(page))
        port->panic(port->context, "page: invariant 1: open, but stale");
    if (page->arriving && (page->copy || page->writers || !page_fetch(page)))
        port->panic(port->context, "bulk: invariant 2: a page that is arriving has a copy, writers, or no fetch");
    if (page->twin && !page->copy)
        port->panic(port->context, "page: invariant 2: a twin without a copy");
    if (page->writers && !page->twin && page->mode != PAGE_OPEN)
        port->panic(port->context, "page: invariant 2: a page can be written, and has no twin");
    if (page_inspected(page) && !(page->twin && page->preopened_listed))
        port->panic(port->context, "page: invariant 6: an inspected page without a twin, or not listed");
    if (page->extension && page_extension_empty(page->extension))
        port->panic(port->context, "page: invariant 5: an empty extension");
    if (page->extension)
        check_diffs(page, page->extension, port);
}

static void check_lock(const struct lock *lock, const struct port *port)
{
    if (lock_held(lock) && !lock->token)
        port->panic(port->context, "lock: invariant 1: held without the token");
    if (lock->asked && lock->token)
        port->panic(port->context, "lock: invariant 2: asked for a token that is here");
    if (lock->withdrawing && !(lock->asked && lock->asked_trying))
        port->panic(port->context, "lock: invariant 4: withdraws a request that it did not make");
}

/* Take what the page has from what the pool has counted. */
static void subtract_held(const struct page *page, uint64_t *twin_bytes, uint64_t *diff_bytes)
{
    const struct page_extension *extension = page->extension;
    const unsigned char *constant = page_region(page)->constant;
    if (page->twin && page->twin != constant)
        *twin_bytes -= page_region(page)->page_bytes;
    if (extension && extension->deferred_twin && extension->deferred_twin != constant)
        *twin_bytes -= page_region(page)->page_bytes;
    for (const struct diff *diff = extension ? extension->diffs : NULL; diff; diff = diff->next)
        *diff_bytes -= sizeof *diff + diff->bytes;
}

void check_node(const struct node *node)
{
    uint64_t twin_bytes = node->pool.twin_bytes, diff_bytes = node->pool.diff_bytes, cached_bytes = node->cache->bytes;
    for (uint32_t i = 0; i < node->regions->count; i++)
        for (const struct page_block *block = node->regions->live[i]->touched; block; block = block->next)
            for (int k = 0; k < REGION_BLOCK_PAGES; k++) {
                check_page(node, &block->pages[k]);
                subtract_held(&block->pages[k], &twin_bytes, &diff_bytes);
                cached_bytes -= block->pages[k].cached ? page_region(&block->pages[k])->page_bytes : 0;
            }
    if (twin_bytes || diff_bytes)
        node->port->panic(node->port->context, "pool: invariant 4: twins or diffs that no page has");
    if (cached_bytes)
        node->port->panic(node->port->context, "cache: invariant 1: bytes that no page has");
    for (node_id q = 0; q < node->size; q++)
        interval_check(&node->logs[q], node->cut[q], node->port);
    const struct lock *lock;
    for (uint32_t next = 0; (lock = lock_next(node, &next));)
        check_lock(lock, node->port);
    flag_check(node);
}
