/* habit - what each node has named lately: two lists of runs of each node.
 *
 * The departures of threads teach it: of each node the last interval that a departure lists.  So between two of them
 * all nodes know the same lists (R19), and a meeting of threads names one in place of repeating it.  Steady
 * programs name the same pages in every step; those with two grids, in every second one.
 */
#pragma once

#include "protocol/base/context.h"
#include "protocol/page/interval.h"

enum { HABITS = 2, HABIT_RUNS_MAX = 128 };

struct habits {
    struct interval *(*lists)[HABITS]; /* of each node, the latest first; NULL: nothing was learned */
};

/* A departure lists it as the last one of its node. */
void habit_learn(struct node *node, const struct interval *interval);
/* Which of a node's lists has these runs, which lie at any alignment; HABITS: none. */
uint32_t habit_find(const struct node *node, node_id whose, const void *runs, uint32_t run_count);
/* NULL: none. */
const struct interval *habit_list(const struct node *node, node_id whose, uint32_t which);
void habits_fini(struct node *node);
