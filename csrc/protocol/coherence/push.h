/* push - the writer's half of pushes: diffs that are sent ahead of the notice that makes them needed, to nodes that
 * used the last versions (R9).  The reader's half is pushed.h.
 *
 *   PUSH := page*
 *   page := uint32 region, uint32 0, uint64 page, uint64 bytes of what follows `since`, uint64 tag, uint64 since,
 *           vector have, diffs (wire.h)
 *
 * The diffs are encoded when the interval has closed, and reach to the stamp of the page's seal: later writes are found
 * by the next inspection (preopened.h) and named by the next interval.
 */
#pragma once

#include "protocol/page/page.h"

/* Notices of this node's intervals above `known` are about to leave, to `to` or (NODE_NONE) to all: push ahead of them
 * what subscribers lack of those pages. */
void push_send(struct node *node, node_id to, stamp known);
