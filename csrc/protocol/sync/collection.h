/* collection - garbage collection: four meetings after which no node needs any diff, twin, vector or log.
 *
 * It is a meeting of the nodes, not of their threads, so that a program with locks only is collected, too.  Node 0
 * starts it when any node's protocol memory exceeds its budget.  COLLECT carries the collection's number and goes down
 * the tree; where it overtakes the last departure of the collection before, it is deferred until that comes.
 *
 *   COLLECT := uint64 number of the collection, the first is 1
 *
 *   IDLE        a node arrives at the first meeting
 *   ARRIVING    first departure
 *   HOLDING     no thread's fault starts a fetch; when the fetches under way have ended, the node arrives at the second
 *   CUTTING     threads went on writing until that arrival; from it on no notice is new.  Second departure
 *   VALIDATING  owners (and pins) fetch their pages; when they are up to date, the node arrives at the third
 *   DROPPING    third departure: every copy that is stale is dropped; the node arrives at the fourth
 *   FORGETTING  fourth departure: diffs, twins, vectors are forgotten; faults go on
 *   IDLE
 *
 * From CUTTING to FORGETTING no notice may be new: the owner would find its copy stale, and drop it.  Nobody is stopped
 * from writing all the same (H5): a page that may be written with no notice to come (coherence/preopened.h), or that
 * some space can write at all, is kept, and what is written there is owed a notice.  Until the notice leaves, every
 * reader is served the same snapshot, and nothing leaves the node that would order the writes before anything
 * elsewhere: neither a grant nor an arrival of its threads.  Neither is needed for the collection to end.
 *
 * Stamps at or below that of the last departure are implied from then on (context_known): a slower node that still
 * names them is not believed (reader_vector's floor).  Nor is it asked for the diffs that it still has from before: the
 * copies that were kept contain them, and later writes, which they would take away.
 */
#pragma once

#include "protocol/base/context.h"

/* Look whether it is time, and take the next step if it is due.  Called by node_settle. */
void collection_step(struct node *node);
/* The most that a collection can free: twins, diffs, vectors, logs. */
uint64_t collection_bytes(const struct node *node);
/* Node 0: start one now, unless one is under way.  Other nodes: ask for one. */
void collection_request(struct node *node);
/* A departure of the collection's meeting; `stamp` is the root's. */
void collection_departed(struct node *node, stamp stamp);
void collection_receive_request(struct node *node, const struct message *message);
void collection_receive_collect(struct node *node, struct message *message);
