/* When the kernel has no room for another mapping, everything is made inaccessible.  That is always allowed, pinned
 * pages excepted, and it is one mapping; threads fault again. */
#include "protocol/coherence/protection.h"

#include "protocol/coherence/pin.h"
#include "protocol/page/region.h"

/* Close all of a region but its pinned pages, and set the protection of those again.  False: some of it failed. */
static bool relax_region(struct node *node, struct region *region)
{
    const struct port *port = node->port;
    uint64_t from = region->offset, end = from + region->pages * region->page_bytes, edges = 0, calls = 1;
    bool done = true;
    for (struct page_block *block = region->touched; block; block = block->next)
        for (int k = 0; k < REGION_BLOCK_PAGES; k++)
            if (!page_pinned(&block->pages[k]))
                block->pages[k].access = ACCESS_NONE;
    for (const struct page *page = node->pins->first; page; page = page->extension->pin_next) {
        if (page_region(page) != region)
            continue;
        /* The list ascends (access_pin): the bytes before this page, then the page itself. */
        uint64_t at = page_offset(page);
        context_assert(node, at >= from, "protection: pins are not in the order of their addresses");
        if (at > from)
            done &= port->protect(port->context, from, at - from, ACCESS_NONE) == 0;
        done &= port->protect(port->context, at, region->page_bytes, (enum access)page->access) == 0;
        from = at + region->page_bytes;
        edges += 2;
        calls += 2;
    }
    if (from < end)
        done &= port->protect(port->context, from, end - from, ACCESS_NONE) == 0;
    context_assert(node, node->protection->edges >= region->edges,
                   "protection: the range has fewer edges than one of its regions");
    node->protection->edges = node->protection->edges - region->edges + edges;
    region->edges = edges;
    node->stats.protects += calls;
    return done;
}

/* A call may fail in the first round, while later regions still take up the room.  None may fail in the second: memory
 * that stays accessible against the records would be written without a notice. */
static void relax(struct node *node)
{
    bool done = false;
    context_assert(node, node->protection->bytes == 0, "protection: everything is closed under a batch");
    for (int round = 0; round < 2 && !done; round++) {
        done = true;
        for (uint32_t i = 0; i < node->regions->count; i++)
            done &= relax_region(node, node->regions->live[i]);
    }
    if (!done)
        context_panic(node, "the kernel has no room for the mappings of the pages that are pinned (vm.max_map_count)");
}

void protection_flush(struct node *node)
{
    if (node->protection->bytes == 0)
        return;
    uint64_t offset = node->protection->offset, bytes = node->protection->bytes;
    context_assert(node, offset + bytes <= node->port->range_bytes, "protection: a batch reaches beyond the range");
    node->protection->bytes = 0;
    node->stats.protects++;
    if (node->protection->edges > node->port->edges_max ||
        node->port->protect(node->port->context, offset, bytes, node->protection->access) != 0)
        relax(node);
}

void protection_remove_region(struct node *node, struct region *region)
{
    protection_flush(node);
    if (node->port->protect(node->port->context, region->offset, region->pages * region->page_bytes, ACCESS_NONE) != 0)
        relax(node);
    context_assert(node, node->protection->edges >= region->edges,
                   "protection: the range has fewer edges than a region that goes");
    node->protection->edges -= region->edges;
}

static enum access access_at(const struct region *region, uint64_t index)
{
    const struct page *page = index < region->pages ? region_page_if(region, index) : NULL;
    return page ? (enum access)page->access : ACCESS_NONE;
}

/* How many edges more the page's neighbours make with the new access than with the one that it has. */
static uint64_t edges_more(const struct page *page, enum access access)
{
    uint64_t slot = page->slot;
    enum access was = (enum access)page->access, before = ACCESS_NONE, after;
    if (slot)
        before = (enum access)page[-1].access;
    else if (page_index(page))
        before = access_at(page_region(page), page_index(page) - 1);
    if (slot + 1 < REGION_BLOCK_PAGES)
        after = (enum access)page[1].access;
    else
        after = access_at(page_region(page), page_index(page) + 1);
    return (uint64_t)(before != access) + (uint64_t)(after != access) - (uint64_t)(before != was) -
           (uint64_t)(after != was);
}

void protection_set(struct node *node, struct page *page, enum access access)
{
    if (page->access == access)
        return;
    context_assert(node, access != ACCESS_WRITE || page->writable,
                   "protection: a page becomes writable to the program and is not open");
    context_assert(node, access == ACCESS_NONE || page->copy, "protection: a page becomes accessible and has no copy");
    uint64_t edges = edges_more(page, access);
    page->access = (uint8_t)access;
    page_region(page)->edges += edges;
    node->protection->edges += edges;
    context_assert(node, node->protection->edges >= page_region(page)->edges,
                   "protection: a region has more edges than the range");
    uint64_t offset = page_offset(page), bytes = page_region(page)->page_bytes;
    if (node->protection->bytes && node->protection->access == access) {
        bool behind = node->protection->offset + node->protection->bytes == offset,
             before = offset + bytes == node->protection->offset;
        if (before)
            node->protection->offset = offset;
        if (before || behind) {
            node->protection->bytes += bytes;
            return;
        }
    }
    protection_flush(node);
    /* A flush may have made everything inaccessible, this page included, unless it is pinned. */
    if (page->access != access)
        return;
    node->protection->offset = offset;
    node->protection->bytes = bytes;
    node->protection->access = access;
}

void protection_withdraw(struct node *node, struct page *page)
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
        page_region(page)->stats.invalidations++;
        page_event(node, EVENT_STALE, page, NODE_NONE);
    }
}
