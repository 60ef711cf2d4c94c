/* interval - the pages that a node modified between two synchronisations: write notices, as runs of pages.
 *
 * On the wire an interval is the same bytes everywhere, so that a node on the way up or down the tree of a meeting only
 * copies them:
 *
 *   interval := uint32 node, uint32 runs, uint64 stamp, run*
 *   run      := uint32 region, uint32 pages, uint64 first page
 *
 * A run of one of the last two regions names no pages: it sets or clears a flag (sync/flag.h), its first "page".
 *
 * Invariants (interval_check)
 *  1. Stamps in a log ascend, and every one is above the cut of its node.
 */
#pragma once

#include "protocol/base/pool.h"

/* No region has these numbers. */
#define RUN_SETS_FLAG UINT32_MAX
#define RUN_CLEARS_FLAG (UINT32_MAX - 1)

struct run {
    region_id region;
    uint32_t pages;
    uint64_t first;
};

struct interval {
    node_id node;
    uint32_t run_count;
    stamp stamp;
    struct run runs[];
};

size_t interval_bytes(const struct interval *interval);

/* Known intervals of one node since the last cut. */
struct interval_log {
    struct interval **items;
    uint32_t first, count, capacity;
};

/* The log takes the interval, which came from the pool with interval_bytes. */
void interval_append(struct interval_log *log, struct pool *pool, struct interval *interval);
void interval_trim(struct interval_log *log, struct pool *pool, stamp cut);
void interval_forget(struct interval_log *log, struct pool *pool);
/* The interval that closed at this stamp, or NULL. */
struct interval *interval_at(const struct interval_log *log, stamp closed);
/* Position of the first interval above `known`; items[first + position] ... */
uint32_t interval_after(const struct interval_log *log, stamp known);
void interval_check(const struct interval_log *log, stamp cut, const struct port *port);
