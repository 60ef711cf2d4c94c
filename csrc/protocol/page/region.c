/* First fit over the gaps, in ascending order of addresses: simple, and the same on all nodes, which is what counts. */
#include "protocol/page/region.h"
#include "protocol/page/crowd.h"

#include <string.h>

#include "protocol/page/history.h"

void regions_init(struct regions *regions, struct pool *pool, uint32_t spaces)
{
    const struct port *port = pool->port;
    memset(regions, 0, sizeof *regions);
    regions->next_id = 1;
    regions->spaces = spaces;
    regions->past = pool_take_zeroed(pool, spaces * sizeof *regions->past);
    regions->zeros = pool_take_zeroed(pool, port->granule_bytes);
    regions->gaps = pool_grow(pool, NULL, &regions->gap_capacity, 1, sizeof *regions->gaps);
    regions->gaps[0] = (struct range){.offset = 0, .bytes = port->range_bytes};
    regions->gap_count = 1;
}

/* Smaller regions than so many huge pages have little to gain from them. */
enum { HUGE_FROM = 2 };

static bool is_large(uint64_t bytes, const struct port *port)
{
    return bytes >= HUGE_FROM * (uint64_t)port->huge_bytes;
}

bool region_is_large(const struct region *region, const struct port *port)
{
    return is_large(region->pages * region->page_bytes, port);
}

uint64_t region_open_bytes(const struct region *region, const struct port *port)
{
    return port->huge_bytes > region->page_bytes ? port->huge_bytes : region->page_bytes;
}

uint64_t region_open_blocks(const struct region *region, const struct port *port)
{
    uint64_t block = region_open_bytes(region, port);
    return (region->pages * region->page_bytes + block - 1) / block;
}

void region_fill(const struct region *region, const struct port *port, uint64_t from, uint64_t bytes)
{
    unsigned char *view = port->view + region->offset + from;
    for (uint64_t at = 0; at < bytes; at += port->granule_bytes)
        memcpy(view + at, region->initial, port->granule_bytes);
}

static void region_free(const struct regions *regions, struct region *region, struct pool *pool)
{
    for (struct page_block *block = region->touched, *next; block; block = next) {
        next = block->next;
        for (int i = 0; i < REGION_BLOCK_PAGES; i++) {
            struct page *page = &block->pages[i];
            page_twin_drop(page, pool);
            page_diffs_drop(page, pool);
            vector_clear(&page->need, pool);
            vector_clear(&page->have, pool);
            crowd_forget(page, pool);
            history_free(page, pool);
            page_tidy(page, pool);
        }
        pool_give_persistent(pool, block, sizeof *block);
    }
    uint64_t blocks = (region->pages + REGION_BLOCK_PAGES - 1) / REGION_BLOCK_PAGES;
    pool_give(pool, region->blocks, blocks * sizeof(struct page_block *));
    if (region->appetites.items)
        pool_give(pool, region->appetites.items, region->appetites.capacity * sizeof *region->appetites.items);
    if (region->opened)
        pool_give(pool, region->opened, region_open_blocks(region, pool->port) * sizeof *region->opened);
    if (region->initial)
        pool_give(pool, region->initial, pool->port->granule_bytes);
    pool_give(pool, region->stats, regions->spaces * sizeof *region->stats);
    pool_give(pool, region, sizeof *region);
}

void regions_fini(struct regions *regions, struct pool *pool)
{
    for (uint32_t i = 0; i < regions->count; i++)
        region_free(regions, regions->live[i], pool);
    if (regions->live)
        pool_give(pool, regions->live, regions->capacity * sizeof(struct region *));
    if (regions->by_offset)
        pool_give(pool, regions->by_offset, regions->by_offset_capacity * sizeof(struct region *));
    if (regions->graves)
        pool_give(pool, regions->graves, regions->grave_capacity * sizeof *regions->graves);
    pool_give(pool, regions->gaps, regions->gap_capacity * sizeof *regions->gaps);
    pool_give(pool, regions->zeros, pool->port->granule_bytes);
    pool_give(pool, regions->past, regions->spaces * sizeof *regions->past);
    memset(regions, 0, sizeof *regions);
}

/* ---- addresses ----------------------------------------------------------------------------------------------- */

static uint64_t round_up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

static void gap_insert(struct regions *regions, struct pool *pool, uint32_t at, struct range gap)
{
    regions->gaps = pool_grow(pool, regions->gaps, &regions->gap_capacity, regions->gap_count + 1, sizeof gap);
    memmove(regions->gaps + at + 1, regions->gaps + at, (regions->gap_count - at) * sizeof gap);
    regions->gaps[at] = gap;
    regions->gap_count++;
}

static void gap_remove(struct regions *regions, uint32_t at)
{
    regions->gap_count--;
    memmove(regions->gaps + at, regions->gaps + at + 1, (regions->gap_count - at) * sizeof *regions->gaps);
}

