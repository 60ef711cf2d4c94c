/* update - the update set: pages that threads here used in their last versions, and that are refetched as soon as a
 * notice names a new version (page/history.h), before the acquire or the barrier that received the notice returns.
 *
 *   notice -> update_stale: the page is listed -> update_bring, when all notices are in: what was pushed is used, and
 *   fetches start -> update_pump, as others arrive -> update_done: the acquire or the barrier may return
 *
 * A collection, in which no thread's page may be fetched, takes no page out of the set: that would end the predictions
 * of a whole program.
 */
#pragma once

#include "protocol/page/page.h"

struct update_set {
    struct page **pages; /* [first, count) are still to be refetched */
    uint32_t first, count, capacity;
    uint32_t learned; /* from here on they were named by the notices that are just taken in */
    uint32_t round;
    uint32_t batch;     /* of notices that came together */
    uint64_t fed_bytes; /* of pages that it listed since a writer's are all used */
};

struct interval;
struct run;

/* A notice makes the page stale. */
void update_stale(struct node *node, struct page *page);
/* A notice names a run of pages.  Not NULL: threads here use all that this writer names in this region ... */
const struct appetite *update_hungry(struct node *node, const struct interval *interval, const struct run *run,
                                     struct region *region);
/* ... so fetch this page of the run. */
void update_feed(struct node *node, struct page *page, const struct appetite *appetite);
/* All notices are in: use pushes, refetch the listed pages. */
void update_bring(struct node *node);
/* A PUSH: pages that are listed no more are brought up to date at once. */
void update_receive_push(struct node *node, struct message *message);
void update_pump(struct node *node);
/* No fetch of the update set is under way or to come. */
bool update_done(const struct node *node);
/* Nothing may be fetched now (a collection): the set is refetched with what the next notices name. */
void update_defer(struct node *node);
/* The copy was dropped, since no thread here looked at it: the next version is refetched all the same. */
void update_dropped(struct page *page);
void update_remove_region(struct node *node, const struct region *region);
