/* Where the kernel has no room for one more mapping, everything is hidden, and opened again block by block. */
#include "protocol/coherence/alone.h"

#include "protocol/coherence/protection.h"

static uint64_t region_bytes(const struct region *region)
{
    return region->pages * region->page_bytes;
}

static struct range block_of(const struct node *node, const struct region *region, uint64_t index)
{
    uint64_t block = region_open_bytes(region, node->port), first = index * block, left = region_bytes(region) - first;
    return (struct range){.offset = region->offset + first, .bytes = left < block ? left : block};
}

static uint64_t index_of(const struct node *node, const struct region *region, uint64_t offset)
{
    return (offset - region->offset) / region_open_bytes(region, node->port);
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
    bool done = protection_close_graves(node);
    for (uint32_t i = 0; i < node->regions->count; i++)
        done &= protect_all(node, node->regions->live[i], ACCESS_NONE) == 0;
    if (!done)
        context_panic(node, "the kernel has no room for the mappings of the arrays (vm.max_map_count)");
}

/* The first write of a space to a block is to be seen. */
static bool traps(const struct node *node, const struct region *region)
{
    return region_is_large(region, node->port) && (region->initial || node->port->makes_huge);
}

bool alone_is_open(const struct node *node, uint64_t offset)
{
    const struct region *region = region_at(node->regions, offset);
    bool tracked = region && (region->opened || traps(node, region));
    return !tracked || (region->opened && region->opened[index_of(node, region, offset)].spaces >> node->me & 1);
}

struct range alone_block(const struct node *node, uint64_t offset)
{
    const struct region *region = region_at(node->regions, offset);
    if (!region)
        return (struct range){0};
    uint64_t index = index_of(node, region, offset);
    return region->opened && region->opened[index].spaces ? (struct range){0} : block_of(node, region, index);
}

void alone_open(struct node *node, struct region *region, uint64_t offset)
{
    uint64_t index = index_of(node, region, offset);
    struct range block = block_of(node, region, index);
    context_assert(node, alone_is(node), "alone: a block is opened that other nodes share");
    context_assert(node, offset - block.offset < block.bytes, "alone: a trap behind the array");
    if (!region->opened)
        region->opened = pool_take_zeroed(&node->pool, region_open_blocks(region, node->port) * sizeof *region->opened);
    struct open_block *open = &region->opened[index];
    if (open->spaces >> node->me & 1)
        return;
    if (!open->filled && region->initial)
        region_fill(region, node->port, block.offset - region->offset, block.bytes);
    open->filled = true;
    if (protect(node, block.offset, block.bytes, ACCESS_WRITE) != 0) {
        hide_all(node);
        if (protect(node, block.offset, block.bytes, ACCESS_WRITE) != 0)
            context_panic(node, "the kernel has no room for the mapping of a block (vm.max_map_count)");
    }
    open->spaces |= (uint64_t)1 << node->me;
}

void alone_show(struct node *node, struct region *region)
{
    context_assert(node, alone_is(node), "alone: other nodes may have written what is shown");
    if (!region->initial && protect_all(node, region, traps(node, region) ? ACCESS_READ : ACCESS_WRITE) != 0)
        hide_all(node);
    if (region->initial && !traps(node, region))
        for (uint64_t k = 0; k < region_open_blocks(region, node->port); k++)
            alone_open(node, region, block_of(node, region, k).offset);
}
