/* ledger - what a process counts of each page of the arrays that it watches, from the events of its node.
 *
 * The counts lie in one piece of memory, a page's beside its neighbours'; most of it is never touched.  Under the
 * node's mutex, but for the totals, which any thread reads.
 */
#pragma once

#include <stdatomic.h>

#include "runtime/runtime.h"

enum { LEDGER_REGIONS = 1 << 16, LEDGER_SPARE = 1 << 10 };

/* A piece of the memory. */
struct ledger_piece {
    struct dsm_profile_page *pages;
    uint64_t count;
};

struct ledger {
    int64_t began_ns;
    struct dsm_profile_page *memory;
    uint64_t used, room;
    struct ledger_piece *regions; /* by number */
    struct ledger_piece spare[LEDGER_SPARE];
    uint32_t spares;
    bool alone;    /* this process is all of its node */
    uint64_t left; /* arrays without room */
    uint64_t *asked;
    /* Pages brought up to date, bytes for them, and how often these came or were asked for; runs of own intervals. */
    _Atomic uint64_t pages, bytes, sources, runs;
    _Atomic int32_t peer; /* the last source */
};

/* NULL: no memory. */
struct ledger *ledger_new(const struct runtime *runtime);
/* An event of the node. */
void ledger_note(struct runtime *runtime, struct ledger *ledger, const struct event *event);
void ledger_watch(struct ledger *ledger, uint32_t region, uint64_t pages);
void ledger_unwatch(struct ledger *ledger, uint32_t region);
const struct dsm_profile_page *ledger_pages(const struct ledger *ledger, uint32_t region);
