/* The update set is refetched in a window of bytes: after the notices of a grant or a departure are all in, and as
 * others arrive. */
#include "protocol/predict/update.h"

#include "protocol/coherence/fetch.h"
#include "protocol/coherence/pin.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/pushed.h"
#include "protocol/page/history.h"
#include "protocol/page/interval.h"
#include "protocol/page/region.h"

enum { STREAMED_BYTES_MIN = 8 << 20, STREAMED_RUN_BYTES = 256 << 10 };

/* A usage probe found no use: its whole group leaves the update set. */
static void cool_group(struct node *node, struct page *page)
{
    const struct region *region = page_region(page);
    uint32_t round = page_history(page)->round;
    uint64_t index = page_index(page) / HISTORY_GROUP * HISTORY_GROUP, end = index + HISTORY_GROUP;
    node->stats[node->me].probes_unused++;
    for (; index < end && index < region->pages; index++) {
        struct page *member = region_page_if(region, index);
        if (!member || !page_history(member) || page_history(member)->round != round)
            continue;
        page_history(member)->used = HISTORY_UPDATE_USES - 1; /* one more use, and it is back in the set */
        if (page_history(member)->subscribed)
            fetch_stop_pushes(node, member);
    }
}

static void list_page(struct node *node, struct page *page)
{
    struct update_set *list = node->updates;
    struct page_history *history = page_history(page);
    if (history->listed || node->options.refetch_bytes_max == 0)
        return;
    context_assert(node, list->first <= list->learned, "update: more has begun than is known of");
    context_assert(node, list->learned <= list->count, "update: more is known of than is listed");
    list->pages = pool_grow(&node->pool, list->pages, &list->capacity, list->count + 1, sizeof(struct page *));
    list->pages[list->count++] = page;
    history->listed = true;
}

void update_stale(struct node *node, struct page *page)
{
    struct page_history *history = page_history(page);
    if (!history || !history->current)
        return;
    history->current = false;
    bool unused = history->probe && !history->touched;
    bool used_again = history_new_version(history) || context_chance(node, node->policy.guess_permille);
    if (unused)
        cool_group(node, page);
    if (!used_again)
        return;
    appetite_count(&page_region(page)->appetites, &page->need, APPETITE_USED);
    list_page(node, page);
}

const struct appetite *update_hungry(struct node *node, const struct interval *interval, const struct run *run,
                                     struct region *region)
{
    const struct appetite *appetite = appetite_notice(&region->appetites, &node->pool, interval->node,
                                                      node->updates->batch, interval->stamp, run->pages);
    bool hungry = appetite_hungry(appetite) && !node->options.without_appetite;
    return hungry || context_chance(node, node->policy.guess_permille) ? appetite : NULL;
}

void update_feed(struct node *node, struct page *page, const struct appetite *appetite)
{
    uint64_t bytes = page_region(page)->page_bytes;
    if (page_valid(page) || page_fetch(page) || node->updates->fed_bytes + bytes > node->options.refetch_bytes_max)
        return;
    struct page_history *history = history_of(page, &node->pool);
    if (history->listed)
        return;
    node->updates->fed_bytes += bytes;
    history->fed = true;
    history->touched = false;
    history->probe = appetite_probes(appetite); /* if it is the first of its group */
    list_page(node, page);
}

static void refetch(struct node *node, struct page *page, bool subscribes)
{
    page_history(page)->listed = false;
    if (page_valid(page) || page_fetch(page) || context_holds(node))
        return;
    page_history(page)->streamed = false;
    node->stats[node->me].pages_refetched++;
    fetch_start_update(node, page, subscribes);
}

/* Much that is read in order: a stream brings it while it is read, and that is faster than all of it before. */
static bool better_streamed(const struct node *node)
{
    const struct update_set *list = node->updates;
    const struct page *last = NULL;
    uint64_t bytes = 0, runs = 0, streamed = 0, count = list->count - list->learned;
    for (uint32_t i = list->learned; i < list->count; i++) {
        const struct page *page = list->pages[i];
        bytes += page_region(page)->page_bytes;
        streamed += page_history(page)->streamed;
        runs += !last || page_region(last) != page_region(page) || page_index(last) + 1 != page_index(page);
        last = page;
    }
    bool much = bytes > STREAMED_BYTES_MIN && bytes / runs >= STREAMED_RUN_BYTES;
    return much && node->options.readahead_bytes_max && streamed >= count - count / 4;
}

/* Few enough bytes to be pushed next time: one message less, and no waiting. */
static bool should_subscribe(const struct node *node)
{
    uint64_t bytes = 0;
    for (uint32_t i = node->updates->learned; i < node->updates->count; i++)
        bytes += page_region(node->updates->pages[i])->page_bytes;
    return bytes <= node->options.push_bytes_max;
}

