/* The interval names the dirty pages as runs. */
#include "protocol/sync/release.h"

#include "protocol/base/sort.h"
#include "protocol/coherence/preopened.h"
#include "protocol/coherence/writes.h"
#include "protocol/page/interval.h"
#include "protocol/page/page.h"

enum { DIRTY_KEPT_MAX = 8192 }; /* room for so many pages is not given back: the next interval will need it */

static bool page_before(const void *a, const void *b)
{
    const struct page *x = a, *y = b;
    if (page_block_of(x) == page_block_of(y))
        return x < y;
    return page_region(x) != page_region(y) ? page_region(x)->id < page_region(y)->id : page_index(x) < page_index(y);
}

static bool continues(const struct page *a, const struct page *b)
{
    if (page_block_of(a) == page_block_of(b))
        return a + 1 == b;
    return page_region(a) == page_region(b) && page_index(a) + 1 == page_index(b);
}

void release_naming(struct node *node, const struct run *flag)
{
    preopened_inspect(node);
    uint32_t count = node->writes->dirty_count, runs = (count ? 1u : 0) + (flag ? 1u : 0);
    if (runs == 0)
        return;
    context_assert(node, node->collection.phase <= COLLECTION_CUTTING,
                   "release: a notice is new while none may be (R8)");
    sort_pointers((void **)node->writes->dirty, count, page_before);
    stamp closed = context_tick(node);
    context_assert(node, closed > node->vt[node->number], "release: an interval closes before the last one");
    node->vt[node->number] = closed;
    for (uint32_t i = 1; i < count; i++)
        runs += !continues(node->writes->dirty[i - 1], node->writes->dirty[i]);
    struct interval *interval = pool_take(&node->pool, sizeof *interval + runs * sizeof(struct run));
    *interval = (struct interval){.node = node->number, .run_count = runs, .stamp = closed};
    struct run *run = interval->runs - 1;
    for (uint32_t i = 0; i < count; i++) {
        struct page *page = node->writes->dirty[i];
        context_assert(node, page->dirty, "release: a page of the interval is listed twice, or is not dirty");
        if (i == 0 || !continues(node->writes->dirty[i - 1], page))
            *++run = (struct run){.region = page_region(page)->id, .first = page_index(page)};
        run->pages++;
        page->dirty = false; /* it stays writable: no further fault until it is served (R5) */
        vector_raise(&page->have, &node->pool, node->number, closed);
        vector_raise(&page->need, &node->pool, node->number, closed);
    }
    if (flag)
        *++run = *flag;
    context_assert(node, run == interval->runs + runs - 1, "release: the interval has other runs than were counted");
    for (const struct run *wrote = interval->runs; context_noted(node) && wrote <= run - (flag ? 1 : 0); wrote++)
        context_note(node, (struct event){.object = wrote->first,
                                          .amount = wrote->pages,
                                          .region = wrote->region,
                                          .peer = node->number,
                                          .kind = EVENT_WROTE});
    context_assert(node, node->writes->dirty_count == count, "release: a page was written while the interval closed");
    node->writes->dirty_count = 0;
    if (node->writes->dirty_capacity > DIRTY_KEPT_MAX) {
        pool_give(&node->pool, node->writes->dirty, node->writes->dirty_capacity * sizeof(struct page *));
        node->writes->dirty = NULL;
        node->writes->dirty_capacity = 0;
    }
    interval_append(&node->logs[node->number], &node->pool, interval);
    node->stats[node->me].intervals_closed++;
    context_event(node, EVENT_CLOSE, count, node->number);
}

void release_interval(struct node *node)
{
    release_naming(node, NULL);
}
