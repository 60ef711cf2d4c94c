/* table - things by number: locks, counters, flags.
 *
 * Pointers in a tree of arrays, each made by its first use.  A node may hear of a thing before it has heard of those of
 * smaller numbers, so there may be holes.  Nothing moves: a thread finds what it has made outside of the node's mutex.
 */
#pragma once

#include "protocol/base/pool.h"

enum { TABLE_WIDTH = 32, TABLE_LEVELS = 4, TABLE_MAX = 1 << 20 };

struct table {
    _Atomic(void *) root;
};

/* NULL: none. */
void *table_find(const struct table *table, uint32_t number);
/* There is none of this number yet, and it is below TABLE_MAX. */
void table_add(struct table *table, struct pool *pool, uint32_t number, void *thing);
/* The first thing whose number is *number or larger, and *number is then the next one.  NULL: none. */
void *table_next(const struct table *table, uint32_t *number);
/* The arrays, not the things. */
void table_fini(struct table *table, struct pool *pool);
