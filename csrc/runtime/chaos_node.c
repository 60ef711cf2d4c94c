#include "runtime/chaos_node.h"

#include "machine/chaos.h"
#include "machine/clock.h"
#include "runtime/runtime.h"

enum { COLLECT_US_MAX = 30 * 1000, PAGES_ONE_IN = 16, BLOCKS_MAX = 64 };

static uint64_t roll(struct runtime *runtime, uint64_t limit)
{
    return chaos_roll(&runtime->dice, limit);
}

void chaos_node_choose(struct runtime *runtime, struct node_options *options)
{
    static const uint64_t budgets[] = {1, 16 << 10, 256 << 10, 64 << 20}, windows[] = {0, 64 << 10, 4 << 20};
    static const uint64_t bounds[] = {64 << 10, 4 << 20};
    static const uint32_t permilles[] = {0, 50, 500};
    runtime->dice = chaos_dice(~runtime->options.chaos_seed, runtime->rank);
    if (!runtime->options.budget_bytes)
        options->budget_bytes = budgets[roll(runtime, 4)];
    options->readahead_bytes_max = windows[roll(runtime, 3)];
    options->refetch_bytes_max = windows[roll(runtime, 3)];
    options->push_bytes_max = windows[roll(runtime, 3)];
    options->open_bytes_max = windows[roll(runtime, 3)];
    if (!runtime->options.cache_bytes)
        options->cache_bytes = bounds[roll(runtime, 2)];
    options->policy.evict_permille = permilles[roll(runtime, 3)];
    options->readers_max = options->readers_small_max = 1; /* few nodes are a crowd then */
    options->policy.guess_permille = permilles[roll(runtime, 3)];
    options->policy.whole = (unsigned)roll(runtime, WHOLE_RANDOM + 1);
    options->policy.bulk = (unsigned)roll(runtime, BULK_RANDOM + 1);
    options->policy.stay_open_permille = permilles[roll(runtime, 3)];
    options->policy.preopen_permille = permilles[roll(runtime, 3)];
    options->policy.random_state = 1 + (uint32_t)roll(runtime, UINT32_MAX); /* never 0 */
}

/* The next access faults again, and is served here. */
static void take_access(struct runtime *runtime, struct page *page)
{
    enum access access = (enum access)roll(runtime, ACCESS_WRITE);
    if (page_index(page) < page_region(page)->pages && !pin_find(runtime->node, page) &&
        page_access(runtime->node, page) > access)
        protection_set(runtime->node, page, access);
}

/* One page, or a block of neighbours. */
static void take_access_somewhere(struct runtime *runtime)
{
    const struct regions *regions = runtime->node->regions;
    if (regions->count == 0)
        return;
    struct page_block *block = regions->live[roll(runtime, regions->count)]->touched;
    for (uint64_t skip = roll(runtime, BLOCKS_MAX); block && block->next && skip > 0; skip--)
        block = block->next;
    if (!block)
        return;
    if (roll(runtime, 4) != 0)
        take_access(runtime, &block->pages[roll(runtime, REGION_BLOCK_PAGES)]);
    else
        for (int k = 0; k < REGION_BLOCK_PAGES; k++)
            take_access(runtime, &block->pages[k]);
    protection_flush(runtime->node);
}

bool chaos_node_step(struct runtime *runtime)
{
    int64_t now = clock_now_ns();
    if (roll(runtime, PAGES_ONE_IN) == 0)
        take_access_somewhere(runtime);
    if (now < runtime->collect_ns)
        return false;
    runtime->collect_ns = now + 1000 * (int64_t)roll(runtime, COLLECT_US_MAX);
    collection_request(runtime->node);
    node_settle(runtime->node);
    return true;
}
