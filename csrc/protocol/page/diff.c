/* On processors that pack bytes under a mask by themselves a block takes a handful of instructions, whatever its
 * pattern of changes.  Other x86 processors move the bytes of a word as a table says: numbers that count up change in a
 * byte or two of four, and packing those one by one takes several times as long.  Elsewhere words are
 * packed, by one shift and one store: mostly all of a word changed, or the lower bytes of a float, and that is one run
 * of bytes.  Whole words take no branch each, which a processor could guess only for half of them.
 *
 * The unit tests compile this file with less than what x86 has, too. */
#include "protocol/page/diff.h"

#include <string.h>

#ifndef DIFF_X86
#ifdef __x86_64__
#define DIFF_X86 3 /* 1: SSE2, which all have; where there are such, 2: SSSE3, 3: AVX-512 VBMI2, too */
#else
#define DIFF_X86 0
#endif
#endif

#if DIFF_X86
#include <immintrin.h>
#endif

enum { HEADER_BYTES = 8, MASK_BYTES = 8, WORD_BYTES = 8, BLOCK_WORDS = DIFF_BLOCK_BYTES / WORD_BYTES };

#define EVERY_BYTE(value) ((uint64_t)(value) * 0x0101010101010101u)

uint64_t diff_bytes_max(uint64_t page_bytes)
{
    return page_bytes / DIFF_BLOCK_BYTES * (HEADER_BYTES + MASK_BYTES + DIFF_BLOCK_BYTES);
}

/* ---- masks ----------------------------------------------------------------------------------------------------- */