/* A usage probe is inaccessible, so that a use shows.  False: some space keeps its access. */
static bool hide(struct node *node, struct page *page)
{
    if (page->readers & ~((uint64_t)1 << node->me) || pin_find(node, page))
        return false;
    protection_set(node, page, ACCESS_NONE);
    return true;
}

/* Spaces keep their access meanwhile: only bytes that other nodes have written change, and no thread may read those
 * before the acquire that received the notice returns. */
void update_bring(struct node *node)
{
    struct update_set *list = node->updates;
    list->batch++;
    list->fed_bytes = 0;
    context_assert(node, list->learned <= list->count, "update: more is known of than is listed");
    if (list->learned == list->count || context_holds(node))
        return;
    if (better_streamed(node) || context_chance(node, node->policy.guess_permille / 4)) {
        while (list->count > list->learned) {
            struct page_history *history = page_history(list->pages[--list->count]);
            history->listed = history->fed = history->probe = false;
        }
        return;
    }
    bool subscribes = should_subscribe(node);
    uint32_t kept = list->learned, end = list->count;
    const struct page *last = NULL;
    list->round++;
    for (uint32_t i = list->learned; i < end; i++) {
        struct page *page = list->pages[i];
        struct page_history *history = page_history(page);
        context_assert(node, history->listed, "update: a page is in the set and not marked so");
        if (page_valid(page)) { /* deferred, and a thread was faster */
            history->listed = false;
            continue;
        }
        bool first = !last || page_region(last) != page_region(page) ||
                     page_index(last) / HISTORY_GROUP != page_index(page) / HISTORY_GROUP;
        last = page;
        history->brought++;
        history->round = list->round;
        history->subscribed = history->subscribed || subscribes;
        bool due = (first && (history->fed ? history->probe : history_probe_due(history))) ||
                   context_chance(node, node->policy.guess_permille / 2);
        history->fed = false;
        history->probe = due && hide(node, page);
        node->stats[node->me].probes += history->probe;
        if (history->probe)
            appetite_count(&page_region(page)->appetites, &page->need, APPETITE_PROBED);
        if (history->pushes)
            refetch(node, page, subscribes);
        else
            list->pages[kept++] = page;
    }
    list->count = list->learned = kept;
    update_pump(node);
    node->stats[node->me].refetch_waits += node->fetches->updates_under_way > 0;
}

void update_receive_push(struct node *node, struct message *message)
{
    struct reader reader = reader_of(message);
    for (uint32_t i = 0, count = message_header(message)->count; i < count && !reader.bad; i++) {
        struct page *page = pushed_read(node, message, &reader);
        /* The push came after its notice: it may be used at once. */
        if (page && !page_valid(page) && !page_history(page)->listed && page_history(page)->used >= HISTORY_UPDATE_USES)
            refetch(node, page, false);
    }
    if (!reader_ended(&reader))
        context_malformed(node, message);
}

void update_pump(struct node *node)
{
    struct update_set *list = node->updates;
    while (list->first < list->learned) {
        struct page *page = list->pages[list->first];
        context_assert(node, page_history(page)->listed, "update: a page is in the set and not marked so");
        if (node->fetches->updates_under_way &&
            node->fetches->updates_bytes + page_region(page)->page_bytes > node->options.refetch_bytes_max)
            return;
        list->first++;
        refetch(node, page, page_history(page)->subscribed);
    }
    if (list->first == list->count)
        list->first = list->learned = list->count = 0;
}

bool update_done(const struct node *node)
{
    return node->updates->first == node->updates->learned && node->fetches->updates_under_way == 0;
}

void update_defer(struct node *node)
{
    struct update_set *list = node->updates;
    context_assert(node, list->first <= list->learned, "update: more has begun than is known of");
    list->learned = list->first;
}

void update_dropped(struct page *page)
{
    if (page_history(page) && page_history(page)->used >= HISTORY_UPDATE_USES)
        page_history(page)->current = true;
}

void update_remove_region(struct node *node, const struct region *region)
{
    struct update_set *list = node->updates;
    uint32_t kept = list->first, learned = list->learned;
    for (uint32_t i = list->first; i < list->count; i++) {
        if (i == list->learned)
            learned = kept;
        if (page_region(list->pages[i]) != region)
            list->pages[kept++] = list->pages[i];
    }
    context_assert(node, kept <= list->count, "update: a set grows as pages leave it");
    list->learned = list->learned == list->count ? kept : learned;
    list->count = kept;
}
