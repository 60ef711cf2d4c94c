/* bulk - whole pages that travel behind their message: from the sender's memory to their place at the receiver, with no
 * copy of ours on either side.
 *
 *   sender     served -> in `sending`, its bytes must not change -> node_sent
 *   receiver   wire has come: node_place -> in `arriving`; pages without a copy -> bytes have come: node_receive
 *
 * While a page leaves, nothing may change it (R14): a write fault is not answered, a fetch does not start.  (A page
 * that is being fetched already is copied into the message.)  Neither waits for the protocol of another node: the bytes
 * move whatever the receiver does, if only it looks for messages.
 *
 * The receiver takes a page in its place if nothing is lost by it: no space can write it, there is no twin, and the
 * sender has all that the copy here has.  (This node's own diffs go on top afterwards, R6.  Where spaces that lag may
 * be looking, the sender must have these, too: H9.)  Until the bytes are complete there is no copy; a request for the
 * page is deferred until then (R15).
 *
 * Invariants
 *  1. A page leaves only while no space can write it and it is not fetched (a fetch that has not started excepted).
 *  2. An arriving page has no copy, a fetch that awaits one reply, and no space that can write it.  Spaces that lag may
 *     read it: what such a thread may read does not change under it.
 */
#pragma once

#include "protocol/page/page.h"

/* Shorter runs of pages travel in the message, unless the peer copies them itself: a copy costs less than a message
 * more. */
enum { BULK_BYTES_MIN = 32 * 1024, BULK_BYTES_MAX = 1 << 30 };

struct bulk {
    struct message *sending;  /* with segments, until the last byte of them has been taken */
    struct message *arriving; /* placed, and not received yet */
};

/* The bytes of the page are on their way to another node. */
bool bulk_leaves(const struct node *node, const struct page *page);
/* Bytes of this part of the range are on their way, from here or to here: it must not be used for anything else.
 * (Where it belonged to an array that was freed, no node reads them.) */
bool bulk_uses(const struct node *node, uint64_t offset, uint64_t bytes);
/* These bytes of the range travel behind the message, after those that do so already. */
void bulk_put(struct node *node, struct message *message, uint64_t offset, uint64_t bytes);
/* The message has room for one more segment of so many bytes, and they are worth it. */
bool bulk_worth(struct node *node, const struct message *message, uint64_t bytes);
