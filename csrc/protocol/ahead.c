/* Nothing here is ever needed: a page that is not brought is fetched when it is touched. */
#include "protocol/ahead.h"

#include "protocol/node.h"

enum {
    MARKER_FROM_PAGES = 8,
    STREAMED_BYTES_MIN = 8 << 20,
    STREAMED_RUN_BYTES = 256 << 10,
    PIECE_BYTES_MAX = 32 << 10
};

/* ---- streams -------------------------------------------------------------------------------------------------- */

static bool same_need(const struct vector *a, const struct vector *b)
{
    return vector_covers(a, b, NODE_NONE) && vector_covers(b, a, NODE_NONE);
}

/* Stale by the same writes as `page`. */
static struct page *stale_alike(const struct page *page, uint64_t index)
{
    struct region *region = page_region(page);
    struct page *next = index < region->pages ? region_page_if(region, index) : NULL;
    return next && !page_fetch(next) && !page_valid(next) && same_need(&next->need, &page->need) ? next : NULL;
}

/* How much of the run was written with the page: behind it something else may begin. */
static uint64_t alike_ahead(const struct page *page, const struct stream_run *run)
{
    struct region *region = page_region(page);
    for (uint64_t count = 0; count < run->count; count++) {
        uint64_t index = run->first + count * (uint64_t)run->stride;
        struct page *next = index < region->pages ? region_page_if(region, index) : NULL;
        if (!next || !same_need(&next->need, &page->need))
            return count;
    }
    return run->count;
}

/* A few neighbours that were written in one piece are read in one piece: a row, a record.  Of a longer run who knows which
 * part is wanted, so that is left to streams. */
static void bring_piece(struct node *node, const struct page *page)
{
    uint64_t most = PIECE_BYTES_MAX / page_region(page)->page_bytes, first = page_index(page), end = first + 1;
    while (first > 0 && end - first <= most && stale_alike(page, first - 1))
        first--;
    while (end - first <= most && stale_alike(page, end))
        end++;
    if (end - first > most)
        return;
    for (uint64_t index = first; index < end; index++) {
        struct page *next = stale_alike(page, index);
        if (!next)
            continue; /* the page itself */
        history_touch(next, &node->pool);
        node->stats.pages_readahead++;
        fetch_start(node, next, true);
    }
}

static void bring_streamed(struct node *node, struct page *page)
{
    history_touch(page, &node->pool);
    page_history(page)->streamed = true;
    node->stats.pages_readahead++;
    fetch_start(node, page, true);
}

/* The pages of the run that the region has; with `named` up to the first that was never named to this node, as a stream
 * ends where the data do. */
static uint64_t pages_readahead(const struct region *region, const struct stream_run *run, bool named)
{
    uint64_t count = 0, index = run->first;
    for (; count < run->count && index < region->pages; count++, index += (uint64_t)run->stride)
        if (named && !region_page_if(region, index))
            break;
    return count;
}

/* The index of the k-th page in ascending order, in which neighbours travel and are protected together. */
static uint64_t ascending(const struct stream_run *run, uint64_t count, uint64_t k)
{
    return run->first + (run->stride < 0 ? count - 1 - k : k) * (uint64_t)run->stride;
}

static void bring_beside(struct node *node, const struct page *page, uint64_t width)
{
    for (uint64_t i = 1; i < width; i++) {
        struct page *next = stale_alike(page, page_index(page) + i);
        if (next)
            bring_streamed(node, next);
    }
}

static void bring_stream(struct node *node, struct page *page, const struct stream_run *run)
{
    struct region *region = page_region(page);
    bring_beside(node, page, run->width);
    for (uint64_t k = 0, count = pages_readahead(region, run, true); k < count; k++) {
        uint64_t index = ascending(run, count, k);
        struct page *next = region_page_if(region, index);
        if (page_fetch(next) || page_valid(next))
            continue;
        next->marker = index == run->marker && run->count >= MARKER_FROM_PAGES && !page_pinned(next);
        bring_streamed(node, next);
        bring_beside(node, next, run->width);
    }
}

/* What is fetched or opened at a time fills huge pages. */
static uint64_t border_of(const struct node *node, const struct region *region)
{
    uint64_t huge = node->port.huge_bytes;
    return huge > region->page_bytes && region->offset % huge == 0 ? huge / region->page_bytes : 0;
}

