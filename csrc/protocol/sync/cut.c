/* The owner stays if it wrote the page, too; otherwise the last writer becomes the owner.  With several writers that
 * takes three passes over the pages, since nothing may be allocated for each. */
#include "protocol/sync/cut.h"

#include "protocol/base/sort.h"
#include "protocol/coherence/cache.h"
#include "protocol/page/interval.h"
#include "protocol/page/region.h"
#include "protocol/sync/habit.h"
#include "protocol/sync/notices.h"

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
    for (struct notice_walk walk = notices_begin(message, reader); notices_next(node, &walk);) {
        if (walk.stamp <= node->cut[walk.node])
            continue;
        struct interval *interval = interval_at(&node->logs[walk.node], walk.stamp);
        if (!interval)
            context_malformed(node, message);
        context_assert(node, interval->node == walk.node, "cut: an interval lies in another node's log");
        list.items = pool_grow(&node->pool, list.items, &list.capacity, list.count + 1, sizeof(struct interval *));
        list.items[list.count++] = interval;
    }
    return list;
}

static void note_writer(struct node *node, const struct interval *interval, struct page *page)
{
    (void)node;
    page->cut_owner_wrote |= interval->node == page->owner;
}

static void choose_owner(struct node *node, const struct interval *interval, struct page *page)
{
    if (!page->cut_owner_wrote && page->owner != interval->node)
        cache_owner(node, page, interval->node);
}

static void forget_writer(struct node *node, const struct interval *interval, struct page *page)
{
    (void)node;
    (void)interval;
    page->cut_owner_wrote = false;
}

/* Call `apply` for every page that the intervals name, in their order. */
static void for_cut_pages(struct node *node, const struct cut_list *list,
                          void (*apply)(struct node *node, const struct interval *interval, struct page *page))
{
    for (uint32_t i = 0; i < list->count; i++)
        for (uint32_t r = 0; r < list->items[i]->run_count; r++) {
            const struct run *run = &list->items[i]->runs[r];
            struct region *region = region_find(node->regions, run->region);
            uint64_t behind, end = run->first + run->pages;
            for (uint64_t at = run->first; region && at < end; at += behind) {
                struct page *page = region_pages(region, &node->pool, at, end, &behind);
                for (uint64_t k = 0; k < behind; k++)
                    apply(node, list->items[i], page + k);
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
    sort_pointers((void **)list->items, list->count, interval_before);
    for_cut_pages(node, list, note_writer);
    for_cut_pages(node, list, choose_owner);
    for_cut_pages(node, list, forget_writer);
}

/* After all were read: a list that is learned may take the place of one that the departure names. */
static void learn(struct node *node, const struct cut_list *list)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (list->items[i]->stamp == node->cut[list->items[i]->node])
            habit_learn(node, list->items[i]);
}

void cut_pass(struct node *node, const struct message *message, struct reader reader, bool teaches)
{
    struct cut_list list = read_cut(node, message, reader);
    context_assert(node,
                   list.count == 0 || node->collection.phase <= COLLECTION_CUTTING ||
                       node->collection.phase == COLLECTION_VALIDATING,
                   "cut: an interval was closed while none may be (R8)");
    choose_owners(node, &list);
    for (uint32_t i = 0; i < list.count; i++)
        if (list.items[i]->stamp > node->cut[list.items[i]->node])
            node->cut[list.items[i]->node] = list.items[i]->stamp;
    if (teaches)
        learn(node, &list);
    if (list.items)
        pool_give(&node->pool, list.items, list.capacity * sizeof(struct interval *));
    for (node_id q = 0; q < node->size; q++) {
        context_assert(node, node->cut[q] <= node->vt[q], "cut: it lists an interval that is not known here (R7)");
        interval_trim(&node->logs[q], &node->pool, node->cut[q]);
    }
    node->cuts++;
}
