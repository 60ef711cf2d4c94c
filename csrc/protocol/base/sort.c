/* Heap sort (Williams 1964): the arrays are mostly in order already, but nothing may grow with the square of
 * their length, and nothing may allocate. */
#include "protocol/base/sort.h"

static void sift_down(void **items, uint32_t at, uint32_t count, sort_before *before)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count)
            return;
        if (child + 1 < count && before(items[child], items[child + 1]))
            child++;
        if (!before(items[at], items[child]))
            return;
        void *moved = items[at];
        items[at] = items[child];
        items[child] = moved;
        at = child;
    }
}

void sort_pointers(void **items, uint32_t count, sort_before *before)
{
    bool sorted = true;
    for (uint32_t i = 1; i < count && sorted; i++)
        sorted = !before(items[i], items[i - 1]);
    if (sorted)
        return;
    for (uint32_t i = count / 2; i-- > 0;)
        sift_down(items, i, count, before);
    for (uint32_t last = count; last-- > 1;) {
        void *top = items[0];
        items[0] = items[last];
        items[last] = top;
        sift_down(items, 0, last, before);
    }
}