void readahead_read(struct node *node, struct page *page)
{
    struct region *region = page_region(page);
    struct stream_run run;
    page->marker = false;
    if (node->collection.holding || !node->options.readahead_bytes_max)
        return;
    const struct stream_miss miss = {.index = page_index(page),
                                     .meetings = node->cuts,
                                     .guess = true,
                                     .most = node->options.readahead_bytes_max / region->page_bytes,
                                     .border = border_of(node, region)};
    if (streams_miss(&region->reads, &miss, &run)) {
        streams_shorten(&region->reads, &run, alike_ahead(page, &run));
        bring_stream(node, page, &run);
    }
    bring_piece(node, page);
}

/* A guess that ends where the block does is continued by no miss; whether it was right shows in its last page. */
static void judge_guess(const struct node *node, struct region *region)
{
    uint64_t last = streams_guessed(&region->writes);
    const struct page *page = last < region->pages ? region_page_if(region, last) : NULL;
    if (page && preopened_written(node, page))
        streams_confirm(&region->writes);
}

void readahead_write(struct node *node, struct page *page)
{
    struct region *region = page_region(page);
    struct stream_run run;
    judge_guess(node, region);
    const struct stream_miss miss = {.index = page_index(page),
                                     .meetings = node->cuts,
                                     .guess = true,
                                     .most = node->options.open_bytes_max / region->page_bytes,
                                     .border = border_of(node, region)};
    if (!streams_miss(&region->writes, &miss, &run))
        return;
    for (uint64_t k = 0, count = pages_readahead(region, &run, false); k < count; k++) {
        struct page *next = region_page(region, &node->pool, ascending(&run, count, k));
        if (next->writable && next->access == ACCESS_READ)
            protection_set(node, next, ACCESS_WRITE); /* closed together with one that was served (seal_shut) */
        else if (!next->writable && !preopened_open(node, next, false) && run.stride > 0) {
            streams_shorten(&region->writes, &run, k); /* the next block is guessed to be as long */
            return;                                    /* where it descends the nearest ones are still to come */
        }
    }
}

/* ---- wanted pages --------------------------------------------------------------------------------------------- */

/* A sample was not used: nothing of its group is wanted any more. */
static void cool_group(struct node *node, struct page *page)
{
    const struct region *region = page_region(page);
    uint32_t round = page_history(page)->round;
    uint64_t index = page_index(page) / HISTORY_GROUP * HISTORY_GROUP, end = index + HISTORY_GROUP;
    node->stats.probes_unused++;
    for (; index < end && index < region->pages; index++) {
        struct page *member = region_page_if(region, index);
        if (!member || !page_history(member) || page_history(member)->round != round)
            continue;
        page_history(member)->used = HISTORY_UPDATE_USES - 1; /* one more use, and it is wanted again */
        if (page_history(member)->subscribed)
            fetch_stop_pushes(node, member);
    }
}

bool update_stale(struct node *node, struct page *page)
{
    struct page_history *history = page_history(page);
    if (!history || !history->current)
        return false;
    history->current = false;
    bool unused = history->probe && !history->touched;
    bool wanted = history_new_version(history) || context_chance(node, node->policy.guess_permille);
    if (unused)
        cool_group(node, page);
    if (!wanted || node->options.refetch_bytes_max == 0 || history->listed || page_pinned(page) || page->owed)
        return false;
    struct wanted *list = &node->wanted;
    list->pages = pool_grow(&node->pool, list->pages, &list->capacity, list->count + 1, sizeof(struct page *));
    list->pages[list->count++] = page;
    history->listed = true;
    return !node->collection.holding;
}

static void bring(struct node *node, struct page *page, bool subscribes)
{
    page_history(page)->listed = false;
    if (page_valid(page))
        return;
    if (page_fetch(page) || node->collection.holding) {
        protection_make_stale(node, page);
        return;
    }
    page_history(page)->streamed = false;
    node->stats.pages_refetched++;
    fetch_start_update(node, page, subscribes);
}

