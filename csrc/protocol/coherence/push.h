/* push - the writer's half of pushes: diffs that are sent ahead of the notice that makes them needed, to nodes that
 * used the last versions (R9).  The reader's half is pushed.h.
 *
 *   PUSH := page*
 *   page := uint32 region, uint32 0, uint64 page, uint64 bytes of what follows `since`, uint64 tag, uint64 since,
 *           vector have, diffs (wire.h)
 *
 * The diffs are encoded before the interval closes, and claim to reach to its stamp: later writes are found by the next
 * inspection (preopened.h) and named by the next interval.
 */
#pragma once

#include "protocol/page/page.h"

/* Before an interval closes: encode the diffs that subscribers lack, for `to` or (NODE_NONE) all; and after: send
 * them. */
void push_encode(struct node *node, node_id to);
void push_send(struct node *node, node_id to, stamp closed);
