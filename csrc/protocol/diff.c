/* The comparison is word-parallel C without intrinsics: eight words of a block are XORed and ORed, and only a block that
 * differs is looked at more closely, where each word yields eight bits of the byte mask. */
#include "protocol/diff.h"

#include <string.h>

enum { HEADER_BYTES = 8, MASK_BYTES = 8, BLOCK_WORDS = DIFF_BLOCK_BYTES / 8 };

uint64_t diff_bytes_max(uint64_t page_bytes)
{
    return page_bytes / DIFF_BLOCK_BYTES * (HEADER_BYTES + MASK_BYTES + DIFF_BLOCK_BYTES);
}

static uint64_t load(const unsigned char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static bool block_differs(const unsigned char *a, const unsigned char *b)
{
    uint64_t difference = 0;
    for (int i = 0; i < BLOCK_WORDS; i++)
        difference |= load(a + 8 * i) ^ load(b + 8 * i);
    return difference != 0;
}

/* Bit k is set where byte k differs (in memory order, on a little-endian machine and on a big-endian one). */
static uint64_t block_mask(const unsigned char *a, const unsigned char *b)
{
    uint64_t mask = 0;
    for (int i = 0; i < BLOCK_WORDS; i++) {
        uint64_t x = load(a + 8 * i) ^ load(b + 8 * i);
        if (x == 0)
            continue;
        if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)
            x = __builtin_bswap64(x);
        /* The high bit of every byte that is not 0, then the eight high bits gathered in the top byte. */
        uint64_t high = (x | ((x & 0x7f7f7f7f7f7f7f7fu) + 0x7f7f7f7f7f7f7f7fu)) & 0x8080808080808080u;
        mask |= (((high >> 7) * 0x0102040810204080u) >> 56) << (8 * i);
    }
    return mask;
}

static unsigned char *put_header(unsigned char *out, uint32_t block, uint32_t count)
{
    memcpy(out, &block, 4);
    memcpy(out + 4, &count, 4);
    return out + HEADER_BYTES;
}

/* Call `what` for each run of set bits, as (first, length). */
#define FOR_RUNS(mask, first, length)                                                                                     \
    for (uint64_t rest_ = (mask), first = 0, length = 0;                                                                  \
         rest_ && (first = (uint64_t)__builtin_ctzll(rest_), length = run_length(rest_ >> first), true);                  \
         rest_ = first + length >= 64 ? 0 : rest_ & (~(uint64_t)0 << (first + length)))

static uint64_t run_length(uint64_t bits)
{
    return ~bits ? (uint64_t)__builtin_ctzll(~bits) : 64;
}

static unsigned char *put_partial(unsigned char *out, uint32_t block, uint64_t mask, const unsigned char *bytes)
{
    out = put_header(out, block, 0);
    memcpy(out, &mask, MASK_BYTES);
    out += MASK_BYTES;
    FOR_RUNS(mask, first, length)
    {
        memcpy(out, bytes + first, length);
        out += length;
    }
    return out;
}

uint64_t diff_cut(const unsigned char *page, const unsigned char *twin, uint64_t page_bytes, uint64_t twin_bytes,
                  unsigned char *body)
{
    unsigned char *out = body, *open_header = NULL;
    uint32_t open_next = 0, open_count = 0;
    for (uint64_t at = 0; at < page_bytes; at += DIFF_BLOCK_BYTES) {
        const unsigned char *now = page + at, *before = twin + (at & (twin_bytes - 1));
        if (!block_differs(now, before))
            continue;
        uint32_t block = (uint32_t)(at / DIFF_BLOCK_BYTES);
        uint64_t mask = block_mask(now, before);
        if (~mask) {
            out = put_partial(out, block, mask, now);
            open_header = NULL;
            continue;
        }
        if (!open_header || open_next != block) {
            open_header = out;
            open_count = 0;
            out = put_header(out, block, 0);
        }
        memcpy(out, now, DIFF_BLOCK_BYTES);
        out += DIFF_BLOCK_BYTES;
        open_count++;
        memcpy(open_header + 4, &open_count, 4);
        open_next = block + 1;
    }
    return (uint64_t)(out - body);
}

/* Bytes in which the page differs from its twin stay. */
static void put_bytes(unsigned char *page, const unsigned char *twin, const unsigned char *bytes, uint64_t count)
{
    if (!twin || memcmp(page, twin, count) == 0) {
        memcpy(page, bytes, count);
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        if (page[i] == twin[i])
            page[i] = bytes[i];
}

void diff_apply_under(unsigned char *page, const unsigned char *twin, const unsigned char *body, uint64_t bytes)
{
    const unsigned char *end = body + bytes;
    while (body < end) {
        uint32_t block, count;
        memcpy(&block, body, 4);
        memcpy(&count, body + 4, 4);
        body += HEADER_BYTES;
        uint64_t at = (uint64_t)block * DIFF_BLOCK_BYTES, length = (uint64_t)count * DIFF_BLOCK_BYTES;
        if (count) {
            put_bytes(page + at, twin ? twin + at : NULL, body, length);
            body += length;
            continue;
        }
        uint64_t mask;
        memcpy(&mask, body, MASK_BYTES);
        body += MASK_BYTES;
        FOR_RUNS(mask, first, run)
        {
            put_bytes(page + at + first, twin ? twin + at + first : NULL, body, run);
            body += run;
        }
    }
}

void diff_apply(unsigned char *page, const unsigned char *body, uint64_t bytes)
{
    diff_apply_under(page, NULL, body, bytes);
}

bool diff_valid(const unsigned char *body, uint64_t bytes, uint64_t page_bytes)
{
    uint64_t next = 0, blocks = page_bytes / DIFF_BLOCK_BYTES;
    while (bytes) {
        uint32_t block, count;
        if (bytes < HEADER_BYTES)
            return false;
        memcpy(&block, body, 4);
        memcpy(&count, body + 4, 4);
        uint64_t record = HEADER_BYTES + (uint64_t)count * DIFF_BLOCK_BYTES, covers = count ? count : 1;
        if (count == 0) {
            uint64_t mask;
            if (bytes < HEADER_BYTES + MASK_BYTES)
                return false;
            memcpy(&mask, body + HEADER_BYTES, MASK_BYTES);
            if (mask == 0)
                return false;
            record += MASK_BYTES + (uint64_t)__builtin_popcountll(mask);
        }
        if (bytes < record || block < next || block + covers > blocks)
            return false;
        next = block + covers;
        body += record;
        bytes -= record;
    }
    return true;
}
