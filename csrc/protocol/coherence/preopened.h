/* preopened - pages that are open before they are written (R10).
 *
 * Opening a page ahead of its first write spares that fault.  A write to it cannot be seen when it happens, so every
 * preopened page is inspected before an interval closes: it is compared with its twin, which is what other nodes were
 * sent last.  A page that has changed belongs to the interval that closes.  An unchanged page belongs to none, and
 * costs no other node anything.
 *
 *   VALID -- preopened_open --> PREOPENED -- found changed --> dirty (writes.h)
 *                                   |  found unchanged: closed, or (`stays`) left open for some more inspections
 *
 * Invariants
 *  1. A preopened page is listed.  (A listed page may have been served or pinned since, and be preopened no longer.)
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
/* The page is open already; from here on it is preopened. */
void preopened_add(struct node *node, struct page *page, bool stays);
/* Does the page differ from its twin? */
bool preopened_changed(const struct node *node, const struct page *page);
/* Written in the open interval, or since it was preopened. */
bool preopened_written(const struct node *node, const struct page *page);
/* Before an interval closes: changed pages join the open interval. */
void preopened_inspect(struct node *node);
/* The same, and no page is preopened until preopened_resume: during a collection nothing may be written unseen. */
void preopened_pause(struct node *node);
void preopened_resume(struct node *node);
void preopened_remove_region(struct node *node, const struct region *region);
