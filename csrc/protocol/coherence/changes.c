/* A ring of runs of pages.  Neighbours that change together, as those of a notice do, are one run. */
#include "protocol/coherence/changes.h"

#include "protocol/coherence/alone.h"
#include "protocol/coherence/pin.h"
#include "protocol/coherence/protection.h"
#include "protocol/page/region.h"

static struct change *change_at(const struct changes *changes, uint64_t position)
{
    return &changes->log[position % changes->kept];
}

static void append(struct node *node, struct change change)
{
    struct changes *changes = node->changes;
    if (!changes->log) {
        changes->kept = node->policy.changes_kept ? node->policy.changes_kept : CHANGES_KEPT;
        changes->log = pool_take_persistent(&node->pool, changes->kept * sizeof *changes->log);
    }
    *change_at(changes, changes->count++) = change;
}

void changes_add(struct node *node, const struct page *page)
{
    struct changes *changes = node->changes;
    const struct region *region = page_region(page);
    uint64_t index = page_index(page);
    if (changes->count > changes->followed) {
        struct change *last = change_at(changes, changes->count - 1);
        bool same = last->region == region->id && last->pages > 0 && last->pages < UINT32_MAX;
        if (same && index == last->first + last->pages - 1)
            return;
        if (same && index == last->first + last->pages) {
            last->pages++;
            return;
        }
    }
    append(node, (struct change){.region = region->id, .pages = 1, .first = index});
}

void changes_add_region(struct node *node, region_id region)
{
    append(node, (struct change){.region = region});
}

static enum access allowed(const struct page *page)
{
    if (!page_valid(page) || page->unwanted)
        return ACCESS_NONE;
    return page_open(page) ? ACCESS_WRITE : ACCESS_READ;
}

static void follow_page(struct node *node, struct page *page)
{
    enum access has = page_access(node, page);
    if (has == ACCESS_NONE || has <= allowed(page) || pin_find(node, page))
        return;
    protection_set(node, page, allowed(page));
    if (page_access(node, page) == ACCESS_NONE) {
        page_region(page)->stats[node->me].invalidations++;
        page_event(node, EVENT_STALE, page, NODE_NONE);
    }
}

static void follow_pages(struct node *node, struct region *region, uint64_t first, uint64_t pages)
{
    uint64_t behind, end = first + pages;
    for (uint64_t index = first; index < end; index += behind) {
        struct page *page = region_pages(region, &node->pool, index, end, &behind);
        for (uint64_t k = 0; k < behind; k++)
            follow_page(node, page + k);
    }
}

static void follow_grave(struct node *node, const struct region_grave *grave)
{
    protection_flush(node);
    protection_close(node, grave->offset, grave->bytes - node->port->granule_bytes);
}

static void follow(struct node *node, const struct change *change)
{
    struct region *region = region_find(node->regions, change->region);
    const struct region_grave *grave = region ? NULL : region_grave(node->regions, change->region);
    if (grave && change->pages == 0)
        follow_grave(node, grave);
    else if (region && change->pages == 0 && alone_is(node))
        alone_show(node, region);
    else if (region)
        follow_pages(node, region, change->first, change->pages);
}

/* The log has overtaken the space.  (A node that is alone logs an array at a time, and each space follows behind.) */
static void follow_all(struct node *node)
{
    for (uint32_t i = 0; i < node->regions->grave_count; i++)
        follow_grave(node, &node->regions->graves[i]);
    for (uint32_t i = 0; i < node->regions->count; i++)
        for (struct page_block *block = node->regions->live[i]->touched; block; block = block->next)
            for (int k = 0; k < REGION_BLOCK_PAGES; k++)
                follow_page(node, &block->pages[k]);
}

static bool overtaken(const struct changes *changes, uint32_t space)
{
    return changes->count - changes->seen[space] > changes->kept;
}

void changes_follow(struct node *node)
{
    struct changes *changes = node->changes;
    uint64_t *seen = &changes->seen[node->me];
    context_assert(node, *seen <= changes->count, "changes: a space has followed more than has changed");
    if (overtaken(changes, node->me))
        follow_all(node);
    else
        for (uint64_t at = *seen; at < changes->count; at++)
            follow(node, change_at(changes, at));
    protection_flush(node); /* a seal and an inspection rely on it */
    *seen = changes->followed = changes->count;
}

bool changes_to_follow(const struct node *node, const struct page *page, uint32_t space)
{
    const struct changes *changes = node->changes;
    if (overtaken(changes, space))
        return true;
    for (uint64_t at = changes->seen[space]; at < changes->count; at++) {
        const struct change *change = change_at(changes, at);
        bool here = change->region == page_region(page)->id;
        if (here && page_index(page) - change->first < change->pages)
            return true;
    }
    return false;
}
