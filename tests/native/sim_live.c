/* live.c for the simulator: others touch a page between two pieces of it that are copied or compared. */
#define live_copy live_copy_unseen
#define live_differs live_differs_unseen
#include "protocol/page/live.c"
#undef live_copy
#undef live_differs

#include "sim_world.h"

void live_copy(unsigned char *to, const unsigned char *page, uint64_t bytes)
{
    struct sim_node *home = sim_torn(page);
    uint64_t piece = home ? PIECE_BYTES : bytes;
    for (uint64_t at = 0; at < bytes; at += piece) {
        if (home)
            sim_tear(home);
        live_copy_unseen(to + at, page + at, piece);
    }
    if (home)
        sim_tear(home);
}

bool live_differs(const unsigned char *page, const unsigned char *twin, uint64_t bytes, uint64_t twin_bytes)
{
    struct sim_node *home = sim_torn(page);
    if (!home)
        return live_differs_unseen(page, twin, bytes, twin_bytes);
    bool differs = false;
    for (uint64_t at = 0; at < bytes && !differs; at += PIECE_BYTES) {
        sim_tear(home);
        differs = live_differs_unseen(page + at, twin + at % twin_bytes, PIECE_BYTES, PIECE_BYTES);
    }
    sim_tear(home);
    return differs;
}
