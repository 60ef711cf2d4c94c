/* No prediction is ever needed: a page that is not fetched ahead is fetched when it is touched. */
#include "protocol/predict/readahead.h"

#include "protocol/coherence/fetch.h"
#include "protocol/coherence/preopened.h"
#include "protocol/coherence/protection.h"
#include "protocol/page/history.h"
#include "protocol/page/region.h"
#include "protocol/page/streams.h"

enum { MARKER_FROM_PAGES = 8, PIECE_BYTES_MAX = 32 << 10 };

/* ---- reads ------------------------------------------------------------------------------------------------------ */

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
static uint64_t run_alike(const struct page *page, const struct stream_run *run)
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

/* A few neighbours that were written in one piece are read in one piece: a row, a record.  A reader may
 * want only part of a longer run, so streams decide there. */
static void fetch_piece(struct node *node, const struct page *page)
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
        node->stats[node->me].pages_readahead++;
        fetch_start(node, next, true);
    }
}

static void fetch_streamed(struct node *node, struct page *page)
{
    context_assert(node, !context_holds(node), "readahead: a page is fetched ahead during a collection (R8)");
    history_touch(page, &node->pool);
    page_history(page)->streamed = true;
    node->stats[node->me].pages_readahead++;
    fetch_start(node, page, true);
}

/* The pages of the run that the region has; with `named` up to the first that was never named to this node, as a stream
 * ends where the data do. */
static uint64_t pages_of_run(const struct region *region, const struct stream_run *run, bool named)
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

static void fetch_beside(struct node *node, const struct page *page, uint64_t width)
{
    for (uint64_t i = 1; i < width; i++) {
        struct page *next = stale_alike(page, page_index(page) + i);
        if (next)
            fetch_streamed(node, next);
    }
}

static void fetch_run(struct node *node, struct page *page, const struct stream_run *run)
{
    struct region *region = page_region(page);
    fetch_beside(node, page, run->width);
    for (uint64_t k = 0, count = pages_of_run(region, run, true); k < count; k++) {
        uint64_t index = ascending(run, count, k);
        struct page *next = region_page_if(region, index);
        if (page_fetch(next) || page_valid(next))
            continue;
        next->marker = index == run->marker && run->count >= MARKER_FROM_PAGES && !next->readers;
        fetch_streamed(node, next);
        fetch_beside(node, next, run->width);
    }
}

/* Pages that are fetched or opened together fill huge pages. */
static uint64_t border_of(const struct node *node, const struct region *region)
{
    uint64_t huge = node->port->huge_bytes;
    return huge > region->page_bytes && region->offset % huge == 0 ? huge / region->page_bytes : 0;
}

void readahead_read(struct node *node, struct page *page)
{
    struct region *region = page_region(page);
    struct stream_run run;
    page->marker = false;
    if (context_holds(node) || !node->options.readahead_bytes_max)
        return;
    const struct stream_miss miss = {.index = page_index(page),
                                     .meetings = node->cuts,
                                     .guess = !node->options.without_guesses,
                                     .columns = !node->options.without_columns,
                                     .most = node->options.readahead_bytes_max / region->page_bytes,
                                     .border = border_of(node, region)};
    if (streams_miss(&region->reads, &miss, &run)) {
        streams_shorten(&region->reads, &run, run_alike(page, &run));
        fetch_run(node, page, &run);
    }
    if (!node->options.without_pieces)
        fetch_piece(node, page);
}

/* ---- writes ----------------------------------------------------------------------------------------------------- */

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
    context_assert(node, page_open(page), "readahead: a write fault left its page closed");
    judge_guess(node, region);
    const struct stream_miss miss = {.index = page_index(page),
                                     .meetings = node->cuts,
                                     .guess = !node->options.without_guesses,
                                     .columns = !node->options.without_columns,
                                     .most = node->options.open_bytes_max / region->page_bytes,
                                     .border = border_of(node, region)};
    if (!streams_miss(&region->writes, &miss, &run))
        return;
    for (uint64_t k = 0, count = pages_of_run(region, &run, false); k < count; k++) {
        struct page *next = region_page(region, &node->pool, ascending(&run, count, k));
        if (page_open(next) && page_access(node, next) == ACCESS_READ)
            protection_set(node, next, ACCESS_WRITE); /* closed together with one that was served (seal_shut) */
        else if (!page_open(next) && !preopened_open(node, next, false) && run.stride > 0) {
            streams_shorten(&region->writes, &run, k); /* the next block is guessed to be as long */
            return;                                    /* where it descends the nearest ones are still to come */
        }
    }
}
