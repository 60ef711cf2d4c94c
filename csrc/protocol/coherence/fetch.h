/* fetch - brings one page up to date: the whole page from its latest writer, or diffs from all writers.
 *
 *   fetch_start -> a round of requests -> replies (reply.h) -> valid? -> end
 *                        ^                                       |
 *                        +------------------ no -----------------+
 *
 * A node without a copy asks the latest writer that a notice has named, else the owner.
 */
#pragma once

#include "protocol/coherence/install.h"

struct fetches {
    struct fetch *first; /* under way */
    uint32_t count;
    uint32_t postponed;         /* wait until a page has left by a bulk transfer */
    uint32_t updates_under_way; /* of the update set (predict/update.h), */
    uint64_t updates_bytes;     /* and their bytes */
};

/* Start to bring the page up to date.  It ends at once where a push has brought everything. */
void fetch_start(struct node *node, struct page *page, bool speculative);
/* The same for a page of the update set. */
void fetch_start_update(struct node *node, struct page *page, bool subscribes);
/* No reply is awaited: go on until one is, or until the page is valid. */
void fetch_continue(struct node *node, struct fetch *fetch);
/* Nothing of this page is to be pushed any more. */
void fetch_stop_pushes(struct node *node, struct page *page);
/* Something has been sent: start the fetches that waited for it. */
void fetch_resume(struct node *node);
/* One of the nodes that have been asked and have not answered, or NODE_NONE: of no fetch, too. */
static inline node_id fetch_awaits(const struct fetch *fetch)
{
    return fetch && fetch->awaited ? fetch->peer : NODE_NONE;
}
/* The region goes: give up the fetches of its pages. */
void fetch_remove_region(struct node *node, const struct region *region);
void fetch_cancel(struct node *node, struct fetch *fetch);
