/* push - diffs that go ahead of the notice that makes them needed, to nodes that used the last ones (R9).
 *
 *   PUSH := page*
 *   page := uint32 region, uint32 0, uint64 page, uint64 bytes of what follows `since`, uint64 tag, uint64 since,
 *           vector have, uint32 diffs, (uint64 tag, uint64 bytes, body)*
 *
 * A push is an early reply (fetch.h): it is kept until a notice makes the page stale, and then begins the fetch, which ends
 * at once if nothing else is missing.  It is used only if it starts at or before what the copy has; what it says of other
 * writers' diffs (R3) counts as in a reply, but not before it is used.
 *
 * The diffs are cut before the interval closes, and claim to reach to its stamp: whatever is written later is found by the
 * next look (opening.c) and told by the next interval.
 */
#ifndef PROTOCOL_PUSH_H
#define PROTOCOL_PUSH_H

#include "protocol/message.h"

struct node;
struct page;
struct fetch;

/* Before an interval closes: cut what will be pushed of its pages, and after: send it. */
void push_encode(struct node *node, node_id to);
void push_send(struct node *node, node_id to, stamp closed);
void pushed_receive(struct node *node, struct message *message);
/* Begin a fetch with what was pushed. */
void pushed_use(struct node *node, struct fetch *fetch);

#endif
