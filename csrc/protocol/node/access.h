/* access - how threads come to pages: faults, and pins, which promise that no fault will come. */
#pragma once

#include "protocol/base/context.h"

enum access_answer {
    ACCESS_DONE,   /* the protection allows the access now: retry it */
    ACCESS_WAIT,   /* ask again after the next wake */
    ACCESS_OUTSIDE /* no region there */
};

/* A thread touched `offset`.  `first` on the first of a series of equal questions (statistics). */
enum access_answer access_fault(struct node *node, uint64_t offset, bool write, bool first);

/* A node that is to answer before the page at `offset` is here, or NODE_NONE. */
node_id access_awaited(const struct node *node, uint64_t offset);

/* Pins: the page at `offset` must be accessible (access_fault said DONE under the same hold of the mutex). */
void access_pin(struct node *node, uint64_t offset, bool write);
void access_unpin(struct node *node, uint64_t offset, bool write);
/* Before a thread goes on after an acquire or a departure: is there anything to do for access_caught_up? */
bool access_behind(const struct node *node);
/* The space follows the changes (coherence/changes.h), and the fetches that its pinned pages need are started.  True
 * when these are up to date, and the update set is here: the thread may go on. */
bool access_caught_up(struct node *node);
