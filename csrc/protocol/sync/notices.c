/* An interval that a node knows already is skipped: on the way of a lock each notice may come several times. */
#include "protocol/sync/notices.h"

#include <string.h>

#include "protocol/coherence/changes.h"
#include "protocol/coherence/writes.h"
#include "protocol/page/history.h"
#include "protocol/page/interval.h"
#include "protocol/page/region.h"
#include "protocol/predict/update.h"
#include "protocol/sync/flag.h"

const void *notices_next(struct node *node, const struct message *message, struct reader *reader, struct interval *head)
{
    const void *start = reader_bytes(reader, sizeof *head);
    if (!start)
        context_malformed(node, message);
    memcpy(head, start, sizeof *head);
    /* Its sender knew it when it sent, so its stamp is not above the message's, which was merged. */
    bool possible = head->node >= 0 && head->node < node->size && head->stamp <= node->stamp;
    if (!possible || !reader_bytes(reader, head->run_count * (uint64_t)sizeof(struct run)))
        context_malformed(node, message);
    return start;
}

/* Its log ends with the latest interval that is known of a node, unless a cut has listed that. */
static void check_log(const struct node *node, node_id q)
{
    const struct interval_log *log = &node->logs[q];
    context_assert(node, !log->count || log->items[log->first + log->count - 1]->stamp == node->vt[q],
                   "notices: a log does not end with the latest interval");
    context_assert(node, node->vt[q] >= node->cut[q], "notices: a cut lists an interval that is not known (R7)");
}

/* ---- sending ---------------------------------------------------------------------------------------------------- */

void notices_put_known(struct node *node, struct message *message)
{
    uint32_t count = 0;
    uint64_t count_at = message_put_count(message, &node->pool);
    for (node_id q = 0; q < node->size; q++)
        if (node->vt[q] > node->cut[q]) {
            message_put_u32(message, &node->pool, (uint32_t)q);
            message_put_u64(message, &node->pool, node->vt[q]);
            count++;
        }
    message_set_count(message, count_at, count);
}

void notices_put(struct node *node, struct message *message, const struct vector *known)
{
    uint32_t count = 0;
    uint64_t count_at = message_put_count(message, &node->pool);
    for (node_id q = 0; q < node->size; q++) {
        const struct interval_log *log = &node->logs[q];
        check_log(node, q);
        uint32_t from = log->count ? interval_after(log, vector_get(known, q)) : 0;
        for (uint32_t i = from; i < log->count; i++) {
            const struct interval *interval = log->items[log->first + i];
            message_put_bytes(message, &node->pool, interval, interval_bytes(interval));
            count++;
        }
    }
    message_set_count(message, count_at, count);
}

/* ---- merging ---------------------------------------------------------------------------------------------------- */

/* The longest list of a node's intervals among the arrivals, and the arrival that has it. */
struct tail {
    stamp stamp;
    uint32_t from;
    uint32_t unused;
};

static void find_tails(struct node *node, struct message *const *from, const struct reader *readers, uint32_t froms,
                       struct tail *tails)
{
    struct interval head;
    context_assert(node, froms > 0, "notices: nothing to merge");
    for (uint32_t i = 0; i < froms; i++) {
        struct reader reader = readers[i];
        for (uint32_t k = 0, count = reader_u32(&reader); k < count; k++) {
            notices_next(node, from[i], &reader, &head);
            if (head.stamp > tails[head.node].stamp)
                tails[head.node] = (struct tail){.stamp = head.stamp, .from = i};
        }
        if (!reader_ended(&reader))
            context_malformed(node, from[i]);
    }
}

/* Every interval once.  An arrival's list of a node begins where a cut ended and has no hole, so the list that reaches
 * furthest has all that the others have (but for intervals of an earlier cut, which comes down first). */
void notices_merge(struct node *node, struct message *to, struct message *const *from, const struct reader *readers,
                   uint32_t froms)
{
    uint32_t total = 0;
    uint64_t room = (uint64_t)node->size * sizeof(struct tail);
    struct tail *tails = pool_take_zeroed(&node->pool, room);
    struct interval head;
    find_tails(node, from, readers, froms, tails);
    uint64_t count_at = message_put_count(to, &node->pool);
    for (uint32_t i = 0; i < froms; i++) {
        struct reader reader = readers[i];
        for (uint32_t k = 0, count = reader_u32(&reader); k < count; k++) {
            const void *interval = notices_next(node, from[i], &reader, &head);
            if (tails[head.node].from != i)
                continue;
            message_put_bytes(to, &node->pool, interval, interval_bytes(&head));
            total++;
        }
    }
    message_set_count(to, count_at, total);
    pool_give(&node->pool, tails, room);
}

/* ---- applying --------------------------------------------------------------------------------------------------- */

static void apply_run(struct node *node, const struct interval *interval, const struct run *run, struct region *region)
{
    context_assert(node, interval->stamp == node->vt[interval->node],
                   "notices: a notice of another interval than the latest");
    context_assert(node, run->first + run->pages <= region->pages, "notices: a notice names pages behind its region");
    const struct appetite *hungry = update_hungry(node, interval, run, region);
    uint64_t behind;
    for (uint64_t at = run->first, end = run->first + run->pages; at < end; at += behind) {
        struct page *page = region_pages(region, &node->pool, at, end, &behind);
        for (uint64_t i = 0; i < behind; i++, page++) {
            vector_raise(&page->need, &node->pool, interval->node, interval->stamp);
            if (context_noted(node) && (page->dirty || vector_get(&page->need, node->number) > node->cut[node->number]))
                page_note(node, EVENT_CONTEST, page, interval->node, 0);
            /* Most are stale already, or were never used here. */
            bool used = page->readers || page_open(page) || page_history(page);
            if (!(used || hungry) || page_valid(page))
                continue;
            context_assert(node, page->twin || !page->writers, "notices: another node has written an exclusive page");
            writes_stale(page);
            update_stale(node, page);
            if (hungry)
                update_feed(node, page, hungry);
            if (page->readers)
                changes_add(node, page);
        }
    }
    region->stats[node->me].notices_received += run->pages;
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
    struct interval head;
    for (uint32_t i = 0, count = reader_u32(reader); i < count; i++) {
        const void *bytes = notices_next(node, message, reader, &head);
        if (head.stamp <= node->vt[head.node])
            continue;
        struct interval *interval = pool_take(&node->pool, interval_bytes(&head));
        memcpy(interval, bytes, interval_bytes(&head));
        node->vt[head.node] = head.stamp;
        interval_append(&node->logs[head.node], &node->pool, interval);
        check_log(node, head.node);
        for (uint32_t r = 0; r < interval->run_count; r++) {
            const struct run *run = &interval->runs[r];
            struct region *region = region_of_run(node, message, run);
            if (region)
                apply_run(node, interval, run, region);
            else if (run->region >= RUN_CLEARS_FLAG && !flag_notice(node, interval, run))
                context_malformed(node, message);
        }
    }
    if (!reader_ended(reader))
        context_malformed(node, message);
}
