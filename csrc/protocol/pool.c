/* Small blocks are cut from chunks and never go back to the system; large ones (from 64 KiB on) are chunks of their own,
 * of which a bounded amount is kept: a fresh page of memory costs the kernel microseconds, a kept one nothing. */
#include "protocol/pool.h"

#include <string.h>

enum {
    SMALLEST_CLASS = 4,             /* 16 bytes */
    LARGE_CLASS = 16,               /* 64 KiB */
    CHUNK_BYTES = 1 << 20,
    KEPT_BYTES_MAX = 64 << 20
};

struct pool_block {
    struct pool_block *next;
};

struct pool_chunk {
    struct pool_chunk *next;
    uint64_t unused;
};

static unsigned class_of(size_t bytes)
{
    unsigned class = SMALLEST_CLASS;
    if (bytes > ((size_t)1 << SMALLEST_CLASS))
        class = 64 - (unsigned)__builtin_clzll(bytes - 1);
    return class;
}

void pool_init(struct pool *pool, const struct port *port)
{
    memset(pool, 0, sizeof *pool);
    pool->port = port;
}

void pool_fini(struct pool *pool)
{
    for (unsigned class = LARGE_CLASS; class < POOL_CLASSES; class++)
        for (struct pool_block *block = pool->free[class], *next; block; block = next) {
            next = block->next;
            pool->port->chunk_free(pool->port->context, block, (size_t)1 << class);
        }
    for (struct pool_chunk *chunk = pool->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        pool->port->chunk_free(pool->port->context, chunk, CHUNK_BYTES);
    }
    memset(pool->free, 0, sizeof pool->free);
    pool->chunks = NULL;
}

static void *cut_fresh(struct pool *pool, size_t bytes)
{
    if (pool->fresh_bytes < bytes) {
        struct pool_chunk *chunk = pool->port->chunk(pool->port->context, CHUNK_BYTES);
        chunk->next = pool->chunks;
        pool->chunks = chunk;
        pool->fresh = (unsigned char *)(chunk + 1);
        pool->fresh_bytes = CHUNK_BYTES - sizeof *chunk;
    }
    void *block = pool->fresh;
    pool->fresh += bytes;
    pool->fresh_bytes -= bytes;
    return block;
}

void *pool_take(struct pool *pool, size_t bytes)
{
    unsigned class = class_of(bytes);
    size_t size = (size_t)1 << class;
    pool->bytes_used += size;
    if (pool->bytes_used > pool->bytes_used_max)
        pool->bytes_used_max = pool->bytes_used;
    struct pool_block *block = pool->free[class];
    if (block) {
        pool->free[class] = block->next;
        if (class >= LARGE_CLASS)
            pool->kept_bytes -= size;
        return block;
    }
    if (class >= LARGE_CLASS)
        return pool->port->chunk(pool->port->context, size);
    return cut_fresh(pool, size);
}

void *pool_take_zeroed(struct pool *pool, size_t bytes)
{
    /* A new large chunk is zero already: touching it would cost a table of a terabyte its sparseness. */
    unsigned class = class_of(bytes);
    bool clean = class >= LARGE_CLASS && !pool->free[class];
    void *block = pool_take(pool, bytes);
    if (!clean)
        memset(block, 0, bytes);
    return block;
}

void pool_give(struct pool *pool, void *block, size_t bytes)
{
    unsigned class = class_of(bytes);
    size_t size = (size_t)1 << class;
    pool->bytes_used -= size;
    if (class >= LARGE_CLASS) {
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
    if (class_of(bytes) == class_of(less_bytes))
        return block;
    void *smaller = pool_take(pool, less_bytes);
    memcpy(smaller, block, less_bytes);
    pool_give(pool, block, bytes);
    return smaller;
}

void *pool_take_apart(struct pool *pool, size_t bytes)
{
    pool->apart_bytes += (uint64_t)1 << class_of(bytes);
    return pool_take(pool, bytes);
}

void pool_give_apart(struct pool *pool, void *block, size_t bytes)
{
    pool->apart_bytes -= (uint64_t)1 << class_of(bytes);
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