static uint64_t load(const unsigned char *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

#if DIFF_X86
static inline __m128i equal_bytes(const unsigned char *a, const unsigned char *b)
{
    return _mm_cmpeq_epi8(_mm_loadu_si128((const void *)a), _mm_loadu_si128((const void *)b));
}
#endif

/* Bit k is set where byte k differs (in memory order, on a little-endian machine and on a big-endian one). */
static inline uint64_t block_mask(const unsigned char *a, const unsigned char *b)
{
#if DIFF_X86
    __m128i e0 = equal_bytes(a, b), e1 = equal_bytes(a + 16, b + 16);
    __m128i e2 = equal_bytes(a + 32, b + 32), e3 = equal_bytes(a + 48, b + 48);
    if (_mm_movemask_epi8(_mm_and_si128(_mm_and_si128(e0, e1), _mm_and_si128(e2, e3))) == 0xffff)
        return 0;
    uint64_t low = (uint32_t)_mm_movemask_epi8(e0) | (uint32_t)_mm_movemask_epi8(e1) << 16;
    uint64_t high = (uint32_t)_mm_movemask_epi8(e2) | (uint32_t)_mm_movemask_epi8(e3) << 16;
    return ~(low | high << 32);
#else
    uint64_t difference = 0, mask = 0;
    for (int i = 0; i < BLOCK_WORDS; i++)
        difference |= load(a + WORD_BYTES * i) ^ load(b + WORD_BYTES * i);
    if (difference == 0)
        return 0;
    for (int i = 0; i < BLOCK_WORDS; i++) {
        uint64_t x = load(a + WORD_BYTES * i) ^ load(b + WORD_BYTES * i);
        if (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)
            x = __builtin_bswap64(x);
        /* The high bit of every byte that is not 0, then the eight high bits gathered in the top byte. */
        uint64_t high = (x | ((x & EVERY_BYTE(0x7f)) + EVERY_BYTE(0x7f))) & EVERY_BYTE(0x80);
        mask |= (((high >> 7) * 0x0102040810204080u) >> 56) << (8 * i);
    }
    return mask;
#endif
}

/* Byte i: how many bits byte i of the mask has. */
static uint64_t count_bits(uint64_t mask)
{
    uint64_t count = mask - ((mask >> 1) & EVERY_BYTE(0x55));
    count = (count & EVERY_BYTE(0x33)) + ((count >> 2) & EVERY_BYTE(0x33));
    return (count + (count >> 4)) & EVERY_BYTE(0x0f);
}

/* Every byte of the mask is 0 or 0xff. */
static bool whole_words(uint64_t mask)
{
    return (mask & EVERY_BYTE(0x01)) * 0xff == mask;
}

static unsigned byte_of(uint64_t word, int i)
{
    return (unsigned)(word >> (8 * i)) & 0xff;
}

/* ---- encode ---------------------------------------------------------------------------------------------------- */

static unsigned char *put_header(unsigned char *out, uint32_t block, uint32_t count)
{
    memcpy(out, &block, 4);
    memcpy(out + 4, &count, 4);
    return out + HEADER_BYTES;
}

/* The bytes of the word from `first` on come first, in memory order. */
static uint64_t from_byte(uint64_t word, unsigned first)
{
    return __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? word << (8 * first) : word >> (8 * first);
}

/* The set bits follow each other: with the lowest one added, they carry into a bit above them all. */
static bool one_run(unsigned bits)
{
    return (bits & (bits + (bits & -bits))) == 0;
}

/* A store of eight bytes may reach beyond the packed ones, but not beyond diff_bytes_max: the last word of a block is
 * packed where it would lie, or before. */
static inline unsigned char *put_run(unsigned char *out, const unsigned char *bytes, unsigned bits, unsigned count)
{
    uint64_t word = from_byte(load(bytes), (unsigned)__builtin_ctz(bits | 0x80));
    memcpy(out, &word, sizeof word);
    return out + count;
}

static unsigned char *put_runs(unsigned char *out, const unsigned char *bytes, unsigned bits)
{
    for (int i = 0; i < WORD_BYTES; i++) {
        *out = bytes[i];
        out += (bits >> i) & 1;
    }
    return out;
}

static inline unsigned char *put_mask(unsigned char *out, uint32_t block, uint64_t mask)
{
    out = put_header(out, block, 0);
    memcpy(out, &mask, MASK_BYTES);
    return out + MASK_BYTES;
}

static inline unsigned char *put_bits(unsigned char *out, uint64_t mask, const unsigned char *bytes)
{
    if (whole_words(mask)) {
        for (int i = 0; i < BLOCK_WORDS; i++) {
            memcpy(out, bytes + WORD_BYTES * i, WORD_BYTES);
            out += byte_of(mask, i) & WORD_BYTES;
        }
        return out;
    }
    uint64_t counts = count_bits(mask);
    for (int i = 0; i < BLOCK_WORDS; i++) {
        unsigned bits = byte_of(mask, i);
        if (one_run(bits))
            out = put_run(out, bytes + WORD_BYTES * i, bits, byte_of(counts, i));
        else
            out = put_runs(out, bytes + WORD_BYTES * i, bits);
    }
    return out;
}

/* How far an encoding has come. */
struct cutter {
    unsigned char *out, *open_header; /* of a run of blocks that changed altogether, or NULL */
    uint32_t open_next, open_count;
};

static inline void put_whole_block(struct cutter *cutter, uint32_t block, const unsigned char *bytes)
{
    if (!cutter->open_header || cutter->open_next != block) {
        cutter->open_header = cutter->out;
        cutter->open_count = 0;
        cutter->out = put_header(cutter->out, block, 0);
    }
    memcpy(cutter->out, bytes, DIFF_BLOCK_BYTES);
    cutter->out += DIFF_BLOCK_BYTES;
    cutter->open_count++;
    memcpy(cutter->open_header + 4, &cutter->open_count, 4);
    cutter->open_next = block + 1;
}

static uint64_t encode_plain(const unsigned char *page, const unsigned char *twin, uint64_t page_bytes,
                             uint64_t twin_bytes, unsigned char *body)
{
    struct cutter cutter = {.out = body};
    for (uint64_t at = 0; at < page_bytes; at += DIFF_BLOCK_BYTES) {
        const unsigned char *now = page + at;
        uint64_t mask = block_mask(now, twin + (at & (twin_bytes - 1)));
        uint32_t block = (uint32_t)(at / DIFF_BLOCK_BYTES);
        if (mask == 0)
            continue;
        if (~mask)
            cutter.out = put_bits(put_mask(cutter.out, block, mask), mask, now);
        else
            put_whole_block(&cutter, block, now);
    }
    return (uint64_t)(cutter.out - body);
}

/* ---- apply ----------------------------------------------------------------------------------------------------- */

/* Bytes in which the page differs from its twin stay. */
static inline void put_bytes(unsigned char *page, const unsigned char *twin, const unsigned char *bytes, uint64_t count)
{
    if (!twin || memcmp(page, twin, count) == 0) {
        memcpy(page, bytes, count);
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        if (page[i] == twin[i])
            page[i] = bytes[i];
}

static inline const unsigned char *put_masked(unsigned char *page, const unsigned char *twin,
                                              const unsigned char *bytes, uint64_t mask)
{
    if (whole_words(mask)) {
        for (uint64_t words = mask & EVERY_BYTE(0x01); words; words &= words - 1, bytes += WORD_BYTES) {
            unsigned at = (unsigned)__builtin_ctzll(words);
            put_bytes(page + at, twin ? twin + at : NULL, bytes, WORD_BYTES);
        }
        return bytes;
    }
    while (mask) {
        unsigned first = (unsigned)__builtin_ctzll(mask);
        uint64_t above = ~(mask >> first);
        unsigned run = above ? (unsigned)__builtin_ctzll(above) : 64;
        put_bytes(page + first, twin ? twin + first : NULL, bytes, run);
        bytes += run;
        mask = first + run < 64 ? mask & (~(uint64_t)0 << (first + run)) : 0;
    }
    return bytes;
}

static inline void apply_plain(unsigned char *page, const unsigned char *twin, const unsigned char *body,
                               uint64_t bytes)
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
        } else {
            body = put_masked(page + at, twin ? twin + at : NULL, body + MASK_BYTES, load(body));
        }
    }
}