/* Take `bytes` at a multiple of `unit`; the offset, or UINT64_MAX. */
static uint64_t range_take(struct regions *regions, struct pool *pool, uint64_t bytes, uint64_t unit)
{
    for (uint32_t i = 0; i < regions->gap_count; i++) {
        struct range gap = regions->gaps[i];
        uint64_t offset = round_up(gap.offset, unit), end = gap.offset + gap.bytes;
        if (offset > end || end - offset < bytes)
            continue;
        gap_remove(regions, i);
        if (offset + bytes < end)
            gap_insert(regions, pool, i, (struct range){offset + bytes, end - offset - bytes});
        if (gap.offset < offset)
            gap_insert(regions, pool, i, (struct range){gap.offset, offset - gap.offset});
        return offset;
    }
    return UINT64_MAX;
}

static void range_give(struct regions *regions, struct pool *pool, uint64_t offset, uint64_t bytes)
{
    uint32_t at = 0;
    while (at < regions->gap_count && regions->gaps[at].offset < offset)
        at++;
    gap_insert(regions, pool, at, (struct range){offset, bytes});
    if (at + 1 < regions->gap_count && offset + bytes == regions->gaps[at + 1].offset) {
        regions->gaps[at].bytes += regions->gaps[at + 1].bytes;
        gap_remove(regions, at + 1);
    }
    if (at > 0 && regions->gaps[at - 1].offset + regions->gaps[at - 1].bytes == offset) {
        regions->gaps[at - 1].bytes += regions->gaps[at].bytes;
        gap_remove(regions, at);
    }
}

/* ---- regions ------------------------------------------------------------------------------------------------- */

