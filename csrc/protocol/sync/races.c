/* Stretchs are taken in the order of their ends: Lamport stamps agree with happens-before, so what a stretch follows
 * has its clock already.  The accesses of one node to a page that are concurrent with one of another node are a
 * contiguous part of its list, whose two ends only move forwards. */
#include "protocol/sync/races.h"

#include "protocol/base/sort.h"
#include "protocol/coherence/stretch.h"
#include "protocol/sync/lock.h"
#include "protocol/sync/meeting.h"

/* ---- at the synchronising calls of a rank ----------------------------------------------------------------------- */

void races_before_release(struct node *node, uint32_t site)
{
    stretch_end(node, site, false);
}

void races_after_lock(struct node *node, const struct lock *lock, uint32_t site)
{
    stretch_end(node, site, false);
    accesses_after(node, lock->released_by, lock->released_at);
}

void races_after_flag(struct node *node, node_id setter, stamp set, uint32_t site)
{
    stretch_end(node, site, false);
    accesses_after(node, setter, set);
}

void races_before_meeting(struct node *node, uint32_t site)
{
    stretch_end(node, site, true);
    node->accesses->open.arrivals = node->meetings[MEETING_THREADS].passed + 1;
}

void races_after_meeting(struct node *node, uint32_t site)
{
    stretch_end(node, site, true);
    node->accesses->open.arrivals = node->accesses->open.departures = node->meetings[MEETING_THREADS].passed;
}

/* Threads may have gone on since the last call that synchronised. */
struct access_log races_take(struct node *node)
{
    stretch_end(node, node->accesses->open.began, true);
    return accesses_take(node);
}

/* ---- clocks ----------------------------------------------------------------------------------------------------- */

/* An access of a node. */
struct race_entry {
    const struct page_access *access;
    node_id node;
    bool kept; /* over several stretches */
};

struct comparison {
    const struct access_log *logs;
    node_id nodes;
    stamp **clocks;              /* of each node: for each of its stretches, one stamp for each node */
    struct race_entry **entries; /* by page, node, stretch */
    struct race *races;
    uint64_t room;
    struct races_found found;
};

static uint64_t all_stretches(const struct access_log *logs, node_id nodes)
{
    uint64_t count = 0;
    for (node_id q = 0; q < nodes; q++)
        count += logs[q].stretch_count;
    return count;
}

static uint64_t all_pages(const struct access_log *logs, node_id nodes)
{
    uint64_t count = 0;
    for (node_id q = 0; q < nodes; q++)
        count += logs[q].page_count;
    return count;
}

uint64_t races_scratch_bytes(const struct access_log *logs, node_id nodes)
{
    uint64_t width = (uint64_t)nodes, each_page = sizeof(struct race_entry) + sizeof(struct race_entry *);
    return width * (sizeof(stamp *) + 2 * sizeof(uint32_t)) + all_stretches(logs, nodes) * width * sizeof(stamp) +
           all_pages(logs, nodes) * each_page;
}

static stamp *clock_of(const struct comparison *comparison, node_id node, uint32_t stretch)
{
    return comparison->clocks[node] + (uint64_t)stretch * (uint64_t)comparison->nodes;
}

static bool ended_by(const struct stretch *stretch, stamp since)
{
    return stretch->end <= since;
}

static bool ended_before_arrival(const struct stretch *stretch, uint64_t arrival)
{
    return stretch->arrivals < arrival;
}

