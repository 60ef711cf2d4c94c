/* Small blocks are cut from chunks and never go back to the system; large ones (from 64 KiB on) are chunks of their
 * own, of which a bounded amount is kept: a fresh page of memory costs the kernel microseconds, a kept one nothing.
 *
 * Four classes to a doubling, because the diff of a page that was written all over is a little longer than a page: in
 * a class of twice its size each of them would take two fresh pages of memory. */
#include "protocol/base/pool.h"

#include <string.h>

enum {
    SMALLEST_BITS = 4, /* 16 bytes */
    QUARTERS_BITS = 6, /* from 64 bytes on a quarter keeps the alignment */
    LARGE_BYTES = 1 << 16,
    CHUNK_BYTES = 1 << 20,
    KEPT_BYTES_MAX = 64 << 20,
    TOUCHED_BYTES_MAX = 128 << 10
};

struct pool_block {
    struct pool_block *next;
};

struct pool_chunk {
    struct pool_chunk *next;
    uint64_t unused;
};

/* Classes 4k+1 to 4k+4 are the quarters of the way from 16 << k bytes to twice as many; class 0 is 16 bytes. */
static unsigned class_of(size_t bytes, size_t *size)
{
    *size = (size_t)1 << SMALLEST_BITS;
    if (bytes <= *size)
        return 0;
    unsigned bits = 63 - (unsigned)__builtin_clzll(bytes - 1);
    size_t below = (size_t)1 << bits, quarter = bits < QUARTERS_BITS ? 3 : ((bytes - 1) >> (bits - 2)) & 3;
    *size = below + (quarter + 1) * (below / 4);
    return 4 * (bits - SMALLEST_BITS) + (unsigned)quarter + 1;
}

void pool_init(struct pool *pool, const struct port *port)
{
    memset(pool, 0, sizeof *pool);
    pool->port = port;
}

void pool_fini(struct pool *pool)
{
    size_t size = LARGE_BYTES;
    for (unsigned class = class_of(size, &size); class < POOL_CLASSES; class = class_of(size + 1, &size))
        for (struct pool_block *block = pool->free[class], *next; block; block = next) {
            next = block->next;
            pool->port->chunk_free(pool->port->context, block, size);
        }
    for (struct pool_chunk *chunk = pool->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        pool->port->chunk_free(pool->port->context, chunk, CHUNK_BYTES);
    }
    memset(pool->free, 0, sizeof pool->free);
    pool->chunks = NULL;
}

static void *carve_fresh(struct pool *pool, size_t bytes)
{
    if (pool->fresh_bytes < bytes) {
        struct pool_chunk *chunk = pool->port->chunk(pool->port->context, CHUNK_BYTES);
        chunk->next = pool->chunks;
        pool->chunks = chunk;
        pool->fresh = (unsigned char *)(chunk + 1);
        pool->fresh_bytes = CHUNK_BYTES - sizeof *chunk;
        pool->touched = pool->fresh;
    }
    void *block = pool->fresh;
    pool->fresh += bytes;
    pool->fresh_bytes -= bytes;
    return block;
}

bool pool_touch(struct pool *pool)
{
    if (pool->touched < pool->fresh)
        pool->touched = pool->fresh;
    size_t prepared = (size_t)(pool->touched - pool->fresh);
    if (prepared >= pool->fresh_bytes || prepared >= TOUCHED_BYTES_MAX)
        return false;
    *(volatile unsigned char *)pool->touched = 0;
    size_t granule = pool->port->granule_bytes;
    pool->touched += granule - ((uintptr_t)pool->touched & (granule - 1));
    return true;
}

void *pool_take(struct pool *pool, size_t bytes)
{
    size_t size;
    unsigned class = class_of(bytes, &size);
    pool->bytes_used += size;
    if (pool->bytes_used > pool->bytes_used_max)
        pool->bytes_used_max = pool->bytes_used;
    struct pool_block *block = pool->free[class];
    if (block) {
        pool->free[class] = block->next;
        if (size >= LARGE_BYTES)
            pool->kept_bytes -= size;
        return block;
    }
    if (size >= LARGE_BYTES)
        return pool->port->chunk(pool->port->context, size);
    return carve_fresh(pool, size);
}

void *pool_take_zeroed(struct pool *pool, size_t bytes)
{
    /* A new large chunk is zero already: touching it would cost a table of a terabyte its sparseness. */
    size_t size;
    unsigned class = class_of(bytes, &size);
    bool clean = size >= LARGE_BYTES && !pool->free[class];
    void *block = pool_take(pool, bytes);
    if (!clean)
        memset(block, 0, bytes);
    return block;
}

void pool_give(struct pool *pool, void *block, size_t bytes)
{
    size_t size;
    unsigned class = class_of(bytes, &size);
    pool->bytes_used -= size;
    if (size >= LARGE_BYTES) {
        if (pool->kept_bytes + size > KEPT_BYTES_MAX) {
            pool->port->chunk_free(pool->port->context, block, size);
            return;
        }
        pool->kept_bytes += size;
    }
    struct pool_block *free_block = block;
    free_block->next = pool->free[class];
    pool->free[class] = free_block;
}

void *pool_trim(struct pool *pool, void *block, size_t bytes, size_t less_bytes)
{
    size_t size, less_size;
    if (class_of(bytes, &size) == class_of(less_bytes, &less_size))
        return block;
    void *smaller = pool_take(pool, less_bytes);
    memcpy(smaller, block, less_bytes);
    pool_give(pool, block, bytes);
    return smaller;
}

void *pool_take_persistent(struct pool *pool, size_t bytes)
{
    size_t size;
    class_of(bytes, &size);
    pool->persistent_bytes += size;
    return pool_take(pool, bytes);
}

void pool_give_persistent(struct pool *pool, void *block, size_t bytes)
{
    size_t size;
    class_of(bytes, &size);
    pool->persistent_bytes -= size;
    pool_give(pool, block, bytes);
}

void *pool_grow(struct pool *pool, void *array, uint32_t *capacity, uint32_t count, size_t element_bytes)
{
    if (count <= *capacity)
        return array;
    uint32_t larger = *capacity ? *capacity : 4;
    while (larger < count)
        larger *= 2;
    void *grown = pool_take(pool, larger * element_bytes);
    if (array) {
        memcpy(grown, array, *capacity * element_bytes);
        pool_give(pool, array, *capacity * element_bytes);
    }
    *capacity = larger;
    return grown;
}
