#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/death.h"

#include <stdio.h>
#include <unistd.h>

#include "machine/mpi_process.h"
#include "runtime/print.h"
#include "runtime/runtime.h"

enum { PATIENCE_S = 2 };

static void print_events(const struct node *node)
{
    enum { EVENTS_SHOWN = 24 };
    uint64_t count = node->event_count < EVENTS_SHOWN ? node->event_count : EVENTS_SHOWN;
    for (uint64_t i = node->event_count - count; i < node->event_count; i++) {
        const struct event *event = &node->events[i % EVENTS_KEPT];
        char line[160];
        snprintf(line, sizeof line, "dsm:   stamp %llu %s region %u page %llu rank %d\n",
                 (unsigned long long)event->stamp, context_event_name(event->kind), event->region,
                 (unsigned long long)event->object, event->peer);
        print_text(line);
    }
}

/* Not for ever: an exit handler may want a lock that this thread holds (the GIL). */
void death_stand_aside(const struct runtime *runtime)
{
    if (runtime->dying != gettid())
        sleep(PATIENCE_S);
    _exit(runtime->dying_status);
}

void death_end_all(const struct runtime *runtime, const char *text, int status, bool events)
{
    struct runtime *own = runtime_current;
    int nobody = 0;
    if (own && !atomic_compare_exchange_strong(&own->dying, &nobody, gettid()))
        death_stand_aside(own);
    if (own)
        own->dying_status = status;
    if (own && own->shared && !atomic_compare_exchange_strong(&own->shared->dying, &(int){0}, own->rank + 1))
        sleep(PATIENCE_S); /* another process of the node has said why, and ends this one */
    int rank = -1, size = 0;
    if (runtime) {
        rank = runtime->rank;
        size = runtime->size;
    } else {
        mpi_process_world(&rank, &size);
    }
    print_line(rank, size, text);
    if (runtime && runtime->profile)
        print_line(rank, size, "the profile is lost with the job: it is written at the end of the program");
    if (events && runtime && runtime->node)
        print_events(runtime->node);
    for (int peer = 0; runtime && runtime->doorbell && peer < runtime->size; peer++)
        doorbell_farewell(runtime->doorbell, peer);
    if (!runtime || runtime->transport)
        mpi_process_abort(status);
    _exit(status);
}

void dsm_abort(const char *text, int status)
{
    death_end_all(runtime_current, text, status, false);
}
