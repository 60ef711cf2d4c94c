/* preopened - pages that may be written with no notice to come: because they were opened before they are written (R10),
 * or because a space that lags could still write them when they were sent (H3).
 *
 * Opening a page ahead of its first write spares that fault, and nobody can take access from another process.  A write
 * to such a page cannot be seen when it happens, so each is inspected before an interval closes: it is compared with
 * its twin, which is what other nodes were sent last.  A page that has changed belongs to the interval that closes.  An
 * unchanged page belongs to none, and costs no other node anything.
 *
 *   CLOSED -- preopened_open --> PREOPENED -- found changed --> OPEN, dirty (writes.h)
 *                                   |  found unchanged: left open for some more inspections (`stays`), or
 *                                   v
 *   sealed while some space -->  LAGGED    -- found changed --> CLOSED, dirty
 *   can write it                    |  found unchanged, and no space can write it any more
 *                                   v
 *                                CLOSED, without a twin
 *
 * During a collection nothing is inspected from the arrival at its second meeting on, since no notice may be new
 * (sync/collection.h): what was written then is *owed* a notice until its end.
 *
 * Invariants
 *  1. A PREOPENED or LAGGED page is listed.  (A listed page may be neither by now.)
 */
#pragma once

#include "protocol/page/page.h"

struct preopened {
    struct page **pages;
    uint32_t count, capacity;
};

/* The page will probably be written: open it.  `stays`: leave it open over some intervals in which it did not
 * change. */
bool preopened_open(struct node *node, struct page *page, bool stays);
/* It was sent as the snapshot that is its twin now: it stays open, or some space can still write it. */
void preopened_sent(struct node *node, struct page *page, bool stays_open);
/* Does the page differ from its twin? */
bool preopened_changed(const struct node *node, const struct page *page);
/* Written in the open interval, or since it was preopened. */
bool preopened_written(const struct node *node, const struct page *page);
/* Before an interval closes: changed pages join the open interval. */
void preopened_inspect(struct node *node);
/* Something was written that nobody may be told of before the collection ends (H5). */
bool preopened_owing(const struct node *node);
void preopened_remove_region(struct node *node, const struct region *region);
