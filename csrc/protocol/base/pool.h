/* pool - memory of the protocol: size classes over chunks of the port.
 *
 * A fault handler runs inside other people's code, so nothing here calls malloc.  Every block is counted, which is what
 * the budget of the garbage collection and the statistics rest on.
 *
 * Invariants
 *  1. bytes_used is the sum of the sizes given to pool_take and not yet to pool_give, rounded up to their classes.
 *  2. persistent_bytes is the same of the blocks that no collection frees.
 *  3. A block is given back with the size that it was taken with, or trimmed to.
 *  4. twin_bytes and diff_bytes are the sizes of the twins and diffs that pages have (page/page.c counts them).
 */
#pragma once

#include "protocol/base/port.h"

enum { POOL_CLASSES = 176 };

struct pool {
    const struct port *port;
    struct pool_block *free[POOL_CLASSES];
    uint64_t kept_bytes;  /* in the free lists of large classes */
    unsigned char *fresh; /* rest of the chunk that small blocks are carved from */
    size_t fresh_bytes;
    unsigned char *touched;    /* the kernel has been asked for the rest up to here */
    struct pool_chunk *chunks; /* all chunks of small blocks, to be freed at the end */
    uint64_t bytes_used, bytes_used_max;
    uint64_t persistent_bytes;
    uint64_t twin_bytes, diff_bytes;
};

void pool_init(struct pool *pool, const struct port *port);
/* Frees the chunks; blocks of large classes that were never given back are the caller's leak. */
void pool_fini(struct pool *pool);

/* A block, not zeroed, aligned to 16 bytes (to a machine page from 64 KiB on). */
void *pool_take(struct pool *pool, size_t bytes);
void *pool_take_zeroed(struct pool *pool, size_t bytes);
void pool_give(struct pool *pool, void *block, size_t bytes);
/* Less than was taken is needed: the block, or a smaller one with what is in it. */
void *pool_trim(struct pool *pool, void *block, size_t bytes, size_t less_bytes);

/* Touch a page of memory that blocks will be cut from, for an idle thread: a diff that a node waits for should
 * not wait for the kernel.  False: enough is ready. */
bool pool_touch(struct pool *pool);

/* pool_take and pool_give for messages, page states and tables. */
void *pool_take_persistent(struct pool *pool, size_t bytes);
void pool_give_persistent(struct pool *pool, void *block, size_t bytes);

/* An array that grows by doubling: make room for at least `count` elements of `element_bytes`. */
void *pool_grow(struct pool *pool, void *array, uint32_t *capacity, uint32_t count, size_t element_bytes);