static uint32_t position_by_offset(const struct regions *regions, uint64_t offset)
{
    uint32_t low = 0, high = regions->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (regions->by_offset[middle]->offset > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static uint32_t position_by_id(const struct regions *regions, region_id id)
{
    uint32_t low = 0, high = regions->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (regions->live[middle]->id >= id)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static void list_insert(struct region **list, uint32_t at, uint32_t count, struct region *region)
{
    memmove(list + at + 1, list + at, (count - at) * sizeof *list);
    list[at] = region;
}

static void list_remove(struct region **list, uint32_t at, uint32_t count)
{
    memmove(list + at, list + at + 1, (count - at - 1) * sizeof *list);
}

static void set_initial(struct region *region, struct pool *pool, const unsigned char *initial, uint32_t initial_bytes)
{
    uint32_t granule = pool->port->granule_bytes;
    bool zero = true;
    for (uint32_t i = 0; i < initial_bytes; i++)
        zero = zero && initial[i] == 0;
    if (zero)
        return;
    region->initial = pool_take(pool, granule);
    for (uint32_t at = 0; at < granule; at += initial_bytes)
        memcpy(region->initial + at, initial, initial_bytes);
    region->constant = region->initial;
}

struct region *region_add(struct regions *regions, struct pool *pool, uint64_t bytes, uint64_t page_bytes,
                          const void *initial, uint32_t initial_bytes, const char *name)
{
    uint64_t granule = pool->port->granule_bytes, whole = round_up(bytes, page_bytes);
    if (whole < bytes || whole > pool->port->range_bytes)
        return NULL;
    uint64_t huge = pool->port->huge_bytes;
    uint64_t unit = is_large(whole, pool->port) && page_bytes < huge ? huge : page_bytes;
    uint64_t offset = range_take(regions, pool, whole + granule, unit);
    if (offset == UINT64_MAX)
        return NULL;
    struct region *region = pool_take_zeroed(pool, sizeof *region);
    region->id = regions->next_id++;
    region->offset = offset;
    region->bytes = bytes;
    region->page_bytes = page_bytes;
    region->pages = whole / page_bytes;
    region->constant = regions->zeros;
    strncpy(region->name, name ? name : "", REGION_NAME_BYTES - 1);
    if (initial)
        set_initial(region, pool, initial, initial_bytes);
    uint64_t blocks = (region->pages + REGION_BLOCK_PAGES - 1) / REGION_BLOCK_PAGES;
    region->blocks = pool_take_zeroed(pool, blocks * sizeof(struct page_block *));
    region->stats = pool_take_zeroed(pool, regions->spaces * sizeof *region->stats);

    uint32_t count = regions->count;
    regions->live = pool_grow(pool, regions->live, &regions->capacity, count + 1, sizeof(struct region *));
    regions->by_offset =
        pool_grow(pool, regions->by_offset, &regions->by_offset_capacity, count + 1, sizeof(struct region *));
    list_insert(regions->by_offset, position_by_offset(regions, offset), count, region);
    regions->live[count] = region;
    regions->count++;
    return region;
}

_Static_assert(sizeof(struct region_stats) % sizeof(uint64_t) == 0, "statistics of a region are numbers of 64 bits");

static void add_stats(struct region_stats *to, const struct region_stats *from)
{
    for (size_t i = 0; i < sizeof *to / sizeof(uint64_t); i++)
        ((uint64_t *)to)[i] += ((const uint64_t *)from)[i];
}

void region_remove(struct regions *regions, struct pool *pool, struct region *region)
{
    regions->graves =
        pool_grow(pool, regions->graves, &regions->grave_capacity, regions->grave_count + 1, sizeof *regions->graves);
    struct region_grave *grave = &regions->graves[regions->grave_count++];
    *grave = (struct region_grave){
        .id = region->id,
        .offset = region->offset,
        .bytes = region->pages * region->page_bytes + pool->port->granule_bytes,
    };
    memcpy(grave->name, region->name, REGION_NAME_BYTES);
    for (uint32_t space = 0; space < regions->spaces; space++)
        add_stats(&regions->past[space], &region->stats[space]);
    pool->port->discard(pool->port->context, region->offset, region->pages * region->page_bytes);
    list_remove(regions->by_offset, position_by_offset(regions, region->offset) - 1, regions->count);
    list_remove(regions->live, position_by_id(regions, region->id), regions->count);
    regions->count--;
    region_free(regions, region, pool);
}

void region_release(struct regions *regions, struct pool *pool, region_id id)
{
    for (uint32_t i = 0; i < regions->grave_count; i++)
        if (regions->graves[i].id == id) {
            range_give(regions, pool, regions->graves[i].offset, regions->graves[i].bytes);
            regions->graves[i] = regions->graves[--regions->grave_count];
            return;
        }
}

struct region_stats regions_total(const struct regions *regions, uint32_t space)
{
    struct region_stats total = regions->past[space];
    for (uint32_t i = 0; i < regions->count; i++)
        add_stats(&total, &regions->live[i]->stats[space]);
    return total;
}

void regions_reset_stats(struct regions *regions, uint32_t space)
{
    regions->past[space] = (struct region_stats){0};
    for (uint32_t i = 0; i < regions->count; i++)
        regions->live[i]->stats[space] = (struct region_stats){0};
}

struct region *region_find(const struct regions *regions, region_id id)
{
    uint32_t at = position_by_id(regions, id);
    return at < regions->count && regions->live[at]->id == id ? regions->live[at] : NULL;
}

struct region *region_at(const struct regions *regions, uint64_t offset)
{
    uint32_t after = position_by_offset(regions, offset);
    if (after == 0)
        return NULL;
    struct region *region = regions->by_offset[after - 1];
    return offset - region->offset < region->pages * region->page_bytes ? region : NULL;
}

struct region_grave *region_grave(const struct regions *regions, region_id id)
{
    for (uint32_t i = 0; i < regions->grave_count; i++)
        if (regions->graves[i].id == id)
            return &regions->graves[i];
    return NULL;
}

void region_forget(struct regions *regions, region_id id, uint32_t space)
{
    struct region_grave *grave = region_grave(regions, id);
    if (grave)
        grave->forgotten |= (uint64_t)1 << space;
}

const struct region_grave *region_grave_at(const struct regions *regions, uint64_t offset)
{
    for (uint32_t i = 0; i < regions->grave_count; i++)
        if (offset >= regions->graves[i].offset && offset - regions->graves[i].offset < regions->graves[i].bytes)
            return &regions->graves[i];
    return NULL;
}

/* The pool rounds up to powers of two: a block that is a little larger than one would take nearly twice its size. */
_Static_assert(sizeof(struct page_block) <= 4096 && sizeof(struct page_block) + sizeof(struct page) > 4096,
               "a block of pages fills 4 KiB");

static struct page_block *make_block(struct region *region, struct pool *pool, uint64_t first)
{
    struct page_block *block = pool_take_persistent(pool, sizeof *block);
    block->next = region->touched;
    block->region = region;
    block->first = first;
    region->touched = block;
    for (int i = 0; i < REGION_BLOCK_PAGES; i++)
        block->pages[i] = (struct page){.owner = NODE_NONE, .slot = (uint8_t)(i & 0x7f), .copy = true, .fresh = true};
    return block;
}

struct page *region_page(struct region *region, struct pool *pool, uint64_t index)
{
    struct page_block **block = &region->blocks[index / REGION_BLOCK_PAGES];
    if (!*block)
        *block = make_block(region, pool, index / REGION_BLOCK_PAGES * REGION_BLOCK_PAGES);
    return &(*block)->pages[index % REGION_BLOCK_PAGES];
}

struct page *region_pages(struct region *region, struct pool *pool, uint64_t index, uint64_t end, uint64_t *count)
{
    uint64_t left = REGION_BLOCK_PAGES - index % REGION_BLOCK_PAGES;
    *count = left < end - index ? left : end - index;
    return region_page(region, pool, index);
}

struct page *region_page_if(const struct region *region, uint64_t index)
{
    struct page_block *block = region->blocks[index / REGION_BLOCK_PAGES];
    return block ? &block->pages[index % REGION_BLOCK_PAGES] : NULL;
}
