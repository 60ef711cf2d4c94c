/* Logs are trimmed at every cut and grow at the other end, so the array is a window that is moved down when it would
 * grow. */
#include "protocol/page/interval.h"

#include <string.h>

size_t interval_bytes(const struct interval *interval)
{
    return sizeof *interval + interval->run_count * sizeof(struct run);
}

void interval_append(struct interval_log *log, struct pool *pool, struct interval *interval)
{
    if (log->first + log->count == log->capacity && log->first) {
        memmove(log->items, log->items + log->first, log->count * sizeof *log->items);
        log->first = 0;
    }
    log->items = pool_grow(pool, log->items, &log->capacity, log->first + log->count + 1, sizeof *log->items);
    log->items[log->first + log->count++] = interval;
}

void interval_trim(struct interval_log *log, struct pool *pool, stamp cut)
{
    while (log->count && log->items[log->first]->stamp <= cut) {
        struct interval *old = log->items[log->first++];
        log->count--;
        pool_give(pool, old, interval_bytes(old));
    }
    if (log->count == 0)
        interval_forget(log, pool);
}

void interval_forget(struct interval_log *log, struct pool *pool)
{
    for (uint32_t i = 0; i < log->count; i++)
        pool_give(pool, log->items[log->first + i], interval_bytes(log->items[log->first + i]));
    if (log->items)
        pool_give(pool, log->items, log->capacity * sizeof *log->items);
    *log = (struct interval_log){0};
}

uint32_t interval_after(const struct interval_log *log, stamp known)
{
    uint32_t low = 0, high = log->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (log->items[log->first + middle]->stamp > known)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

struct interval *interval_at(const struct interval_log *log, stamp closed)
{
    uint32_t position = closed ? interval_after(log, closed - 1) : log->count;
    struct interval *interval = position < log->count ? log->items[log->first + position] : NULL;
    return interval && interval->stamp == closed ? interval : NULL;
}

void interval_check(const struct interval_log *log, stamp cut, const struct port *port)
{
    stamp last = cut;
    for (uint32_t i = 0; i < log->count; i++) {
        if (log->items[log->first + i]->stamp <= last)
            port->panic(port->context, "interval: invariant 1: stamps of a log do not ascend above the cut");
        last = log->items[log->first + i]->stamp;
    }
}
