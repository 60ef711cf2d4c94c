/* diff.c for the simulator: before a diff changes a page in its place, other threads of the node may look at it. */
#define diff_apply diff_apply_unseen
#define diff_apply_under diff_apply_under_unseen
#include "protocol/page/diff.c"
#undef diff_apply
#undef diff_apply_under

#include "sim_world.h"

void diff_apply_under(unsigned char *page, const unsigned char *twin, const unsigned char *body, uint64_t bytes)
{
    sim_changes(page);
    diff_apply_under_unseen(page, twin, body, bytes);
}

void diff_apply(unsigned char *page, const unsigned char *body, uint64_t bytes)
{
    sim_changes(page);
    diff_apply_unseen(page, body, bytes);
}
