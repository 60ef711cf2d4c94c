/* Two diffs are walked block by block, side by side: blocks ascend in both. */
#include "protocol/page/common.h"

#include <string.h>

/* A block of a diff, and the bytes of it that changed. */
struct cursor {
    const unsigned char *body, *end;
    uint64_t mask;
    uint32_t block, more; /* blocks behind it that changed altogether */
};

static bool next(struct cursor *cursor)
{
    uint32_t count;
    if (cursor->more) {
        cursor->more--;
        cursor->block++;
        return true;
    }
    if (cursor->body >= cursor->end)
        return false;
    memcpy(&cursor->block, cursor->body, sizeof cursor->block);
    memcpy(&count, cursor->body + sizeof cursor->block, sizeof count);
    cursor->body += sizeof cursor->block + sizeof count;
    cursor->mask = ~(uint64_t)0;
    if (count) {
        cursor->more = count - 1;
        cursor->body += (uint64_t)count * DIFF_BLOCK_BYTES;
    } else {
        memcpy(&cursor->mask, cursor->body, sizeof cursor->mask);
        cursor->body += sizeof cursor->mask + (unsigned)__builtin_popcountll(cursor->mask);
    }
    return true;
}

uint64_t common_of_diffs(const unsigned char *a, uint64_t a_bytes, const unsigned char *b, uint64_t b_bytes)
{
    struct cursor x = {.body = a, .end = a + a_bytes}, y = {.body = b, .end = b + b_bytes};
    uint64_t common = 0;
    for (bool more = next(&x) && next(&y); more;) {
        uint32_t at = x.block, other = y.block;
        if (at == other)
            common += (unsigned)__builtin_popcountll(x.mask & y.mask);
        more = (at > other || next(&x)) && (other > at || next(&y));
    }
    return common;
}

uint64_t common_with_twin(const unsigned char *page, const unsigned char *twin, const unsigned char *body,
                          uint64_t bytes)
{
    struct cursor cursor = {.body = body, .end = body + bytes};
    uint64_t common = 0;
    while (next(&cursor)) {
        uint64_t start = (uint64_t)cursor.block * DIFF_BLOCK_BYTES;
        if (memcmp(page + start, twin + start, DIFF_BLOCK_BYTES) == 0)
            continue;
        for (uint64_t left = cursor.mask; left; left &= left - 1) {
            uint64_t at = start + (unsigned)__builtin_ctzll(left);
            common += page[at] != twin[at];
        }
    }
    return common;
}
