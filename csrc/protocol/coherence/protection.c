/* When the kernel has no room for another mapping, everything is made inaccessible.  That is always allowed, pinned
 * pages excepted, and it is one mapping; threads fault again. */
#include "protocol/coherence/protection.h"

#include "protocol/coherence/pin.h"
#include "protocol/page/accesses.h"
#include "protocol/page/region.h"

static void record(struct node *node, struct page *page, enum access access)
{
    uint64_t me = (uint64_t)1 << node->me;
    page->readers = access >= ACCESS_READ ? page->readers | me : page->readers & ~me;
    page->writers = access >= ACCESS_WRITE ? page->writers | me : page->writers & ~me;
    page->unwanted = page->unwanted && access == ACCESS_NONE; /* it was touched */
    if (node->options.races && access != ACCESS_NONE)
        accesses_opened(node, page);
}

static void count_edges(struct node *node, struct region *region, uint64_t edges)
{
    uint64_t *of_range = &node->protection->edges[node->me], *of_region = &region->edges[node->me];
    context_assert(node, *of_range >= *of_region, "protection: the range has fewer edges than one of its regions");
    *of_range = *of_range - *of_region + edges;
    *of_region = edges;
}

/* Close all of a region but its pinned pages, and set the protection of those again.  False: some of it failed. */
static bool relax_region(struct node *node, struct region *region)
{
    const struct port *port = node->port;
    uint64_t from = region->offset, end = from + region->pages * region->page_bytes, edges = 0, calls = 1;
    bool done = true;
    for (struct page_block *block = region->touched; block; block = block->next)
        for (int k = 0; k < REGION_BLOCK_PAGES; k++)
            if (!pin_find(node, &block->pages[k]))
                record(node, &block->pages[k], ACCESS_NONE);
    for (const struct pin *pin = node->pins->first[node->me]; pin; pin = pin->next) {
        if (page_region(pin->page) != region)
            continue;
        /* The list ascends: the bytes before this page, then the page itself. */
        uint64_t at = page_offset(pin->page);
        context_assert(node, at >= from, "protection: pins are not in the order of their addresses");
        if (at > from)
            done &= port->protect(port->context, from, at - from, ACCESS_NONE) == 0;
        done &= port->protect(port->context, at, region->page_bytes, page_access(node, pin->page)) == 0;
        from = at + region->page_bytes;
        edges += 2;
        calls += 2;
    }
    if (from < end)
        done &= port->protect(port->context, from, end - from, ACCESS_NONE) == 0;
    count_edges(node, region, edges);
    node->stats[node->me].protects += calls;
    return done;
}

bool protection_close_graves(struct node *node)
{
    bool done = true;
    for (uint32_t i = 0; i < node->regions->grave_count; i++) {
        const struct region_grave *grave = &node->regions->graves[i];
        uint64_t bytes = grave->bytes - node->port->granule_bytes;
        node->stats[node->me].protects++;
        done &= node->port->protect(node->port->context, grave->offset, bytes, ACCESS_NONE) == 0;
    }
    return done;
}

/* A call may fail in the first round, while later regions still take up the room.  None may fail in the second: memory
 * that stays accessible against the records would be written without a notice. */
static void relax(struct node *node)
{
    bool done = false;
    context_assert(node, node->protection->bytes == 0, "protection: everything is closed under a batch");
    for (int round = 0; round < 2 && !done; round++) {
        done = protection_close_graves(node);
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
    node->stats[node->me].protects++;
    if (node->protection->edges[node->me] > node->port->edges_max ||
        node->port->protect(node->port->context, offset, bytes, node->protection->access) != 0)
        relax(node);
}

void protection_remove_region(struct node *node, struct region *region)
{
    protection_flush(node);
    for (uint32_t space = 0; space < node->spaces; space++) {
        node->protection->edges[space] -= region->edges[space];
        region->edges[space] = 0;
    }
}

void protection_close(struct node *node, uint64_t offset, uint64_t bytes)
{
    context_assert(node, node->protection->bytes == 0, "protection: bytes are closed under a batch");
    node->stats[node->me].protects++;
    if (node->port->protect(node->port->context, offset, bytes, ACCESS_NONE) != 0)
        relax(node);
}

static enum access access_at(const struct node *node, const struct region *region, uint64_t index)
{
    const struct page *page = index < region->pages ? region_page_if(region, index) : NULL;
    return page ? page_access(node, page) : ACCESS_NONE;
}

/* How many edges more the page's neighbours make with the new access than with the one that it has. */
static uint64_t edges_more(const struct node *node, const struct page *page, enum access access)
{
    uint64_t slot = page->slot;
    enum access was = page_access(node, page), before = ACCESS_NONE, after;
    if (slot)
        before = page_access(node, page - 1);
    else if (page_index(page))
        before = access_at(node, page_region(page), page_index(page) - 1);
    if (slot + 1 < REGION_BLOCK_PAGES)
        after = page_access(node, page + 1);
    else
        after = access_at(node, page_region(page), page_index(page) + 1);
    return (uint64_t)(before != access) + (uint64_t)(after != access) - (uint64_t)(before != was) -
           (uint64_t)(after != was);
}

void protection_set(struct node *node, struct page *page, enum access access)
{
    if (page_access(node, page) == access)
        return;
    context_assert(node, access != ACCESS_WRITE || page_open(page),
                   "protection: a page becomes writable to the program and is not open");
    context_assert(node, access == ACCESS_NONE || page->copy, "protection: a page becomes accessible and has no copy");
    count_edges(node, page_region(page), page_region(page)->edges[node->me] + edges_more(node, page, access));
    record(node, page, access);
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
    if (page_access(node, page) != access)
        return;
    node->protection->offset = offset;
    node->protection->bytes = bytes;
    node->protection->access = access;
}
