/* alone - a node that is the whole job (H8): its spaces share memory as hardware does.
 *
 * Nobody else can read or write, so there is no page state, no twin, no notice and no message.  An array can be read
 * from the beginning, and is opened for writing by blocks, each at the first write of a space: one trap for each block
 * of the kernel's huge pages is the cheapest way to ask for one in time (port.h, `huge_bytes`).  An array that does not
 * begin with zeros is hidden until then, and the first trap of any space fills the block.
 *
 *   SHOWN, or HIDDEN where the initial value is not zero -- first trap of a space --> OPEN to this space, for good
 */
#pragma once

#include "protocol/page/region.h"

static inline bool alone_is(const struct node *node)
{
    return node->size == 1;
}

/* The block around a trap, if it has no memory yet as far as is known; else no bytes. */
struct range alone_block(const struct node *node, uint64_t offset);
/* A trap there: open the block around it. */
void alone_open(struct node *node, struct region *region, uint64_t offset);
/* A new region, to the space that is inside. */
void alone_show(struct node *node, struct region *region);