/* The stretches of the log for which it holds are its first ones: how many there are. */
static uint32_t count_first(const struct access_log *log, bool (*holds)(const struct stretch *, uint64_t),
                            uint64_t value)
{
    uint32_t low = 0, high = log->stretch_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (holds(&log->stretches[middle], value))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The clock comes after the first `count` stretches of a node. */
static void come_after(const struct comparison *comparison, stamp *clock, node_id node, uint32_t count)
{
    if (count == 0)
        return;
    const stamp *theirs = clock_of(comparison, node, count - 1);
    for (node_id q = 0; q < comparison->nodes; q++)
        if (theirs[q] > clock[q])
            clock[q] = theirs[q];
    stamp end = comparison->logs[node].stretches[count - 1].end;
    if (end > clock[node])
        clock[node] = end;
}

/* `edge`: the first of the log that belongs to no earlier stretch. */
static void set_clock(struct comparison *comparison, node_id node, uint32_t at, uint32_t *edge)
{
    const struct access_log *log = &comparison->logs[node];
    const struct stretch *stretch = &log->stretches[at];
    stamp *clock = clock_of(comparison, node, at);
    for (node_id q = 0; q < comparison->nodes; q++)
        clock[q] = 0;
    come_after(comparison, clock, node, at);
    if (stretch->departures > (at ? stretch[-1].departures : 0))
        for (node_id q = 0; q < comparison->nodes; q++)
            if (q != node)
                come_after(comparison, clock, q,
                           count_first(&comparison->logs[q], ended_before_arrival, stretch->departures));
    for (; *edge < log->edge_count && log->edges[*edge].stretch == at; ++*edge) {
        const struct stretch_edge *after = &log->edges[*edge];
        come_after(comparison, clock, after->node, count_first(&comparison->logs[after->node], ended_by, after->since));
    }
}

static void set_clocks(struct comparison *comparison, uint32_t *heads, uint32_t *edges)
{
    for (node_id q = 0; q < comparison->nodes; q++)
        heads[q] = edges[q] = 0;
    for (uint64_t left = all_stretches(comparison->logs, comparison->nodes); left > 0; left--) {
        node_id next = NODE_NONE;
        stamp end = 0;
        for (node_id q = 0; q < comparison->nodes; q++) {
            const struct access_log *log = &comparison->logs[q];
            if (heads[q] < log->stretch_count && (next == NODE_NONE || log->stretches[heads[q]].end < end)) {
                next = q;
                end = log->stretches[heads[q]].end;
            }
        }
        set_clock(comparison, next, heads[next], &edges[next]);
        heads[next]++;
    }
}

static bool precedes(const struct comparison *comparison, const struct race_entry *a, const struct race_entry *b)
{
    return comparison->logs[a->node].stretches[a->access->stretch].end <=
           clock_of(comparison, b->node, b->access->stretch)[a->node];
}

/* ---- bytes ------------------------------------------------------------------------------------------------------ */

static void report(struct comparison *comparison, enum race_kind kind, const struct race_entry *a,
                   const struct race_entry *b, struct byte_run bytes)
{
    if (comparison->found.count++ >= comparison->room)
        return;
    comparison->races[comparison->found.count - 1] =
        (struct race){.page = a->access->page,
                      .from = bytes.from,
                      .to = bytes.to,
                      .region = a->access->region,
                      .kind = kind,
                      .nodes = {a->node, b->node},
                      .stretches = {a->access->stretch, b->access->stretch}};
}

static const struct byte_run *runs_of(const struct comparison *comparison, const struct race_entry *entry)
{
    return comparison->logs[entry->node].runs + entry->access->run_first;
}

/* False: they wrote no byte in common. */
static bool compare_writes(struct comparison *comparison, const struct race_entry *a, const struct race_entry *b)
{
    const struct byte_run *x = runs_of(comparison, a), *x_end = x + a->access->run_count;
    const struct byte_run *y = runs_of(comparison, b), *y_end = y + b->access->run_count;
    bool common = false;
    while (x < x_end && y < y_end) {
        struct byte_run both = {.from = x->from > y->from ? x->from : y->from, .to = x->to < y->to ? x->to : y->to};
        if (both.from < both.to) {
            report(comparison, RACE_WRITES, a, b, both);
            common = true;
        }
        if (x->to < y->to)
            x++;
        else
            y++;
    }
    return common;
}

static void report_written(struct comparison *comparison, enum race_kind kind, const struct race_entry *writer,
                           const struct race_entry *reader)
{
    const struct byte_run *runs = runs_of(comparison, writer);
    uint32_t count = writer->access->run_count;
    if (kind == RACE_MAYBE_READ)
        report(comparison, kind, writer, reader, (struct byte_run){.from = runs[0].from, .to = runs[count - 1].to});
    else
        for (uint32_t i = 0; i < count; i++)
            report(comparison, kind, writer, reader, runs[i]);
}

static void compare_pair(struct comparison *comparison, const struct race_entry *a, const struct race_entry *b)
{
    bool a_wrote = a->access->run_count, b_wrote = b->access->run_count;
    if (a_wrote && b_wrote) {
        if (compare_writes(comparison, a, b))
            return;
        report_written(comparison, RACE_MAYBE_READ, a, b);
        report_written(comparison, RACE_MAYBE_READ, b, a);
    } else if (a_wrote) {
        report_written(comparison, RACE_READ, a, b);
    } else if (b_wrote) {
        report_written(comparison, RACE_READ, b, a);
    }
}

/* ---- pages ------------------------------------------------------------------------------------------------------ */

static bool entry_before(const void *a, const void *b)
{
    const struct race_entry *x = a, *y = b;
    if (x->access->region != y->access->region)
        return x->access->region < y->access->region;
    if (x->access->page != y->access->page)
        return x->access->page < y->access->page;
    return x->node != y->node ? x->node < y->node : x->access < y->access;
}

static bool same_page(const struct race_entry *a, const struct race_entry *b)
{
    return a->access->region == b->access->region && a->access->page == b->access->page;
}

/* Is some stretch, of those in which `kept` may have read, concurrent with the write?  Not what lies between an arrival
 * and its departure: a thread that waits there reads nothing. */
static bool is_beside(const struct comparison *comparison, const struct race_entry *kept,
                      const struct race_entry *writer)
{
    const struct access_log *log = &comparison->logs[kept->node];
    const stamp *clock = clock_of(comparison, writer->node, writer->access->stretch);
    uint32_t before = count_first(log, ended_by, clock[kept->node]), at = kept->access->run_first;
    at = before > at ? before : at;
    stamp end = comparison->logs[writer->node].stretches[writer->access->stretch].end;
    for (; at <= kept->access->stretch && clock_of(comparison, kept->node, at)[writer->node] < end; at++)
        if (log->stretches[at].arrivals == log->stretches[at].departures)
            return true;
    return false;
}

/* The accesses of one node to a page. */
struct race_span {
    struct race_entry **from, **end;
};

static struct race_span span_at(struct race_entry **from, struct race_entry **end)
{
    struct race_span span = {.from = from, .end = from};
    while (span.end < end && (*span.end)->node == (*from)->node)
        span.end++;
    return span;
}

/* There are few kept pages among the accesses. */
static void compare_kept(struct comparison *comparison, struct race_span readers, struct race_span writers)
{
    for (struct race_entry **a = readers.from; a < readers.end; a++)
        for (struct race_entry **b = writers.from; (*a)->kept && b < writers.end; b++)
            if ((*b)->access->run_count && is_beside(comparison, *a, *b))
                report_written(comparison, RACE_MAYBE_READ, *b, *a);
}

static void compare_spans(struct comparison *comparison, struct race_span mine, struct race_span theirs)
{
    enum { PAIRS_MAX = 1 << 16 };
    uint64_t pairs = 0;
    struct race_entry **low = theirs.from;
    for (struct race_entry **a = mine.from; a < mine.end; a++) {
        while (low < theirs.end && precedes(comparison, *low, *a))
            low++;
        for (struct race_entry **b = low; b < theirs.end && !precedes(comparison, *a, *b); b++) {
            if (++pairs > PAIRS_MAX) {
                comparison->found.pairs_skipped++;
                return;
            }
            if (!(*a)->kept && !(*b)->kept)
                compare_pair(comparison, *a, *b);
        }
    }
}

static void compare_page(struct comparison *comparison, struct race_entry **from, struct race_entry **end)
{
    for (struct race_span mine = span_at(from, end); mine.from < end; mine = span_at(mine.end, end))
        for (struct race_span theirs = span_at(mine.end, end); theirs.from < end; theirs = span_at(theirs.end, end)) {
            compare_spans(comparison, mine, theirs);
            compare_kept(comparison, mine, theirs);
            compare_kept(comparison, theirs, mine);
        }
}

/* ---- all of it -------------------------------------------------------------------------------------------------- */

static void list_entries(struct comparison *comparison, struct race_entry *room)
{
    uint64_t count = 0;
    for (node_id q = 0; q < comparison->nodes; q++)
        for (uint32_t i = 0; i < comparison->logs[q].page_count; i++, count++) {
            const struct page_access *access = &comparison->logs[q].pages[i];
            room[count] = (struct race_entry){.access = access, .node = q};
            room[count].kept = access->run_count == 0 && access->run_first != ACCESS_SEEN;
            comparison->entries[count] = &room[count];
        }
    sort_pointers((void **)comparison->entries, (uint32_t)count, entry_before);
}

struct races_found races_compare(const struct access_log *logs, node_id nodes, void *scratch, struct race *races,
                                 uint64_t room)
{
    struct comparison comparison = {.logs = logs, .nodes = nodes, .clocks = scratch, .races = races, .room = room};
    uint64_t count = all_pages(logs, nodes);
    stamp *clock = (stamp *)(void *)(comparison.clocks + nodes);
    for (node_id q = 0; q < nodes; q++) {
        comparison.clocks[q] = clock;
        clock += (uint64_t)logs[q].stretch_count * (uint64_t)nodes;
    }
    comparison.entries = (struct race_entry **)(void *)clock;
    struct race_entry *entries = (struct race_entry *)(void *)(comparison.entries + count);
    uint32_t *heads = (uint32_t *)(void *)(entries + count);
    set_clocks(&comparison, heads, heads + nodes);
    list_entries(&comparison, entries);
    struct race_entry **from = comparison.entries, **all = from + count;
    while (from < all) {
        struct race_entry **end = from;
        while (end < all && same_page(*from, *end))
            end++;
        compare_page(&comparison, from, end);
        from = end;
    }
    return comparison.found;
}
