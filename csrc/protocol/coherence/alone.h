/* alone - a node that is the whole job (H8): its spaces share memory as hardware does.
 *
 * Nobody else can read or write, so there is no page state, no twin, no notice and no message.  A small array is open
 * to all from the beginning, as is any array of zeros where the kernel makes no huge pages.  A large one can be read,
 * and is opened for writing by blocks, each at the first write of a space: that trap is the moment to ask for a huge
 * page (port.h, `makes_huge`).  A large array that does not begin with zeros is hidden until then; the first trap of
 * any space fills the block.
 *
 *   SHOWN, or HIDDEN where the initial value is not zero -- first trap of a space --> OPEN to this space, for good
 */
#pragma once

#include "protocol/page/region.h"

static inline bool alone_is(const struct node *node)
{
    return node->size == 1;
}

/* The space that is inside may write there. */
bool alone_is_open(const struct node *node, uint64_t offset);
/* The block around a trap, if it has no memory yet as far as is known; else no bytes. */
struct range alone_block(const struct node *node, uint64_t offset);
/* A trap there: open the block around it. */
void alone_open(struct node *node, struct region *region, uint64_t offset);
/* A new region, to the space that is inside. */
void alone_show(struct node *node, struct region *region);
