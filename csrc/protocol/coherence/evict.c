/* The fault that needs room makes it: no thread of its own, and no more work at a time than pages have come. */
#include "protocol/coherence/evict.h"

#include "protocol/coherence/bulk.h"
#include "protocol/coherence/changes.h"
#include "protocol/coherence/fetch.h"
#include "protocol/coherence/protection.h"
#include "protocol/page/history.h"

/* Looks for each page that was added, and two rounds at most, of which the first takes access: a round ends before a
 * thirtieth of the queue has come on top.  With fewer pages than PAGES_MIN an instruction that needs several of them
 * might never have all. */
enum { LOOKS_PER_PAGE = 32, PAGES_MIN = 16 };

/* ---- what must stay --------------------------------------------------------------------------------------------- */

static bool may_be_asked(const struct node *node, const struct page *page)
{
    return page->copy && (page->lent || vector_get(&page->have, node->number));
}

static bool in_use(const struct node *node, const struct page *page)
{
    const struct page_extension *extension = page->extension;
    bool written = page->mode != PAGE_CLOSED || page->dirty || page->twin || page->writers;
    bool held = extension && (extension->pins || extension->fetch || extension->deferred_tag);
    bool refetched = page_history(page) && page_history(page)->listed;
    return written || held || refetched || bulk_leaves(node, page); /* to a reader (R17) */
}

/* ---- giving up -------------------------------------------------------------------------------------------------- */

/* Neighbours whose memory goes back by one call. */
struct hole {
    uint64_t offset, bytes;
};

static void punch(struct node *node, struct hole *hole)
{
    if (hole->bytes == 0)
        return;
    protection_flush(node); /* nobody may read what is gone */
    node->port->discard(node->port->context, hole->offset, hole->bytes);
    hole->bytes = 0;
}

/* Pushes would find no copy, and the page was not used. */
static void leave_update_set(struct node *node, struct page *page)
{
    struct page_history *history = page_history(page);
    if (!history)
        return;
    history_drop_pushes(history, &node->pool);
    history->probe = history->current = false;
    history->used = 0;
    if (history->subscribed)
        fetch_stop_pushes(node, page);
}

static void give_up(struct node *node, struct page *page, struct hole *hole)
{
    uint64_t offset = page_offset(page), bytes = page_region(page)->page_bytes;
    context_assert(node, !page->readers, "evict: a copy is given up that some space may touch");
    context_assert(node, !in_use(node, page), "evict: a copy is given up that is in use");
    context_assert(node, !may_be_asked(node, page) && !vector_get(&page->need, node->number),
                   "evict: a copy is given up that another node may ask for");
    context_assert(node, page->owner != node->number && (page->owner != NODE_NONE || page->need.count > 0),
                   "evict: a copy is given up that cannot be had again");
    if (page->copy) {
        leave_update_set(node, page);
        node->stats[node->me].copies_given_up++;
        page_event(node, EVENT_GIVE_UP, page, page->owner);
    }
    page->copy = page->marker = page->filled = false;
    page->fresh = true; /* its memory holds nothing */
    vector_clear(&page->have, &node->pool);
    cache_leave(node, page);
    if (hole->offset + hole->bytes != offset)
        punch(node, hole);
    if (hole->bytes == 0)
        hole->offset = offset;
    hole->bytes += bytes;
}

/* This space gives its access up; others will when they follow the changes. */
static void take_access(struct node *node, struct page *page)
{
    if (page_access(node, page) != ACCESS_NONE)
        protection_set(node, page, ACCESS_NONE);
    if (!page->readers || page->unwanted)
        return;
    page->unwanted = true;
    changes_add(node, page);
    node->cache->asked = node->changes->count;
}

/* Look at the head of the queue. */
static void look(struct node *node, struct hole *hole)
{
    struct page *page = cache_take_first(node->cache);
    if (!page->cached)
        return;
    bool used = in_use(node, page), asked = may_be_asked(node, page);
    if (!used && !asked && !page->readers) {
        give_up(node, page, hole);
        return;
    }
    if (!used && asked)
        node->cache->stuck_bytes += page_region(page)->page_bytes;
    else if (!used)
        take_access(node, page);
    cache_append(node, page);
}

/* Have all spaces followed that were asked? */
static bool all_answered(const struct node *node)
{
    uint32_t space = 0;
    while (space < node->spaces && node->changes->seen[space] >= node->cache->asked)
        space++;
    return space == node->spaces;
}

/* How many pages to look at now. */
static uint64_t looks_due(struct node *node)
{
    struct cache *cache = node->cache;
    uint64_t looks = 0;
    while (looks < cache->count && context_chance(node, node->policy.evict_permille))
        looks++;
    if (cache->bytes > node->options.cache_bytes && cache->count > PAGES_MIN)
        looks += (uint64_t)cache->added * LOOKS_PER_PAGE;
    if (cache->asked && cache->bytes > node->options.cache_bytes && all_answered(node)) {
        cache->asked = 0;
        looks += cache->count;
    }
    cache->added = 0;
    return looks < 2 * (uint64_t)cache->count ? looks : 2 * (uint64_t)cache->count;
}

void evict_step(struct node *node)
{
    struct cache *cache = node->cache;
    struct hole hole = {0};
    if (cache->promised)
        return;
    if (node->changes->seen[node->me] < cache->asked)
        changes_follow(node);
    if (cache->count == 0 || context_holds(node))
        return;
    bool dice = node->policy.evict_permille;
    for (uint64_t looks = looks_due(node); looks > 0 && cache->count > 0; looks--) {
        if (!dice && cache->bytes <= node->options.cache_bytes)
            break;
        look(node, &hole);
    }
    punch(node, &hole);
}

bool evict_wants_collection(const struct node *node)
{
    const struct cache *cache = node->cache;
    return cache->bytes > node->options.cache_bytes && cache->stuck_bytes > node->options.cache_bytes / 4;
}

void evict_collected(struct node *node)
{
    node->cache->stuck_bytes = 0;
    node->cache->added += node->cache->count; /* what it was kept for has ended */
}
