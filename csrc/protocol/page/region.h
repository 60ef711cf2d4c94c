/* region - one allocation: its addresses, its page size, the value that its pages begin with.
 *
 * The addresses of a region follow from the sequence of allocations alone, so that all nodes choose the same without a
 * message.  A region's number is never used again: a message that names a region that was freed is dropped.
 *
 * Invariants
 *  1. Regions do not overlap, and between two of them lies at least one granule that belongs to nobody.
 *  2. A page that has no struct yet holds the initial value, has no access, and is named by no notice that has come.
 */
#pragma once

#include "protocol/page/page.h"

/* Free addresses, in ascending order. */
struct range {
    uint64_t offset, bytes;
};

struct regions {
    struct region **live; /* ascending id */
    uint32_t count, capacity;
    struct region **by_offset; /* the same, ascending offset */
    uint32_t by_offset_capacity;
    struct range *gaps;
    uint32_t gap_count, gap_capacity;
    struct region_grave *graves; /* freed, addresses not yet used again */
    uint32_t grave_count, grave_capacity;
    region_id next_id;
    unsigned char *zeros; /* one granule */
    uint32_t spaces;
    struct region_stats *past; /* of each space: of regions that were freed */
};

/* A freed region whose addresses some rank may still hold in an array. */
struct region_grave {
    region_id id;
    uint64_t offset, bytes; /* with the granule behind it */
    uint64_t forgotten;     /* spaces without an array over it, a bit each */
    char name[REGION_NAME_BYTES];
};

void regions_init(struct regions *regions, struct pool *pool, uint32_t spaces);
void regions_fini(struct regions *regions, struct pool *pool);

/* NULL when no gap is large enough: nothing has changed then. */
struct region *region_add(struct regions *regions, struct pool *pool, uint64_t bytes, uint64_t page_bytes,
                          const void *initial, uint32_t initial_bytes, const char *name);
/* Makes the memory inaccessible and zero, and forgets the region; its addresses rest in a grave. */
void region_remove(struct regions *regions, struct pool *pool, struct region *region);
/* No rank holds an array over this freed region: its addresses may be used again. */
void region_release(struct regions *regions, struct pool *pool, region_id id);

/* The grave of a freed region whose addresses are not used again yet, or NULL. */
struct region_grave *region_grave(const struct regions *regions, region_id id);
/* A space has no array over it any more. */
void region_forget(struct regions *regions, region_id id, uint32_t space);

/* Put the initial value into bytes of the region's memory. */
void region_fill(const struct region *region, const struct port *port, uint64_t from, uint64_t bytes);
/* Large enough for huge pages, and placed for them. */
bool region_is_large(const struct region *region, const struct port *port);
/* The blocks in which a node that is alone opens the region (coherence/alone.h): their length and number. */
uint64_t region_open_bytes(const struct region *region, const struct port *port);
uint64_t region_open_blocks(const struct region *region, const struct port *port);

struct region *region_find(const struct regions *regions, region_id id);
struct region *region_at(const struct regions *regions, uint64_t offset);
const struct region_grave *region_grave_at(const struct regions *regions, uint64_t offset);

/* Of all regions, freed ones included. */
struct region_stats regions_total(const struct regions *regions, uint32_t space);
void regions_reset_stats(struct regions *regions, uint32_t space);

/* The page, made if it has no struct yet. */
struct page *region_page(struct region *region, struct pool *pool, uint64_t index);
/* The same, and how many pages from there on lie behind each other in memory, at most up to `end`. */
struct page *region_pages(struct region *region, struct pool *pool, uint64_t index, uint64_t end, uint64_t *count);
/* The page, or NULL if it has none. */
struct page *region_page_if(const struct region *region, uint64_t index);
