/* An interval that a node knows already is skipped: on the way of a lock each notice may come several times. */
#include "protocol/sync/notices.h"
#include <string.h>

#include "protocol/coherence/protection.h"
#include "protocol/page/history.h"
#include "protocol/page/interval.h"
#include "protocol/page/region.h"
#include "protocol/predict/update.h"

/* ---- telling ---------------------------------------------------------------------------------------------------- */

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
        const struct interval_log *log = &node->logs[q];
        uint32_t from = log->count ? interval_after(log, vector_get(known, q)) : 0;
        for (uint32_t i = from; i < log->count; i++) {
            const struct interval *interval = log->items[log->first + i];
            message_put_bytes(message, &node->pool, interval, interval_bytes(interval));
            count++;
        }
    }
    memcpy(message->wire + count_at, &count, sizeof count);
}

/* ---- merging ---------------------------------------------------------------------------------------------------- */

/* The longest list of a node's intervals among the arrivals, and who brought it. */
struct tail {
    stamp stamp;
    uint32_t from;
    uint32_t unused;
};

/* The bytes of the next interval, and whose it is. */
static const void *next_interval(struct node *node, const struct message *message, struct reader *reader,
                                 struct interval *head, uint64_t *bytes)
{
    const unsigned char *start = reader->at;
    const void *fixed = reader_bytes(reader, sizeof *head);
    if (fixed)
        memcpy(head, fixed, sizeof *head);
    if (!fixed || head->node < 0 || head->node >= node->size || head->stamp > node->stamp ||
        !reader_bytes(reader, head->run_count * (uint64_t)sizeof(struct run)))
        context_malformed(node, message);
    *bytes = (uint64_t)(reader->at - start);
    return start;
}

static void find_tails(struct node *node, struct message *const *from, const struct reader *readers, uint32_t froms,
                       struct tail *tails)
{
    struct interval head;
    uint64_t bytes;
    for (uint32_t i = 0; i < froms; i++) {
        struct reader reader = readers[i];
        for (uint32_t k = 0, count = reader_u32(&reader); k < count; k++) {
            next_interval(node, from[i], &reader, &head, &bytes);
            if (head.stamp > tails[head.node].stamp)
                tails[head.node] = (struct tail){.stamp = head.stamp, .from = i};
        }
        if (!reader_ended(&reader))
            context_malformed(node, from[i]);
    }
}

/* Every interval once.  What one arrival lists of a node begins where a cut ended and has no hole, so the list that
 * reaches furthest has all that the others have (but for what an earlier cut, which comes down first, has
 * published). */
void notices_merge(struct node *node, struct message *to, struct message *const *from, const struct reader *readers,
                   uint32_t froms)
{
    uint32_t total = 0;
    uint64_t count_at = to->wire_bytes, bytes, room = (uint64_t)node->size * sizeof(struct tail);
    struct tail *tails = pool_take_zeroed(&node->pool, room);
    struct interval head;
    find_tails(node, from, readers, froms, tails);
    message_put_u32(to, &node->pool, 0);
    for (uint32_t i = 0; i < froms; i++) {
        struct reader reader = readers[i];
        for (uint32_t k = 0, count = reader_u32(&reader); k < count; k++) {
            const void *interval = next_interval(node, from[i], &reader, &head, &bytes);
            if (tails[head.node].from != i)
                continue;
            message_put_bytes(to, &node->pool, interval, bytes);
            total++;
        }
    }
    memcpy(to->wire + count_at, &total, sizeof total);
    pool_give(&node->pool, tails, room);
}

/* ---- applying --------------------------------------------------------------------------------------------------- */

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

static void apply_run(struct node *node, const struct interval *interval, const struct run *run, struct region *region)
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
    struct region *region = region_find(node->regions, run->region);
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
                apply_run(node, interval, &interval->runs[r], region);
        }
    }
    if (!reader_ended(reader))
        context_malformed(node, message);
}
