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
#include "protocol/sync/habit.h"
#include "protocol/sync/tree.h"

/* ---- reading ---------------------------------------------------------------------------------------------------- */

struct notice_walk notices_begin(const struct message *message, struct reader reader)
{
    struct notice_walk walk = {.message = message, .reader = reader};
    walk.entries = reader_u32(&walk.reader);
    return walk;
}

/* The next entry: an interval, or the first of several. */
static void read_entry(struct notice_walk *walk)
{
    walk->node = (node_id)reader_u32(&walk->reader);
    walk->run_count = reader_u32(&walk->reader);
    walk->stamp = walk->base = reader_u64(&walk->reader);
    walk->runs = NULL;
    walk->entries--;
    if (walk->run_count & NOTICES_ALIKE) {
        walk->which = walk->run_count >> 30 & 1;
        walk->alike = (walk->run_count & (((uint32_t)1 << 30) - 1)) - 1;
    } else {
        walk->runs = reader_bytes(&walk->reader, walk->run_count * (uint64_t)sizeof(struct run));
    }
}

static void read_alike(struct notice_walk *walk)
{
    int16_t difference = 0;
    const void *bytes = reader_bytes(&walk->reader, sizeof difference);
    if (bytes)
        memcpy(&difference, bytes, sizeof difference);
    walk->node++;
    walk->stamp = walk->base + (stamp)(int64_t)difference;
    walk->runs = NULL;
    walk->alike--;
}

