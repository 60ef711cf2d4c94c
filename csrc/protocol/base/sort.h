/* sort - an array of pointers, in place.
 *
 * The arrays sorted here are mostly in order already, but nothing may grow with the square of what a program touches,
 * and nothing may allocate: a heap sort, after a look whether there is anything to do.
 */
#pragma once

#include "protocol/base/types.h"

typedef bool sort_before(const void *a, const void *b);

void sort_pointers(void **items, uint32_t count, sort_before *before);
