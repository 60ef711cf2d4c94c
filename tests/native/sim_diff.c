/* diff.c for the simulator: before a diff changes a page in its place, and between any two of the bytes that it changes,
 * other threads of the node may touch the page. */
#define diff_apply diff_apply_unseen
#define diff_apply_under diff_apply_under_unseen
#include "protocol/page/diff.c"
#undef diff_apply
#undef diff_apply_under

#include "sim_world.h"

typedef void applier(unsigned char *page, const unsigned char *twin, const unsigned char *body, uint64_t bytes);

static void apply_alone(unsigned char *page, const unsigned char *twin, const unsigned char *body, uint64_t bytes)
{
    (void)twin;
    diff_apply_unseen(page, body, bytes);
}

/* One block of the diff, each byte as a diff of its own.  Returns what follows its bytes. */
static const unsigned char *apply_block(struct sim_node *home, applier *apply, unsigned char *page,
                                        const unsigned char *twin, uint32_t block, uint64_t mask,
                                        const unsigned char *bytes)
{
    for (; mask; mask &= mask - 1) {
        unsigned char single[HEADER_BYTES + MASK_BYTES + 1];
        unsigned char *end = put_mask(single, block, mask & -mask);
        *end++ = *bytes++;
        sim_tear(home);
        apply(page, twin, single, (uint64_t)(end - single));
    }
    return bytes;
}

static void apply_torn(struct sim_node *home, applier *apply, unsigned char *page, const unsigned char *twin,
                       const unsigned char *body, uint64_t bytes)
{
    for (const unsigned char *end = body + bytes; body < end;) {
        uint32_t block, count;
        memcpy(&block, body, 4);
        memcpy(&count, body + 4, 4);
        body += HEADER_BYTES;
        if (count == 0) {
            body = apply_block(home, apply, page, twin, block, load(body), body + MASK_BYTES);
            continue;
        }
        for (; count > 0; count--)
            body = apply_block(home, apply, page, twin, block++, ~(uint64_t)0, body);
    }
}

void diff_apply_under(unsigned char *page, const unsigned char *twin, const unsigned char *body, uint64_t bytes)
{
    struct sim_node *home = sim_torn(page);
    sim_changes(page);
    if (home)
        apply_torn(home, diff_apply_under_unseen, page, twin, body, bytes);
    else
        diff_apply_under_unseen(page, twin, body, bytes);
}

void diff_apply(unsigned char *page, const unsigned char *body, uint64_t bytes)
{
    struct sim_node *home = sim_torn(page);
    sim_changes(page);
    if (home)
        apply_torn(home, apply_alone, page, NULL, body, bytes);
    else
        diff_apply_unseen(page, body, bytes);
}
