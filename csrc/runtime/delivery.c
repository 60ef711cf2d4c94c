#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/delivery.h"

#include <stdio.h>
#include <time.h>

#include "runtime/death.h"
#include "runtime/runtime.h"

static void *take(void *context, uint64_t bytes)
{
    struct runtime *runtime = context;
    return pool_take_persistent(&runtime->node->pool, bytes);
}

static void give(void *context, void *buffer, uint64_t bytes)
{
    struct runtime *runtime = context;
    pool_give_persistent(&runtime->node->pool, buffer, bytes);
}

static void sent(void *context, void *token)
{
    struct runtime *runtime = context;
    node_sent(runtime->node, token);
}

_Static_assert(SEGMENT_NOWHERE == TRANSPORT_NOWHERE, "a segment is handed on as a part");

static int place(void *context, int source, void *buffer, uint64_t bytes, struct transport_part *parts, void **token)
{
    struct runtime *runtime = context;
    struct message *message = message_wrap(&runtime->node->pool, source, buffer, bytes);
    node_place(runtime->node, message);
    for (int i = 0; i < message->segment_count; i++)
        parts[i] =
            (struct transport_part){message->segments[i].at, message->segments[i].bytes, message->segments[i].offset};
    *token = message;
    return message->segment_count;
}

/* MPI fails when a rank dies, often before its name is known: its neighbour, or mpiexec, reports it first. */
static void broken(void *context, const char *text)
{
    enum { BROKEN_S = 2 };
    char line[1024];
    nanosleep(&(struct timespec){.tv_sec = BROKEN_S}, NULL);
    snprintf(line, sizeof line, "%s (has another rank died? then mpiexec or another rank says which)", text);
    death_end_all(context, line, 1, true);
}

struct transport_buffers delivery_buffers(struct runtime *runtime)
{
    return (struct transport_buffers){
        .context = runtime, .take = take, .give = give, .broken = broken, .sent = sent, .place = place};
}
