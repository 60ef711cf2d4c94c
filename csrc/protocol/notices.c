/* Intervals become write notices (the release side), notices make pages stale (the acquire side), and a cut, at the
 * departure of a meeting, chooses the owners of what was written from a list that all nodes see alike (R7).
 */
#include "protocol/node.h"

#include <string.h>

/* ---- release: the open interval is closed and told -------------------------------------------------------------- */

enum { DIRTY_KEPT_MAX = 8192 }; /* room for so many pages is not given back: the next interval will need it */

typedef bool before_function(const void *a, const void *b);

static bool page_before(const void *a, const void *b)
{
    const struct page *x = a, *y = b;
    if (page_block_of(x) == page_block_of(y))
        return x < y;
    return page_region(x) != page_region(y) ? page_region(x)->id < page_region(y)->id : page_index(x) < page_index(y);
}

/* Heap sort: what is sorted here comes mostly in order, but nothing may grow with the square of what a program touches, and
 * nothing may allocate. */
static void sift_down(void **items, uint32_t at, uint32_t count, before_function *before)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count)
            return;
        if (child + 1 < count && before(items[child], items[child + 1]))
            child++;
        if (!before(items[at], items[child]))
            return;
        void *moved = items[at];
        items[at] = items[child];
        items[child] = moved;
        at = child;
    }
}

static void sort(void **items, uint32_t count, before_function *before)
{
    bool sorted = true;
    for (uint32_t i = 1; i < count && sorted; i++)
        sorted = !before(items[i], items[i - 1]);
    if (sorted)
        return;
    for (uint32_t i = count / 2; i-- > 0;)
        sift_down(items, i, count, before);
    for (uint32_t last = count; last-- > 1;) {
        void *top = items[0];
        items[0] = items[last];
        items[last] = top;
        sift_down(items, 0, last, before);
    }
}

static bool continues(const struct page *a, const struct page *b)
{
    if (page_block_of(a) == page_block_of(b))
        return a + 1 == b;
    return page_region(a) == page_region(b) && page_index(a) + 1 == page_index(b);
}

void release_interval(struct node *node, node_id to)
{
    preopened_inspect(node);
    uint32_t count = node->dirty_count, runs = count ? 1 : 0;
    if (count == 0)
        return;
    sort((void **)node->dirty, count, page_before);
    push_encode(node, to);
    stamp closed = context_tick(node);
    node->vt[node->rank] = closed;
    for (uint32_t i = 1; i < count; i++)
        runs += !continues(node->dirty[i - 1], node->dirty[i]);
    struct interval *interval = pool_take(&node->pool, sizeof *interval + runs * sizeof(struct run));
    *interval = (struct interval){.node = node->rank, .run_count = runs, .stamp = closed};
    struct run *run = interval->runs - 1;
    for (uint32_t i = 0; i < count; i++) {
        struct page *page = node->dirty[i];
        if (i == 0 || !continues(node->dirty[i - 1], page))
            *++run = (struct run){.region = page_region(page)->id, .first = page_index(page)};
        run->pages++;
        page->dirty = false;
        vector_raise(&page->have, &node->pool, node->rank, closed);
        vector_raise(&page->need, &node->pool, node->rank, closed);
    }
    push_send(node, to, closed);
    node->dirty_count = 0;
    if (node->dirty_capacity > DIRTY_KEPT_MAX) {
        pool_give(&node->pool, node->dirty, node->dirty_capacity * sizeof(struct page *));
        node->dirty = NULL;
        node->dirty_capacity = 0;
    }
    interval_append(&node->logs[node->rank], &node->pool, interval);
    node->stats.intervals_closed++;
    context_event(node, EVENT_CLOSE, NULL, count, node->rank);
}

void notices_put_known(struct node *node, struct message *message)
{
    uint32_t count = 0;
    uint64_t count_at = message->wire_bytes;
    message_put_u32(message, &node->pool, 0);
    for (node_id q = 0; q < node->size; q++)
        if (node->vt[q] > node->cut[q]) {
            message_put_u32(message, &node->pool, (uint32_t)q);
            message_put_u64(message, &node->pool, node->vt[q]);
            count++;
        }
    memcpy(message->wire + count_at, &count, sizeof count);
}

void notices_put(struct node *node, struct message *message, const struct vector *known)
{
    uint32_t count = 0;
    uint64_t count_at = message->wire_bytes;
    message_put_u32(message, &node->pool, 0);
    for (node_id q = 0; q < node->size; q++) {
        const struct log *log = &node->logs[q];
        uint32_t from = log->count ? interval_after(log, vector_get(known, q)) : 0;
        for (uint32_t i = from; i < log->count; i++) {
            const struct interval *interval = log->items[log->first + i];
            message_put_bytes(message, &node->pool, interval, interval_bytes(interval));
            count++;
        }
    }
    memcpy(message->wire + count_at, &count, sizeof count);
}

/* ---- acquire: notices of others --------------------------------------------------------------------------------- */

/* The next interval of a message, as a copy of the pool; NULL (and reader->bad) where the bytes are not one. */
static struct interval *read_interval(struct node *node, struct reader *reader)
{
    struct interval head;
    const void *bytes = reader_bytes(reader, sizeof head);
    if (!bytes)
        return NULL;
    memcpy(&head, bytes, sizeof head);
    const void *runs = reader_bytes(reader, head.run_count * (uint64_t)sizeof(struct run));
    /* Its sender knew it when it sent, so its stamp is not above the message's, which was merged. */
    if (!runs || head.node < 0 || head.node >= node->size || head.stamp > node->stamp) {
        reader->bad = true;
        return NULL;
    }
    struct interval *interval = pool_take(&node->pool, interval_bytes(&head));
    *interval = head;
    if (head.run_count)
        memcpy(interval->runs, runs, head.run_count * sizeof(struct run));
    return interval;
}

