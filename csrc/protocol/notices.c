/* Intervals become write notices (the release side), notices make pages stale (the acquire side), and a cut, at the
 * departure of a meeting, chooses the owners of what was written from a list that all nodes see alike (R7).
 */
#include "protocol/node.h"

#include <string.h>

/* ---- release: the open interval is closed and told -------------------------------------------------------------- */

static bool page_before(const struct page *a, const struct page *b)
{
    return a->region->id != b->region->id ? a->region->id < b->region->id : a->index < b->index;
}

/* Heap sort: pages are opened mostly in order, but nothing may grow with the square of what a program touches, and
 * nothing may allocate. */
static void sift_down(struct page **pages, uint32_t at, uint32_t count)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count)
            return;
        if (child + 1 < count && page_before(pages[child], pages[child + 1]))
            child++;
        if (!page_before(pages[at], pages[child]))
            return;
        struct page *moved = pages[at];
        pages[at] = pages[child];
        pages[child] = moved;
        at = child;
    }
}

static void sort_pages(struct page **pages, uint32_t count)
{
    bool sorted = true;
    for (uint32_t i = 1; i < count && sorted; i++)
        sorted = page_before(pages[i - 1], pages[i]);
    if (sorted)
        return;
    for (uint32_t i = count / 2; i-- > 0;)
        sift_down(pages, i, count);
    for (uint32_t last = count; last-- > 1;) {
        struct page *top = pages[0];
        pages[0] = pages[last];
        pages[last] = top;
        sift_down(pages, 0, last);
    }
}

static bool continues(const struct page *a, const struct page *b)
{
    return a->region == b->region && a->index + 1 == b->index;
}

void node_close_interval(struct node *node, node_id to)
{
    opened_look(node);
    uint32_t count = node->dirty_count, runs = count ? 1 : 0;
    if (count == 0)
        return;
    sort_pages(node->dirty, count);
    push_cut(node, to);
    stamp closed = node_tick(node);
    node->vt[node->rank] = closed;
    for (uint32_t i = 1; i < count; i++)
        runs += !continues(node->dirty[i - 1], node->dirty[i]);
    struct interval *interval = pool_take(&node->pool, sizeof *interval + runs * sizeof(struct run));
    *interval = (struct interval){.node = node->rank, .run_count = runs, .stamp = closed};
    struct run *run = interval->runs - 1;
    for (uint32_t i = 0; i < count; i++) {
        struct page *page = node->dirty[i];
        if (i == 0 || !continues(node->dirty[i - 1], page))
            *++run = (struct run){.region = page->region->id, .first = page->index};
        run->pages++;
        page->dirty = false;
        vector_raise(&page->have, &node->pool, node->rank, closed);
        vector_raise(&page->need, &node->pool, node->rank, closed);
    }
    push_send(node, to, closed);
    node->dirty_count = 0;
    log_append(&node->logs[node->rank], &node->pool, interval);
    node->stats.intervals_closed++;
    node_event(node, EVENT_CLOSE, NULL, count, node->rank);
}

void node_put_known(struct node *node, struct message *message)
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

void node_put_intervals(struct node *node, struct message *message, const struct vector *known)
{
    uint32_t count = 0;
    uint64_t count_at = message->wire_bytes;
    message_put_u32(message, &node->pool, 0);
    for (node_id q = 0; q < node->size; q++) {
        const struct log *log = &node->logs[q];
        uint32_t from = log->count ? log_after(log, vector_get(known, q)) : 0;
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
    for (uint64_t i = 0; i < run->pages; i++) {
        struct page *page = region_page(region, &node->pool, run->first + i);
        vector_raise(&page->need, &node->pool, interval->node, interval->stamp);
        if (!page_valid(page) && !ahead_stale(node, page))
            page_make_stale(node, page);
    }
    node->stats.notices_received += run->pages;
    region->stats.notices_received += run->pages;
}

/* NULL: the region was freed.  A run that does not fit its region is not believed. */
static struct region *region_of_run(struct node *node, const struct message *message, const struct run *run)
{
    struct region *region = region_find(&node->regions, run->region);
    if (region && (run->first >= region->pages || run->pages > region->pages - run->first))
        node_malformed(node, message);
    return region;
}

void node_learn(struct node *node, const struct message *message, struct reader *reader)
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
        log_append(&node->logs[interval->node], &node->pool, interval);
        for (uint32_t r = 0; r < interval->run_count; r++) {
            struct region *region = region_of_run(node, message, &interval->runs[r]);
            if (region)
                learn_run(node, interval, &interval->runs[r], region);
        }
    }
    if (!reader_ended(reader))
        node_malformed(node, message);
}

/* ---- cuts (R7) ------------------------------------------------------------------------------------------------- */

static void note_writer(const struct interval *interval, struct page *page)
{
    if (page->cut_stamp == 0)
        page->cut_owner_wrote = false;
    if (interval->node == page->owner)
        page->cut_owner_wrote = true;
    if (interval->stamp > page->cut_stamp || (interval->stamp == page->cut_stamp && interval->node > page->cut_writer)) {
        page->cut_stamp = interval->stamp;
        page->cut_writer = interval->node;
    }
}

static void choose_owner(const struct interval *interval, struct page *page)
{
    if (page->cut_stamp && !page->cut_owner_wrote)
        page->owner = page->cut_writer;
    page->cut_stamp = 0;
    (void)interval;                 /* the second walk needs the pages only */
}

/* Call `what` for every page that the list names, in intervals that were not in an earlier cut. */
static void for_cut_pages(struct node *node, const struct message *message, struct reader reader,
                          void (*what)(const struct interval *interval, struct page *page))
{
    uint32_t count = reader_u32(&reader);
    for (uint32_t i = 0; i < count; i++) {
        struct interval *interval = read_interval(node, &reader);
        if (!interval)
            return;
        if (interval->stamp > node->cut[interval->node])
            for (uint32_t r = 0; r < interval->run_count; r++) {
                struct region *region = region_of_run(node, message, &interval->runs[r]);
                for (uint64_t k = 0; region && k < interval->runs[r].pages; k++)
                    what(interval, region_page(region, &node->pool, interval->runs[r].first + k));
            }
        pool_give(&node->pool, interval, interval_bytes(interval));
    }
}

static void raise_cut(struct node *node, struct reader reader)
{
    uint32_t count = reader_u32(&reader);
    for (uint32_t i = 0; i < count; i++) {
        struct interval *interval = read_interval(node, &reader);
        if (!interval)
            return;
        if (interval->stamp > node->cut[interval->node])
            node->cut[interval->node] = interval->stamp;
        pool_give(&node->pool, interval, interval_bytes(interval));
    }
}

void node_pass_cut(struct node *node, const struct message *message, struct reader reader)
{
    for_cut_pages(node, message, reader, note_writer);
    for_cut_pages(node, message, reader, choose_owner);
    raise_cut(node, reader);
    for (node_id q = 0; q < node->size; q++)
        log_trim(&node->logs[q], &node->pool, node->cut[q]);
    node->cuts++;
}