/* ---- a table for a word ----------------------------------------------------------------------------------------- */

#if DIFF_X86 >= 2
#define SHUFFLES __attribute__((target("ssse3")))

/* How many of the bits of `bits` below bit i are set, and the tables that follow from it, of 256 words.  Byte k of a
 * word says, PACKED: which byte is the k-th that changed; SPREAD: where among the packed ones byte k is (0x80:
 * nowhere). */
#define BIT(bits, i) ((uint64_t)(bits) >> (i) & 1)
#define BELOW(bits, i)                                                                                          \
    ((i) == 0 ? 0                                                                                               \
              : BIT(bits, 0) + ((i) > 1) * BIT(bits, 1) + ((i) > 2) * BIT(bits, 2) + ((i) > 3) * BIT(bits, 3) + \
                    ((i) > 4) * BIT(bits, 4) + ((i) > 5) * BIT(bits, 5) + ((i) > 6) * BIT(bits, 6))
#define PACKED(bits, i) (BIT(bits, i) * (i) << 8 * BELOW(bits, i))
#define SPREAD(bits, i) ((BIT(bits, i) ? BELOW(bits, i) : 0x80) << 8 * (i))
#define OF_8(of, bits) \
    (of(bits, 0) | of(bits, 1) | of(bits, 2) | of(bits, 3) | of(bits, 4) | of(bits, 5) | of(bits, 6) | of(bits, 7))
#define ROW_4(of, bits) OF_8(of, bits), OF_8(of, (bits) + 1), OF_8(of, (bits) + 2), OF_8(of, (bits) + 3)
#define ROW_16(of, bits) ROW_4(of, bits), ROW_4(of, (bits) + 4), ROW_4(of, (bits) + 8), ROW_4(of, (bits) + 12)
#define ROW_64(of, bits) ROW_16(of, bits), ROW_16(of, (bits) + 16), ROW_16(of, (bits) + 32), ROW_16(of, (bits) + 48)
#define TABLE(of) {ROW_64(of, 0), ROW_64(of, 64), ROW_64(of, 128), ROW_64(of, 192)}

static bool is_shuffling(void)
{
    return __builtin_cpu_supports("ssse3");
}

SHUFFLES static inline __m128i shuffle(const unsigned char *word, uint64_t as)
{
    return _mm_shuffle_epi8(_mm_loadl_epi64((const void *)word), _mm_loadl_epi64((const void *)&as));
}

