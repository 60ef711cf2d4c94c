/* evict - cached copies are given up while they take more than the bound (DSM_CACHE_BYTES).
 *
 * The node looks at the head of the queue (coherence/cache.h):
 *
 *   some space may touch it    that access is taken, and the page goes to the end of the queue: its second chance.  A
 *                              space changes its own access only; others are asked by the log of changes (`unwanted`)
 *   no touch since             the copy is given up, and its memory goes back to the kernel
 *   it must stay               it goes to the end of the queue
 *
 * What must stay (R16)
 *  1. A copy that another node may ask for: of a page that this node owns, or has owned since the last collection
 *     (`lent`: a node that has not passed the cut that chose another owner asks here), or that it has written or sealed
 *     since then (have[self]: a notice or a reply has named it).
 *  2. A page that is open, dirty, twinned, inspected, pinned, being fetched, listed to be refetched, or on its way to a
 *     reader (R17).
 *
 * So a copy that was given up can always be had again, from a writer that a notice has named, or from the owner: both
 * keep theirs by 1.  To the reader it is as if a collection had dropped it.  A collection ends the reasons of 1 but
 * ownership.  Where they keep a quarter of the bound, the node asks for one.
 */
#pragma once

#include "protocol/coherence/cache.h"

/* Give up what is beyond the bound.  Not while a collection holds, nor while a thread relies on its access. */
void evict_step(struct node *node);
/* A collection would free what the bound demands. */
bool evict_wants_collection(const struct node *node);
/* It has ended. */
void evict_collected(struct node *node);
