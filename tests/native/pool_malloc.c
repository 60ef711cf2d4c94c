/* The pool for the sanitizers: every block is a block of its own, so that reading past its end, using it after it was
 * given back, giving it back twice or never is seen where it happens.  Its first content is garbage, never zero. */
#include <string.h>

#include "protocol/base/pool.h"

enum { GARBAGE = 0xa5 };

/* As in pool.c: what is counted starts collections, and a seed is to be the same run with both pools. */
static size_t rounded(size_t bytes)
{
    size_t below = 16;
    if (bytes <= below)
        return below;
    while (2 * below < bytes)
        below *= 2;
    size_t step = below < 64 ? below : below / 4;
    return below + (bytes - below + step - 1) / step * step;
}

void pool_init(struct pool *pool, const struct port *port)
{
    memset(pool, 0, sizeof *pool);
    pool->port = port;
}

void pool_fini(struct pool *pool)
{
    pool->chunks = NULL;
}

bool pool_touch(struct pool *pool)
{
    (void)pool;
    return false;
}

void *pool_take_zeroed(struct pool *pool, size_t bytes)
{
    pool->bytes_used += rounded(bytes);
    if (pool->bytes_used > pool->bytes_used_max)
        pool->bytes_used_max = pool->bytes_used;
    return pool->port->chunk(pool->port->context, bytes);
}

void *pool_take(struct pool *pool, size_t bytes)
{
    void *block = pool_take_zeroed(pool, bytes);
    memset(block, GARBAGE, bytes);
    return block;
}

void pool_give(struct pool *pool, void *block, size_t bytes)
{
    pool->bytes_used -= rounded(bytes);
    pool->port->chunk_free(pool->port->context, block, bytes);
}

void *pool_trim(struct pool *pool, void *block, size_t bytes, size_t less_bytes)
{
    void *smaller = pool_take(pool, less_bytes);
    memcpy(smaller, block, less_bytes);
    pool_give(pool, block, bytes);
    return smaller;
}

void *pool_take_persistent(struct pool *pool, size_t bytes)
{
    pool->persistent_bytes += rounded(bytes);
    return pool_take(pool, bytes);
}

void pool_give_persistent(struct pool *pool, void *block, size_t bytes)
{
    pool->persistent_bytes -= rounded(bytes);
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