SHUFFLES static uint64_t encode_shuffled(const unsigned char *page, const unsigned char *twin, uint64_t page_bytes,
                                         uint64_t twin_bytes, unsigned char *body)
{
    static const uint64_t packing[256] = TABLE(PACKED);
    struct cutter cutter = {.out = body};
    for (uint64_t at = 0; at < page_bytes; at += DIFF_BLOCK_BYTES) {
        const unsigned char *now = page + at;
        uint64_t mask = block_mask(now, twin + (at & (twin_bytes - 1))), counts = count_bits(mask);
        uint32_t block = (uint32_t)(at / DIFF_BLOCK_BYTES);
        if (mask == 0)
            continue;
        if (~mask == 0) {
            put_whole_block(&cutter, block, now);
            continue;
        }
        cutter.out = put_mask(cutter.out, block, mask);
        for (int i = 0; i < BLOCK_WORDS; i++) {
            _mm_storel_epi64((void *)cutter.out, shuffle(now + WORD_BYTES * i, packing[byte_of(mask, i)]));
            cutter.out += byte_of(counts, i);
        }
    }
    return (uint64_t)(cutter.out - body);
}

/* Words are read, changed and written, so no other thread may write to them meanwhile. */
SHUFFLES static inline const unsigned char *spread(unsigned char *page, const unsigned char *bytes, uint64_t mask)
{
    static const uint64_t spreading[256] = TABLE(SPREAD);
    uint64_t counts = count_bits(mask);
    for (int i = 0; i < BLOCK_WORDS; i++) {
        uint64_t as = spreading[byte_of(mask, i)];
        __m128i stays = _mm_cmplt_epi8(_mm_loadl_epi64((const void *)&as), _mm_setzero_si128());
        __m128i old = _mm_loadl_epi64((const void *)(page + WORD_BYTES * i));
        _mm_storel_epi64((void *)(page + WORD_BYTES * i), _mm_or_si128(_mm_and_si128(stays, old), shuffle(bytes, as)));
        bytes += byte_of(counts, i);
    }
    return bytes;
}

/* A load of eight packed bytes may reach beyond those of the block: the last block is left to apply_plain. */
static void apply_shuffled(unsigned char *page, const unsigned char *body, uint64_t bytes)
{
    const unsigned char *end = body + bytes;
    while (end - body >= HEADER_BYTES + MASK_BYTES + DIFF_BLOCK_BYTES) {
        uint32_t block, count;
        memcpy(&block, body, 4);
        memcpy(&count, body + 4, 4);
        unsigned char *at = page + (uint64_t)block * DIFF_BLOCK_BYTES;
        uint64_t length = (uint64_t)count * DIFF_BLOCK_BYTES;
        body += HEADER_BYTES;
        if (count) {
            memcpy(at, body, length);
            body += length;
        } else {
            body = spread(at, body + MASK_BYTES, load(body));
        }
    }
    apply_plain(page, NULL, body, (uint64_t)(end - body));
}
#else
static bool is_shuffling(void)
{
    return false;
}

#define encode_shuffled encode_plain
#define apply_shuffled(page, body, bytes) apply_plain(page, NULL, body, bytes)
#endif

/* ---- one instruction for a block -------------------------------------------------------------------------------- */

/* AVX-512 VBMI2 (processors from 2019 on) packs and unpacks bytes under a mask, and loads and stores them without
 * touching their neighbours. */
#if DIFF_X86 == 3
#define WIDE __attribute__((target("avx512bw,avx512vbmi2,popcnt,bmi2")))

static bool is_wide(void)
{
    return __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi2");
}

WIDE static uint64_t encode_wide(const unsigned char *page, const unsigned char *twin, uint64_t page_bytes,
                                 uint64_t twin_bytes, unsigned char *body)
{
    struct cutter cutter = {.out = body};
    for (uint64_t at = 0; at < page_bytes; at += DIFF_BLOCK_BYTES) {
        __m512i now = _mm512_loadu_si512(page + at);
        uint64_t mask = _mm512_cmpneq_epi8_mask(now, _mm512_loadu_si512(twin + (at & (twin_bytes - 1))));
        uint32_t block = (uint32_t)(at / DIFF_BLOCK_BYTES);
        if (mask == 0)
            continue;
        if (~mask) {
            cutter.out = put_mask(cutter.out, block, mask);
            _mm512_storeu_si512(cutter.out, _mm512_maskz_compress_epi8(mask, now));
            cutter.out += _mm_popcnt_u64(mask);
        } else {
            put_whole_block(&cutter, block, page + at);
        }
    }
    return (uint64_t)(cutter.out - body);
}

