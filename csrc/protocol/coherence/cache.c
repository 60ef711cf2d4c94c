/* A queue and not a list in the pages: 8 bytes for each cached page instead of 16 for every page. */
#include "protocol/coherence/cache.h"

enum { CAPACITY_MIN = 64 };

static struct page **slot(const struct cache *cache, uint32_t at)
{
    return &cache->queue[(cache->first + at) & (cache->capacity - 1)];
}

static void grow(struct node *node)
{
    struct cache *cache = node->cache;
    uint32_t capacity = cache->capacity ? 2 * cache->capacity : CAPACITY_MIN;
    struct page **queue = pool_take_persistent(&node->pool, capacity * sizeof(struct page *));
    for (uint32_t i = 0; i < cache->count; i++)
        queue[i] = *slot(cache, i);
    if (cache->queue)
        pool_give_persistent(&node->pool, cache->queue, cache->capacity * sizeof(struct page *));
    cache->queue = queue;
    cache->first = 0;
    cache->capacity = capacity;
}

void cache_append(struct node *node, struct page *page)
{
    struct cache *cache = node->cache;
    if (cache->count == cache->capacity)
        grow(node);
    *slot(cache, cache->count++) = page;
    page->queued = true;
}

struct page *cache_take_first(struct cache *cache)
{
    struct page *page = *slot(cache, 0);
    cache->first++;
    cache->count--;
    page->queued = false;
    return page;
}

void cache_leave(struct node *node, struct page *page)
{
    uint64_t bytes = page_region(page)->page_bytes;
    context_assert(node, node->cache->bytes >= bytes, "cache: more leaves than is cached");
    page->cached = page->unwanted = false;
    node->cache->bytes -= bytes;
}

void cache_add(struct node *node, struct page *page)
{
    if (page->cached || page->owner == node->number || !node->options.cache_bytes)
        return;
    page->cached = true;
    node->cache->bytes += page_region(page)->page_bytes;
    node->cache->added++;
    if (!page->queued)
        cache_append(node, page);
}

void cache_owner(struct node *node, struct page *page, node_id owner)
{
    page->lent = page->lent || page->owner == node->number;
    page->owner = owner;
    if (page->cached && owner == node->number)
        cache_leave(node, page);
    else if (page->copy && !page_untouched(page))
        cache_add(node, page);
}

void cache_remove_region(struct node *node, const struct region *region)
{
    struct cache *cache = node->cache;
    for (uint32_t i = cache->count; i > 0; i--) {
        struct page *page = cache_take_first(cache);
        if (page_region(page) != region)
            cache_append(node, page);
        else if (page->cached)
            cache_leave(node, page);
    }
}