bool notices_next(struct node *node, struct notice_walk *walk)
{
    if (walk->reader.bad)
        context_malformed(node, walk->message);
    if (walk->alike)
        read_alike(walk);
    else if (walk->entries)
        read_entry(walk);
    else
        return false;
    /* Its sender knew it when it sent, so its stamp is not above the message's, which was merged. */
    bool possible = walk->node >= 0 && walk->node < node->size && walk->stamp <= node->stamp && !walk->reader.bad;
    if (possible && !walk->runs) {
        const struct interval *list = habit_list(node, walk->node, walk->which);
        walk->runs = list ? list->runs : NULL;
        walk->run_count = list ? list->run_count : 0;
    }
    if (!possible || !walk->runs)
        context_malformed(node, walk->message);
    return true;
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

/* A list as it is written. */
struct notice_list {
    struct message *message;
    uint64_t count_at;
    uint32_t count;
    bool brief;        /* it may name lists of habits */
    uint64_t alike_at; /* the last entry is `alike`: where the number of its nodes stands; 0: it is not */
    uint32_t which, alike;
    node_id next; /* that could join it */
    stamp base;
};

static struct notice_list begin_list(struct node *node, struct message *message, bool brief)
{
    return (struct notice_list){.message = message,
                                .count_at = message_put_count(message, &node->pool),
                                .brief = brief && !node->options.without_habits};
}

static void end_alike(struct notice_list *list)
{
    if (list->alike_at)
        message_set_count(list->message, list->alike_at, NOTICES_ALIKE + (list->which << 30) + list->alike);
    list->alike_at = 0;
}

static void put_alike(struct node *node, struct notice_list *list, node_id whose, stamp closed, uint32_t which)
{
    int64_t difference = (int64_t)(closed - list->base);
    if (list->alike_at && list->next == whose && list->which == which && difference == (int16_t)difference) {
        int16_t written = (int16_t)difference;
        message_put_bytes(list->message, &node->pool, &written, sizeof written);
    } else {
        end_alike(list);
        message_put_u32(list->message, &node->pool, (uint32_t)whose);
        list->alike_at = message_put_count(list->message, &node->pool);
        message_put_u64(list->message, &node->pool, closed);
        list->which = which;
        list->base = closed;
        list->alike = 0;
        list->count++;
    }
    list->alike++;
    list->next = whose + 1;
}

static void put_interval(struct node *node, struct notice_list *list, node_id whose, stamp closed, const void *runs,
                         uint32_t run_count)
{
    uint32_t which = list->brief ? habit_find(node, whose, runs, run_count) : HABITS;
    if (which < HABITS) {
        put_alike(node, list, whose, closed, which);
        return;
    }
    end_alike(list);
    message_put_u32(list->message, &node->pool, (uint32_t)whose);
    message_put_u32(list->message, &node->pool, run_count);
    message_put_u64(list->message, &node->pool, closed);
    message_put_bytes(list->message, &node->pool, runs, run_count * sizeof(struct run));
    list->count++;
}

static void end_list(struct notice_list *list)
{
    end_alike(list);
    message_set_count(list->message, list->count_at, list->count);
}

static void put_above(struct node *node, struct message *message, const struct vector *known, bool brief)
{
    struct notice_list list = begin_list(node, message, brief);
    for (node_id q = 0; q < node->size; q++) {
        const struct interval_log *log = &node->logs[q];
        check_log(node, q);
        uint32_t from = log->count ? interval_after(log, vector_get(known, q)) : 0;
        for (uint32_t i = from; i < log->count; i++) {
            const struct interval *interval = log->items[log->first + i];
            put_interval(node, &list, q, interval->stamp, interval->runs, interval->run_count);
        }
    }
    end_list(&list);
}

void notices_put(struct node *node, struct message *message, const struct vector *known)
{
    put_above(node, message, known, false);
}

void notices_put_all(struct node *node, struct message *message, bool threads)
{
    put_above(node, message, &(struct vector){0}, threads);
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
    context_assert(node, froms > 0, "notices: nothing to merge");
    for (uint32_t i = 0; i < froms; i++) {
        struct notice_walk walk = notices_begin(from[i], readers[i]);
        for (node_id last = 0; notices_next(node, &walk); last = walk.node) {
            if (walk.node < last)
                context_malformed(node, from[i]);
            if (walk.stamp > tails[walk.node].stamp)
                tails[walk.node] = (struct tail){.stamp = walk.stamp, .from = i};
        }
        if (!reader_ended(&walk.reader))
            context_malformed(node, from[i]);
    }
}

/* The walk that stands at the lowest node, of those that go on; `count`: none does. */
static uint32_t lowest_of(const struct notice_walk *walks, const bool *more, uint32_t count)
{
    uint32_t lowest = count;
    for (uint32_t i = 0; i < count; i++)
        if (more[i] && (lowest == count || walks[i].node < walks[lowest].node))
            lowest = i;
    return lowest;
}

/* Every interval once, by ascending nodes.  An arrival's list of a node begins where a cut ended and has no hole, so
 * the list that reaches furthest has all that the others have (but for intervals of an earlier cut, which comes down
 * first). */
void notices_merge(struct node *node, struct message *to, struct message *const *from, const struct reader *readers,
                   uint32_t froms, bool threads)
{
    uint64_t room = (uint64_t)node->size * sizeof(struct tail);
    struct tail *tails = pool_take_zeroed(&node->pool, room);
    struct notice_walk walks[TREE_CHILDREN + 1];
    bool more[TREE_CHILDREN + 1];
    find_tails(node, from, readers, froms, tails);
    for (uint32_t i = 0; i < froms; i++) {
        walks[i] = notices_begin(from[i], readers[i]);
        more[i] = notices_next(node, &walks[i]);
    }
    struct notice_list list = begin_list(node, to, threads);
    for (uint32_t lowest; (lowest = lowest_of(walks, more, froms)) < froms;) {
        const struct notice_walk *walk = &walks[lowest];
        if (tails[walk->node].from == lowest)
            put_interval(node, &list, walk->node, walk->stamp, walk->runs, walk->run_count);
        more[lowest] = notices_next(node, &walks[lowest]);
    }
    end_list(&list);
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

static struct interval *interval_of(struct node *node, const struct notice_walk *walk)
{
    uint64_t bytes = walk->run_count * (uint64_t)sizeof(struct run);
    struct interval *interval = pool_take(&node->pool, sizeof *interval + bytes);
    *interval = (struct interval){.node = walk->node, .run_count = walk->run_count, .stamp = walk->stamp};
    memcpy(interval->runs, walk->runs, bytes);
    return interval;
}

void notices_apply(struct node *node, const struct message *message, struct reader *reader)
{
    struct notice_walk walk = notices_begin(message, *reader);
    while (notices_next(node, &walk)) {
        if (walk.stamp <= node->vt[walk.node])
            continue;
        struct interval *interval = interval_of(node, &walk);
        node->vt[walk.node] = walk.stamp;
        interval_append(&node->logs[walk.node], &node->pool, interval);
        check_log(node, walk.node);
        for (uint32_t r = 0; r < interval->run_count; r++) {
            const struct run *run = &interval->runs[r];
            struct region *region = region_of_run(node, message, run);
            if (region)
                apply_run(node, interval, run, region);
            else if (run->region >= RUN_CLEARS_FLAG && !flag_notice(node, interval, run))
                context_malformed(node, message);
        }
    }
    if (!reader_ended(&walk.reader))
        context_malformed(node, message);
    *reader = walk.reader;
}