WIDE static void apply_wide(unsigned char *page, const unsigned char *twin, const unsigned char *body, uint64_t bytes)
{
    const unsigned char *end = body + bytes;
    while (body < end) {
        uint32_t block, count;
        memcpy(&block, body, 4);
        memcpy(&count, body + 4, 4);
        body += HEADER_BYTES;
        uint64_t mask = ~(uint64_t)0;
        if (count == 0) {
            mask = load(body);
            body += MASK_BYTES;
        }
        uint64_t at = (uint64_t)block * DIFF_BLOCK_BYTES, length = (uint64_t)_mm_popcnt_u64(mask);
        for (uint32_t i = count ? count : 1; i > 0; i--, at += DIFF_BLOCK_BYTES, body += length) {
            __m512i packed = _mm512_maskz_loadu_epi8(_bzhi_u64(~(uint64_t)0, (uint32_t)length), body);
            uint64_t stores = mask;
            if (twin)
                stores &= _mm512_cmpeq_epi8_mask(_mm512_maskz_loadu_epi8(mask, page + at),
                                                 _mm512_maskz_loadu_epi8(mask, twin + at));
            _mm512_mask_storeu_epi8(page + at, stores, _mm512_maskz_expand_epi8(mask, packed));
        }
    }
}
#else
static bool is_wide(void)
{
    return false;
}

#define encode_wide encode_plain
#define apply_wide apply_plain
#endif

/* ---- the ways in ----------------------------------------------------------------------------------------------- */

uint64_t diff_encode(const unsigned char *page, const unsigned char *twin, uint64_t page_bytes, uint64_t twin_bytes,
                     unsigned char *body)
{
    if (is_wide())
        return encode_wide(page, twin, page_bytes, twin_bytes, body);
    if (is_shuffling())
        return encode_shuffled(page, twin, page_bytes, twin_bytes, body);
    return encode_plain(page, twin, page_bytes, twin_bytes, body);
}

void diff_apply_under(unsigned char *page, const unsigned char *twin, const unsigned char *body, uint64_t bytes)
{
    if (is_wide())
        apply_wide(page, twin, body, bytes);
    else if (twin)
        apply_plain(page, twin, body, bytes);
    else
        apply_plain(page, NULL, body, bytes);
}

void diff_apply(unsigned char *page, const unsigned char *body, uint64_t bytes)
{
    if (is_wide())
        apply_wide(page, NULL, body, bytes);
    else if (is_shuffling())
        apply_shuffled(page, body, bytes);
    else
        apply_plain(page, NULL, body, bytes);
}

static uint32_t zeros_below(uint64_t bits)
{
    return bits ? (uint32_t)__builtin_ctzll(bits) : DIFF_BLOCK_BYTES;
}

bool diff_next_run(struct diff_walk *walk, uint32_t *from, uint32_t *to)
{
    if (walk->mask == 0) {
        uint32_t block, count;
        if (walk->at == walk->end)
            return false;
        memcpy(&block, walk->at, 4);
        memcpy(&count, walk->at + 4, 4);
        walk->at += HEADER_BYTES;
        walk->byte = block * DIFF_BLOCK_BYTES;
        if (count) {
            walk->at += (uint64_t)count * DIFF_BLOCK_BYTES;
            *from = walk->byte;
            *to = walk->byte + count * DIFF_BLOCK_BYTES;
            return true;
        }
        walk->mask = load(walk->at);
        walk->at += MASK_BYTES + ((count_bits(walk->mask) * EVERY_BYTE(1)) >> 56);
    }
    uint32_t first = zeros_below(walk->mask), behind = first + zeros_below(~(walk->mask >> first));
    *from = walk->byte + first;
    *to = walk->byte + behind;
    walk->mask = behind < DIFF_BLOCK_BYTES ? walk->mask >> behind << behind : 0;
    return true;
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
            if (bytes < HEADER_BYTES + MASK_BYTES)
                return false;
            uint64_t mask = load(body + HEADER_BYTES);
            if (mask == 0)
                return false;
            record += MASK_BYTES + ((count_bits(mask) * EVERY_BYTE(1)) >> 56);
        }
        if (bytes < record || block < next || block + covers > blocks)
            return false;
        next = block + covers;
        body += record;
        bytes -= record;
    }
    return true;
}
