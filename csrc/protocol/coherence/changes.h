/* changes - the pages whose access some space may have to give up, in the order in which they changed (H1).
 *
 * Nobody can take access from another process.  So a notice that makes a page stale, and a seal that leaves writers
 * behind, put the page into this log, and each space follows the log before a thread of it goes on after an acquire (of
 * a lock that never left the node, too) or a departure.  It asks for the state that the page has by then: valid again,
 * it keeps its access.  So a superset of the changes is right, and a space that the log has overtaken looks at all
 * pages.
 *
 * Race freedom makes it harmless to lag until then: a thread may touch bytes only that no other node has written, as
 * far as the thread has synchronised.
 *
 * Invariants
 *  1. What a space may touch beyond the page's state it has still to follow, or pins (changes_to_follow).
 */
#pragma once

#include "protocol/page/page.h"

enum { CHANGES_KEPT = 1024 };

/* Pages of a region; or, with no pages, a region that is new or was freed. */
struct change {
    region_id region;
    uint32_t pages;
    uint64_t first;
};

struct changes {
    struct change *log;        /* the last ones, or NULL: none yet */
    uint64_t kept;             /* how many the log holds: CHANGES_KEPT, or fewer */
    _Atomic uint64_t count;    /* changes so far */
    uint64_t followed;         /* the furthest that some space has followed */
    uint64_t seen[SPACES_MAX]; /* how far each has */
};

/* Some space may have more access than the page's state allows. */
void changes_add(struct node *node, const struct page *page);
/* The region is new, or was freed: each space shows it, or makes it inaccessible. */
void changes_add_region(struct node *node, region_id region);
/* There is something to follow for the space.  Its own process may ask outside of the node's mutex. */
static inline bool changes_due(const struct node *node, uint32_t space)
{
    return node->changes->seen[space] != node->changes->count;
}
/* The space that is inside follows: it gives up what it has beyond the state. */
void changes_follow(struct node *node);
/* Is the page among what the space has still to follow? */
bool changes_to_follow(const struct node *node, const struct page *page, uint32_t space);
