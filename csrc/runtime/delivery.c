#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/delivery.h"

#include <stdio.h>
#include <time.h>

#include "runtime/death.h"
#include "runtime/shared.h"

static void *take(void *context, uint64_t bytes)
{
    struct runtime *runtime = context;
    shared_lock(runtime);
    void *buffer = pool_take_persistent(&runtime->node->pool, bytes);
    shared_unlock(runtime);
    return buffer;
}

static void give(void *context, void *buffer, uint64_t bytes)
{
    shared_return(context, buffer, bytes);
}

static void sent(void *context, void *token)
{
    struct runtime *runtime = context;
    shared_lock(runtime);
    node_sent(runtime->node, token);
    shared_unlock(runtime);
}

static int place(void *context, int source, void *buffer, uint64_t bytes, struct transport_part *parts, void **token)
{
    struct runtime *runtime = context;
    shared_lock(runtime);
    struct message *message = message_wrap(&runtime->node->pool, runtime->nodes.of[source], source, buffer, bytes);
    node_place(runtime->node, message);
    for (int i = 0; i < message->segment_count; i++)
        parts[i] = (struct transport_part){message->segments[i].at, message->segments[i].bytes};
    *token = message;
    shared_unlock(runtime);
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
