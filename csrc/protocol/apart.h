/* apart - whole pages that travel behind their message: from the memory of the sender to where they belong at the receiver,
 * with no copy of ours on either side.
 *
 *   sender     served -> in `sending`, its bytes must not change -> node_sent
 *   receiver   wire has come: node_place -> in `arriving`; pages without a copy -> bytes have come: node_receive
 *
 * What would change a page that is being sent waits until it has been: a write fault is not answered, a fetch does not
 * start (what is being fetched already is served by a copy in the message).  Neither waits for the protocol of another
 * node: the bytes move whatever the receiver is doing, if only it looks for messages.
 *
 * A page is received in place if nothing is lost by it: no thread may be looking at what is there, there is no twin, and
 * what the sender has covers what is there.  (Own diffs go on top afterwards, R6; so where threads may be looking, because
 * the page is brought before they may see its new version, the sender must have these, too.)  Until its bytes are complete
 * there is no copy; a request for it is held until then (R13), which takes no more than the bytes that are on their way.
 *
 * Invariants
 *  1. A page is being sent only while it is not writable and not fetched (a fetch that has not started excepted).
 *  2. A page that is arriving has no copy, a fetch that awaits one reply, and no access but that of a page that is brought
 *     before anybody may see its new version (history_coming): what such a thread may read does not change under it.
 */
#ifndef PROTOCOL_APART_H
#define PROTOCOL_APART_H

#include "protocol/message.h"
#include "protocol/page.h"

struct node;

/* Shorter runs of pages travel in the message, unless the peer copies them itself: a copy costs less than a message more. */
enum { BULK_BYTES_MIN = 32 * 1024, BULK_BYTES_MAX = 1 << 30 };

/* The bytes of the page are on their way to somebody. */
bool bulk_leaves(const struct node *node, const struct page *page);
/* Bytes of this part of the range are on their way, from here or to here: it must not be used for anything else.  (Where it
 * belonged to an array that was freed, they are read by nobody.) */
bool bulk_uses(const struct node *node, uint64_t offset, uint64_t bytes);

/* These bytes of the range travel behind the message, after those that do so already. */
void bulk_put(struct node *node, struct message *message, uint64_t offset, uint64_t bytes);

#endif
