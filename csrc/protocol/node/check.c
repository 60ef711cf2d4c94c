/* Slow: with DSM_CHECK=2 and in the simulator it runs after each step. */
#include "protocol/node/check.h"

#include "protocol/page/history.h"
#include "protocol/page/interval.h"
#include "protocol/page/region.h"
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

static void check_page(const struct page *page, const struct port *port)
{
    vector_check(&page->need, port);
    vector_check(&page->have, port);
    if (!page_pinned(page)) {
        if (page->access == ACCESS_WRITE && !page->writable)
            port->panic(port->context, "page: invariant 1: accessible for writing, but not open");
        if (page->access != ACCESS_NONE && !page_valid(page) && !history_coming(page))
            port->panic(port->context, "page: invariant 1: accessible, but stale");
    }
    bool shown = page->access != ACCESS_NONE && !history_coming(page);
    if (page->arriving && (page->copy || shown || !page_fetch(page)))
        port->panic(port->context, "bulk: invariant 2: a page that is arriving has a copy, access, or no fetch");
    if (page->twin && !page->copy)
        port->panic(port->context, "page: invariant 2: a twin without a copy");
    if (page->preopened && !page->twin)
        port->panic(port->context, "page: invariant 6: preopened without a twin");
    if (page->extension && page_extension_empty(page->extension))
        port->panic(port->context, "page: invariant 5: an empty extension");
    if (page->extension)
        check_diffs(page, page->extension, port);
}

static void check_lock(const struct lock *lock, const struct port *port)
{
    if (lock->held && !lock->token)
        port->panic(port->context, "lock: invariant 1: held without the token");
    if (lock->asked && lock->token)
        port->panic(port->context, "lock: invariant 2: asked for a token that is here");
    if (lock->withdrawing && !(lock->asked && lock->asked_trying))
        port->panic(port->context, "lock: invariant 4: withdraws a request that it did not make");
}

void check_node(const struct node *node)
{
    for (uint32_t i = 0; i < node->regions->count; i++)
        for (const struct page_block *block = node->regions->live[i]->touched; block; block = block->next)
            for (int k = 0; k < REGION_BLOCK_PAGES; k++)
                check_page(&block->pages[k], node->port);
    for (node_id q = 0; q < node->size; q++)
        interval_check(&node->logs[q], node->cut[q], node->port);
    for (uint32_t i = 0; i < node->locks->count; i++)
        check_lock(node->locks->items[i], node->port);
}
