/* live - reads of a page that threads may be writing at the same time.
 *
 * What these threads write while a page is read is found by the next look: each byte is read once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* A snapshot. */
void live_copy(unsigned char *to, const unsigned char *page, uint64_t bytes);
/* Does the page differ from its twin, which repeats every `twin_bytes`? */
bool live_differs(const unsigned char *page, const unsigned char *twin, uint64_t bytes, uint64_t twin_bytes);