static void learn_run(struct node *node, const struct interval *interval, const struct run *run, struct region *region)
{
    uint64_t behind;
    for (uint64_t at = run->first, end = run->first + run->pages; at < end; at += behind) {
        struct page *page = region_pages(region, &node->pool, at, end, &behind);
        for (uint64_t i = 0; i < behind; i++, page++) {
            vector_raise(&page->need, &node->pool, interval->node, interval->stamp);
            /* Most are stale already, or were never used here. */
            if ((page->access != ACCESS_NONE || page->writable || page_history(page)) && !page_valid(page) &&
                !update_stale(node, page))
                protection_make_stale(node, page);
        }
    }
    node->stats.notices_received += run->pages;
    region->stats.notices_received += run->pages;
}

/* NULL: the region was freed.  A run that does not fit its region is not believed. */
static struct region *region_of_run(struct node *node, const struct message *message, const struct run *run)
{
    struct region *region = region_find(&node->regions, run->region);
    if (region && (run->first >= region->pages || run->pages > region->pages - run->first))
        context_malformed(node, message);
    return region;
}

void notices_apply(struct node *node, const struct message *message, struct reader *reader)
{
    uint32_t count = reader_u32(reader);
    for (uint32_t i = 0; i < count && !reader->bad; i++) {
        struct interval *interval = read_interval(node, reader);
        if (!interval)
            break;
        if (interval->stamp <= node->vt[interval->node]) {
            pool_give(&node->pool, interval, interval_bytes(interval));
            continue;
        }
        node->vt[interval->node] = interval->stamp;
        interval_append(&node->logs[interval->node], &node->pool, interval);
        for (uint32_t r = 0; r < interval->run_count; r++) {
            struct region *region = region_of_run(node, message, &interval->runs[r]);
            if (region)
                learn_run(node, interval, &interval->runs[r], region);
        }
    }
    if (!reader_ended(reader))
        context_malformed(node, message);
}

/* ---- cuts (R7) ------------------------------------------------------------------------------------------------- */

/* The intervals of a departure that were in no earlier cut. */
struct cut_list {
    struct interval **items; /* in their logs */
    uint32_t count, capacity;
};

static bool interval_before(const void *a, const void *b)
{
    const struct interval *x = a, *y = b;
    return x->stamp != y->stamp ? x->stamp < y->stamp : x->node < y->node;
}

/* They are all known by now, so the log has them. */
static struct cut_list read_cut(struct node *node, const struct message *message, struct reader reader)
{
    struct cut_list list = {0};
    uint32_t count = reader_u32(&reader);
    for (uint32_t i = 0; i < count; i++) {
        struct interval head;
        memcpy(&head, reader_bytes(&reader, sizeof head), sizeof head);
        reader_bytes(&reader, head.run_count * (uint64_t)sizeof(struct run));
        if (head.stamp <= node->cut[head.node])
            continue;
        struct interval *interval = interval_at(&node->logs[head.node], head.stamp);
        if (!interval)
            context_malformed(node, message);
        list.items = pool_grow(&node->pool, list.items, &list.capacity, list.count + 1, sizeof(struct interval *));
        list.items[list.count++] = interval;
    }
    return list;
}

static void note_writer(const struct interval *interval, struct page *page)
{
    page->cut_owner_wrote |= interval->node == page->owner;
}

static void choose_owner(const struct interval *interval, struct page *page)
{
    if (!page->cut_owner_wrote)
        page->owner = interval->node;
}

static void forget_writer(const struct interval *interval, struct page *page)
{
    (void)interval;
    page->cut_owner_wrote = false;
}

/* Call `what` for every page that the intervals name, in their order. */
static void for_cut_pages(struct node *node, const struct cut_list *list,
                          void (*what)(const struct interval *interval, struct page *page))
{
    for (uint32_t i = 0; i < list->count; i++)
        for (uint32_t r = 0; r < list->items[i]->run_count; r++) {
            const struct run *run = &list->items[i]->runs[r];
            struct region *region = region_find(&node->regions, run->region);
            uint64_t behind, end = run->first + run->pages;
            for (uint64_t at = run->first; region && at < end; at += behind) {
                struct page *page = region_pages(region, &node->pool, at, end, &behind);
                for (uint64_t k = 0; k < behind; k++)
                    what(list->items[i], page + k);
            }
        }
}

/* The owner stays if it wrote, too; else the last writer becomes the owner, as all nodes see alike (R7). */
static void choose_owners(struct node *node, struct cut_list *list)
{
    bool one_writer = true;
    for (uint32_t i = 1; i < list->count; i++)
        one_writer &= list->items[i]->node == list->items[0]->node;
    if (one_writer) {
        for_cut_pages(node, list, choose_owner);
        return;
    }
    sort((void **)list->items, list->count, interval_before);
    for_cut_pages(node, list, note_writer);
    for_cut_pages(node, list, choose_owner);
    for_cut_pages(node, list, forget_writer);
}

void cut_pass(struct node *node, const struct message *message, struct reader reader)
{
    struct cut_list list = read_cut(node, message, reader);
    choose_owners(node, &list);
    for (uint32_t i = 0; i < list.count; i++)
        if (list.items[i]->stamp > node->cut[list.items[i]->node])
            node->cut[list.items[i]->node] = list.items[i]->stamp;
    if (list.items)
        pool_give(&node->pool, list.items, list.capacity * sizeof(struct interval *));
    for (node_id q = 0; q < node->size; q++)
        interval_trim(&node->logs[q], &node->pool, node->cut[q]);
    node->cuts++;
}
