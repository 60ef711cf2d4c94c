/* A prefetch asks for a window of pages and, when half of it is here, for the next ones: requests leave together,
 * answers come in pieces, and a fault that comes in between waits behind a bounded number of bytes. */
#include "protocol/predict/prefetch.h"

#include "protocol/coherence/fetch.h"
#include "protocol/page/history.h"
#include "protocol/page/region.h"

void prefetch_add(struct node *node, const struct region *region, uint64_t page, uint64_t end)
{
    struct prefetches *all = node->prefetches;
    context_assert(node, page <= end, "prefetch: the range ends before it begins");
    struct prefetch *prefetch = pool_take_persistent(&node->pool, sizeof *prefetch);
    *prefetch = (struct prefetch){.region = region->id, .page = page, .end = end < region->pages ? end : region->pages};
    if (all->first)
        all->last->next = prefetch;
    else
        all->first = prefetch;
    all->last = prefetch;
    all->under_way = true;
}

static void forget_first(struct node *node)
{
    struct prefetch *prefetch = node->prefetches->first;
    context_assert(node, prefetch, "prefetch: there is nothing to forget");
    node->prefetches->first = prefetch->next;
    pool_give_persistent(&node->pool, prefetch, sizeof *prefetch);
}

static uint64_t bytes_under_way(const struct node *node, const struct region *region)
{
    return (uint64_t)node->fetches->count * region->page_bytes;
}

/* The first page from here on that has a struct; whole blocks of others are passed over at once. */
static struct page *next_page(const struct region *region, struct prefetch *prefetch)
{
    while (prefetch->page < prefetch->end) {
        struct page *page = region_page_if(region, prefetch->page);
        if (page) {
            prefetch->page++;
            return page;
        }
        prefetch->page = (prefetch->page / REGION_BLOCK_PAGES + 1) * REGION_BLOCK_PAGES;
    }
    return NULL;
}

/* False: there is no room for more now. */
static bool start_some(struct node *node, struct prefetch *prefetch, const struct region *region)
{
    struct page *page;
    while ((page = next_page(region, prefetch))) {
        if (page_fetch(page) || page_valid(page))
            continue;
        history_touch(page, &node->pool); /* no fault will tell that it was used */
        fetch_start(node, page, true);
        if (bytes_under_way(node, region) >= node->options.readahead_bytes_max)
            return false;
    }
    return true;
}

void prefetch_step(struct node *node)
{
    struct prefetches *all = node->prefetches;
    context_assert(node, all->under_way, "prefetch: a step and nothing is under way");
    while (all->first && !context_holds(node)) {
        struct prefetch *prefetch = all->first;
        const struct region *region = region_find(node->regions, prefetch->region);
        if (region && node->fetches->count && bytes_under_way(node, region) > node->options.readahead_bytes_max / 2)
            return;
        if (region && !start_some(node, prefetch, region))
            return;
        forget_first(node);
    }
    if (!all->first && node->fetches->count == 0)
        all->under_way = false;
}

void prefetch_fini(struct node *node)
{
    while (node->prefetches->first)
        forget_first(node);
}
