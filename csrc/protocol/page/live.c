/* The C library reads every byte once, in any order and width. */
#include "protocol/page/live.h"

#include <string.h>

void live_copy(unsigned char *to, const unsigned char *page, uint64_t bytes)
{
    memcpy(to, page, bytes);
}

bool live_differs(const unsigned char *page, const unsigned char *twin, uint64_t bytes, uint64_t twin_bytes)
{
    for (uint64_t at = 0; at < bytes; at += twin_bytes)
        if (memcmp(page + at, twin, twin_bytes) != 0)
            return true;
    return false;
}
