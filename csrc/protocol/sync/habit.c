/* Long lists are not kept, nor those with flags, whose numbers change from step to step. */
#include "protocol/sync/habit.h"

#include <string.h>

static uint64_t table_bytes(const struct node *node)
{
    return (uint64_t)node->size * sizeof *node->habits->lists;
}

const struct interval *habit_list(const struct node *node, node_id whose, uint32_t which)
{
    return node->habits->lists ? node->habits->lists[whose][which] : NULL;
}

uint32_t habit_find(const struct node *node, node_id whose, const void *runs, uint32_t run_count)
{
    for (uint32_t which = 0; which < HABITS; which++) {
        const struct interval *list = habit_list(node, whose, which);
        if (list && list->run_count == run_count && memcmp(list->runs, runs, run_count * sizeof(struct run)) == 0)
            return which;
    }
    return HABITS;
}

static bool is_kept(const struct interval *interval)
{
    bool flags = false;
    for (uint32_t r = 0; r < interval->run_count; r++)
        flags |= interval->runs[r].region >= RUN_CLEARS_FLAG;
    return interval->run_count && interval->run_count <= HABIT_RUNS_MAX && !flags;
}

void habit_learn(struct node *node, const struct interval *interval)
{
    if (!is_kept(interval))
        return;
    if (!node->habits->lists) {
        node->habits->lists = pool_take_persistent(&node->pool, table_bytes(node));
        memset(node->habits->lists, 0, table_bytes(node));
    }
    struct interval **lists = node->habits->lists[interval->node];
    uint32_t which = habit_find(node, interval->node, interval->runs, interval->run_count);
    struct interval *list = which < HABITS ? lists[which] : NULL;
    if (!list) {
        which = HABITS - 1;
        if (lists[which])
            pool_give_persistent(&node->pool, lists[which], interval_bytes(lists[which]));
        list = pool_take_persistent(&node->pool, interval_bytes(interval));
        memcpy(list, interval, interval_bytes(interval));
    }
    memmove(lists + 1, lists, which * sizeof *lists);
    lists[0] = list;
}

void habits_fini(struct node *node)
{
    for (node_id q = 0; node->habits->lists && q < node->size; q++)
        for (uint32_t which = 0; which < HABITS; which++)
            if (node->habits->lists[q][which])
                pool_give_persistent(&node->pool, node->habits->lists[q][which],
                                     interval_bytes(node->habits->lists[q][which]));
    if (node->habits->lists)
        pool_give_persistent(&node->pool, node->habits->lists, table_bytes(node));
}
