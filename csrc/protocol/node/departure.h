/* departure - the steps of a node when a meeting departs.
 *
 * Departures are numbered in the order of the cuts, those of threads and of the collection together.  One that overtook
 * the one before is deferred.  Otherwise, in this order:
 *
 *   1. the departure goes on to the children.  A node that has some defers it until the copies have been taken out of
 *      the outbox (node_take_outbox): what follows takes a while where much was written, on each level of the tree.
 *      Until then the node is like one that the departure has not reached, and its children may be ahead
 *   2. its write notices are applied (sync/notices.h): pages become stale
 *   3. the cut is passed (sync/cut.h): owners are chosen, logs trimmed
 *   4. the meeting is DEPARTED, and its outcome is carried out: an allocation or a free.  A departure of
 *      the collection is IDLE at once, and takes the collection's next step (sync/collection.h)
 *   5. the update set is refetched (predict/update.h); deferred messages are delivered; waiting threads ask again
 */
#pragma once

#include "protocol/base/context.h"

void departure_receive(struct node *node, struct message *message);
