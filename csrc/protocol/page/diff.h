/* diff - the bytes in which a page differs from its twin, exact to the byte.
 *
 * Two nodes may write neighbouring bytes of one word at the same time (uint8, bool, structured dtypes), so a diff holds
 * changed bytes and nothing else.  Pages are compared in blocks of 64 bytes; a block that changed altogether is stored
 * as it is, and runs of such blocks behind one header; of any other block a mask of 64 bits and the changed bytes.
 *
 *   body      := record*
 *   record    := uint32 block, uint32 count > 0, count * 64 bytes          blocks that changed altogether
 *              | uint32 block, uint32 0, uint64 mask != 0, popcount(mask) bytes
 *
 * Invariants (diff_valid asserts them; a diff from the wire is not believed before)
 *  1. Blocks ascend and lie in the page.
 *  2. The body ends where its last record ends.
 */
#pragma once

#include "protocol/base/pool.h"

enum { DIFF_BLOCK_BYTES = 64 };

/* A diff of this node's own writes, kept until the next collection, or until all others are known to have it. */
struct diff {
    struct diff *next, *previous; /* encoded later, earlier */
    stamp tag;                    /* when the page was sealed */
    uint64_t bytes;               /* of body */
    unsigned char body[];
};

/* The most bytes that the diff of a page can take. */
uint64_t diff_bytes_max(uint64_t page_bytes);

/* Write the diff between `page` and `twin` (page_bytes each, a multiple of 64) to `body`, which has room for
 * diff_bytes_max and may be written up to there; returns the bytes of the diff.  The twin repeats every `twin_bytes`
 * (page_bytes, or the size of the one constant page that is the twin of all fresh pages). */
uint64_t diff_encode(const unsigned char *page, const unsigned char *twin, uint64_t page_bytes, uint64_t twin_bytes,
                     unsigned char *body);
/* No other thread may write to the page meanwhile. */
void diff_apply(unsigned char *page, const unsigned char *body, uint64_t bytes);
/* The same under the writes since the twin was taken (NULL: there is none): a byte in which the page differs from its
 * twin stays.  It reads and writes no bytes but those of the diff; other threads may write the rest meanwhile. */
void diff_apply_under(unsigned char *page, const unsigned char *twin, const unsigned char *body, uint64_t bytes);
/* A look at a valid diff, run by run. */
struct diff_walk {
    const unsigned char *at, *end;
    uint64_t mask; /* of the block at `byte`: what is still to come */
    uint32_t byte;
};
/* The next bytes that the diff holds, [from, to): they ascend, and neighbours may be several runs.  False: no more. */
bool diff_next_run(struct diff_walk *walk, uint32_t *from, uint32_t *to);
bool diff_valid(const unsigned char *body, uint64_t bytes, uint64_t page_bytes);