/* Much that is read in order: a stream brings it while it is read, and that is faster than all of it before. */
static bool better_streamed(const struct node *node)
{
    const struct wanted *list = &node->wanted;
    const struct page *last = NULL;
    uint64_t bytes = 0, runs = 0, streamed = 0, count = list->count - list->learned;
    for (uint32_t i = list->learned; i < list->count; i++) {
        const struct page *page = list->pages[i];
        bytes += page_region(page)->page_bytes;
        streamed += page_history(page)->streamed;
        runs += !last || page_region(last) != page_region(page) || page_index(last) + 1 != page_index(page);
        last = page;
    }
    return node->options.readahead_bytes_max && bytes > STREAMED_BYTES_MIN && bytes / runs >= STREAMED_RUN_BYTES &&
           streamed >= count - count / 4;
}

/* Few enough bytes to be pushed next time: one message less, and no waiting. */
static bool should_subscribe(const struct node *node)
{
    uint64_t bytes = 0;
    for (uint32_t i = node->wanted.learned; i < node->wanted.count; i++)
        bytes += page_region(node->wanted.pages[i])->page_bytes;
    return bytes <= node->options.push_bytes_max;
}

/* Where what was pushed makes the page valid at once its access need not change: the bytes of the diffs are all that is
 * touched, and nobody may read them before the acquire that brought the notice returns. */
void update_bring(struct node *node)
{
    struct wanted *list = &node->wanted;
    if (list->learned == list->count || node->collection.holding)
        return;
    if (better_streamed(node) || context_chance(node, node->policy.guess_permille / 4)) {
        while (list->count > list->learned) {
            struct page *page = list->pages[--list->count];
            page_history(page)->listed = false;
            protection_make_stale(node, page);
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
        if (page_valid(page) || page_pinned(page)) { /* put off, and a thread was faster */
            history->listed = false;
            continue;
        }
        bool first = !last || page_region(last) != page_region(page) ||
                     page_index(last) / HISTORY_GROUP != page_index(page) / HISTORY_GROUP;
        last = page;
        history->brought++;
        history->round = list->round;
        history->subscribed = history->subscribed || subscribes;
        history->probe = (first && history_probe_due(history)) || context_chance(node, node->policy.guess_permille / 2);
        node->stats.probes += history->probe;
        /* Whole pages may come, which would take away what a thread writes meanwhile; diffs do not. */
        if (history->probe || (page->writable && !history->pushes))
            protection_make_stale(node, page);
        if (!history->pushes) {
            list->pages[kept++] = page;
            continue;
        }
        bring(node, page, subscribes);
        if (!page_valid(page))
            protection_make_stale(node, page);
    }
    list->count = list->learned = kept;
    update_pump(node);
}

void update_pushed(struct node *node, struct page *page)
{
    if (!page_valid(page) && !page_history(page)->listed && page_history(page)->used >= HISTORY_UPDATE_USES)
        bring(node, page, false);
}

void update_pump(struct node *node)
{
    struct wanted *list = &node->wanted;
    while (list->first < list->learned) {
        struct page *page = list->pages[list->first];
        if (list->under_way && list->bytes + page_region(page)->page_bytes > node->options.refetch_bytes_max)
            return;
        list->first++;
        bring(node, page, page_history(page)->subscribed);
    }
    if (list->first == list->count)
        list->first = list->learned = list->count = 0;
}

bool history_coming(const struct page *page)
{
    const struct page_history *history = page_history(page);
    const struct fetch *fetch = page_fetch(page);
    return history && !page->writable && (history->listed || (fetch && fetch->wanted));
}

bool update_done(const struct node *node)
{
    return node->wanted.first == node->wanted.learned && node->wanted.under_way == 0;
}

void update_defer(struct node *node)
{
    struct wanted *list = &node->wanted;
    for (uint32_t i = list->first; i < list->count; i++)
        protection_make_stale(node, list->pages[i]);
    list->learned = list->first;
}

void update_dropped(struct page *page)
{
    if (page_history(page) && page_history(page)->used >= HISTORY_UPDATE_USES)
        page_history(page)->current = true;
}

void update_remove_region(struct node *node, const struct region *region)
{
    struct wanted *list = &node->wanted;
    uint32_t kept = list->first, learned = list->learned;
    for (uint32_t i = list->first; i < list->count; i++) {
        if (i == list->learned)
            learned = kept;
        if (page_region(list->pages[i]) != region)
            list->pages[kept++] = list->pages[i];
    }
    list->learned = list->learned == list->count ? kept : learned;
    list->count = kept;
}
