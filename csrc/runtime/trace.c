/* The node keeps its last events in a ring; with DSM_TRACE they are also written out, before the mutex is given up, by
 * write(2) from a buffer on the stack: a trace must work inside a fault. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "machine/clock.h"
#include "runtime/death.h"
#include "runtime/error.h"
#include "runtime/runtime.h"
#include "runtime/trace.h"

enum { TRACE_BYTES = 4096, LINE_BYTES = 128, PATH_BYTES = 1024 };

static int write_whole(int file, const char *text, size_t bytes)
{
    while (bytes) {
        ssize_t written = write(file, text, bytes);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -1;
        text += written;
        bytes -= (size_t)written;
    }
    return 0;
}

int trace_open(struct runtime *runtime)
{
    static const char head[] = "time_us\tstamp\tevent\tregion\tpage\trank\n";
    char path[PATH_BYTES];
    runtime->trace = -1;
    if (!runtime->options.trace_path)
        return 0;
    snprintf(path, sizeof path, "%s.%d", runtime->options.trace_path, runtime->rank);
    runtime->trace = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (runtime->trace < 0 || write_whole(runtime->trace, head, sizeof head - 1) != 0)
        return error_set(DSM_E_ARGUMENT, "DSM_TRACE: cannot write %s: %s", path, strerror(errno));
    return 0;
}

static size_t put_line(char *text, const struct event *event, int64_t now_ns)
{
    int n = snprintf(text, LINE_BYTES, "%lld\t%llu\t%s\t%u\t%llu\t%d\n", (long long)(now_ns / 1000),
                     (unsigned long long)event->stamp, context_event_name(event->kind), event->region,
                     (unsigned long long)event->object, event->peer);
    return n > 0 ? (size_t)n : 0;
}

void trace_write(struct runtime *runtime)
{
    const struct node *node = runtime->node;
    char text[TRACE_BYTES];
    size_t used = 0;
    int64_t now_ns = clock_now_ns();
    if (node->event_count - runtime->shared->traced > EVENTS_KEPT) {
        used += (size_t)snprintf(text, LINE_BYTES, "# %llu events lost\n",
                                 (unsigned long long)(node->event_count - runtime->shared->traced - EVENTS_KEPT));
        runtime->shared->traced = node->event_count - EVENTS_KEPT;
    }
    while (runtime->shared->traced < node->event_count) {
        used += put_line(text + used, &node->events[runtime->shared->traced++ % EVENTS_KEPT], now_ns);
        if (used > sizeof text - LINE_BYTES || runtime->shared->traced == node->event_count) {
            if (write_whole(runtime->trace, text, used) != 0)
                death_end_all(runtime, "the trace cannot be written: is the disk full?", 1, false);
            used = 0;
        }
    }
}
