/* common - in how many bytes two writers of a page meet: of none, the page is shared falsely.  For the port's notes
 * (context_noted) only. */
#pragma once

#include "protocol/page/diff.h"

/* Bytes that both diffs name. */
uint64_t common_of_diffs(const unsigned char *a, uint64_t a_bytes, const unsigned char *b, uint64_t b_bytes);
/* Bytes that the diff names, and in which the page differs from its twin. */
uint64_t common_with_twin(const unsigned char *page, const unsigned char *twin, const unsigned char *body,
                          uint64_t bytes);
