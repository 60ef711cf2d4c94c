/* crowd - the first readers of one version of a page that this node has sent it to.
 *
 * They can serve it, too (R17).  Once a node has served a version to `most` readers, it sends further ones on to its
 * members, in turn, and these do the same (coherence/serve.h): readers of a version form a tree in the order of their
 * arrival.  What a page has (`have`) only grows between two collections, so the sum of its stamps names its version.
 *
 * Invariants
 *  1. Every member was sent the version: a node that waits for it waits for a message that has left.
 *  2. A collection forgets all crowds (R8).
 */
#pragma once

#include "protocol/page/page.h"

enum { CROWD_MEMBERS = 2 };

struct crowd_member {
    stamp asked; /* of the message that requested it */
    node_id node;
    uint32_t unused;
};

struct crowd {
    uint64_t version;
    struct crowd_member members[CROWD_MEMBERS];
    uint32_t count;  /* of members */
    uint32_t served; /* readers, members included, and those that were sent on */
};

/* The member to ask in this node's place, or NULL: this node serves it.  `preferred`, if that is a member. */
const struct crowd_member *crowd_turn(struct page *page, node_id reader, uint32_t most, node_id preferred);
/* The page has been sent to the reader, which requested it by a message of the stamp `asked`. */
void crowd_add(struct page *page, struct pool *pool, node_id reader, stamp asked);
void crowd_forget(struct page *page, struct pool *pool);
