/* Where the kernel has no room for one more mapping, everything is hidden, and opened again block by block. */
#include "protocol/coherence/alone.h"

#include "protocol/page/region.h"

static uint64_t region_bytes(const struct region *region)
{
    return region->pages * region->page_bytes;
}

static int protect(struct node *node, uint64_t offset, uint64_t bytes, enum access access)
{
    node->stats[node->me].protects++;
    return node->port->protect(node->port->context, offset, bytes, access);
}

/* The protection of all of the region is set: its blocks trap again. */
static int protect_all(struct node *node, struct region *region, enum access access)
{
    for (uint64_t k = 0; region->opened && k < region_open_blocks(region, node->port); k++)
        region->opened[k].spaces &= ~((uint64_t)1 << node->me);
    return protect(node, region->offset, region_bytes(region), access);
}

static void hide_all(struct node *node)
{
    bool done = true;
    for (uint32_t i = 0; i < node->regions->count; i++)
        done &= protect_all(node, node->regions->live[i], ACCESS_NONE) == 0;
    if (!done)
        context_panic(node, "the kernel has no room for the mappings of the arrays (vm.max_map_count)");
}

void alone_show(struct node *node, struct region *region)
{
    context_assert(node, alone_is(node), "alone: other nodes may have written what is shown");
    if (!region->initial && protect_all(node, region, ACCESS_READ) != 0)
        hide_all(node);
}

void alone_open(struct node *node, struct region *region, uint64_t offset)
{
    uint64_t block = region_open_bytes(region, node->port), index = (offset - region->offset) / block;
    uint64_t first = index * block, left = region_bytes(region) - first, bytes = left < block ? left : block;
    context_assert(node, alone_is(node), "alone: a block is opened that other nodes share");
    context_assert(node, first < region_bytes(region), "alone: a trap behind the array");
    if (!region->opened)
        region->opened = pool_take_zeroed(&node->pool, region_open_blocks(region, node->port) * sizeof *region->opened);
    struct open_block *open = &region->opened[index];
    if (open->spaces >> node->me & 1)
        return;
    if (!open->filled && region->initial)
        region_fill(region, node->port, first, bytes);
    open->filled = true;
    if (protect(node, region->offset + first, bytes, ACCESS_WRITE) != 0) {
        hide_all(node);
        if (protect(node, region->offset + first, bytes, ACCESS_WRITE) != 0)
            context_panic(node, "the kernel has no room for the mapping of a block (vm.max_map_count)");
    }
    open->spaces |= (uint64_t)1 << node->me;
}
