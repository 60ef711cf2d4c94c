/* Why blocks are returned later: MPI finishes a send while this process has its own mutex only, and the node's may be
 * held for longer than the list takes. */
#include "runtime/shared.h"

#include <stdio.h>
#include <unistd.h>

#include "runtime/death.h"
#include "runtime/thread.h"

enum { LOCK_TRIES = 120 };

/* In the block itself. */
struct returned {
    struct returned *next;
    uint64_t bytes;
};

int shared_begin(struct runtime *runtime)
{
    struct shared *shared = arena_chunk(&runtime->arena, sizeof *shared);
    if (!shared)
        return -1;
    shared->waits = arena_chunk(&runtime->arena, runtime->nodes.spaces * sizeof *shared->waits);
    shared->stats = arena_chunk(&runtime->arena, runtime->nodes.spaces * sizeof *shared->stats);
    if (!shared->waits || !shared->stats)
        return -1;
    mutex_make(&shared->mutex);
    *arena_root(&runtime->arena) = shared;
    return 0;
}

void shared_join(struct runtime *runtime)
{
    runtime->shared = *arena_root(&runtime->arena);
    runtime->node = runtime->shared->node;
    runtime->waits = &runtime->shared->waits[runtime->nodes.space];
    runtime->stats = &runtime->shared->stats[runtime->nodes.space];
}

/* The node is half changed when the holder of its mutex dies, so this process ends, too. */
static void end_beside(const struct runtime *runtime) __attribute__((cold, noreturn));
static void end_beside(const struct runtime *runtime)
{
    char text[128];
    int rank = runtime->shared->mutex.holder;
    snprintf(text, sizeof text, "rank %d died while it held the mutex of its node, which ranks of its host share",
             rank);
    death_end_all(runtime, text, 1, false);
}

static void enter(struct runtime *runtime, enum mutex_answer answer)
{
    struct node *node = runtime->node;
    if (answer == MUTEX_LEFT)
        end_beside(runtime);
    if (answer == MUTEX_MINE)
        death_end_all(runtime, "the runtime touched shared memory itself (an argument of a dsm call lies in it?)", 1,
                      true);
    if (!node)
        return;
    node_enter(node, &runtime->port, runtime->nodes.space);
    runtime->pool_ready = false;
    while (runtime->returned) {
        struct returned *block = runtime->returned;
        runtime->returned = block->next;
        pool_give_persistent(&node->pool, block, block->bytes);
    }
}

/* Sleeping usually costs more than the holder takes, also where it is another process. */
void shared_lock(struct runtime *runtime)
{
    struct mutex *mutex = &runtime->shared->mutex;
    enum mutex_answer answer = mutex_try(mutex, runtime->rank);
    for (unsigned tries = 0; answer == MUTEX_BUSY && tries < LOCK_TRIES; tries++) {
        thread_relax(runtime->options.oversubscribed);
        answer = mutex_try(mutex, runtime->rank);
    }
    enter(runtime, answer == MUTEX_BUSY ? mutex_take(mutex, runtime->rank) : answer);
}

bool shared_try(struct runtime *runtime)
{
    enum mutex_answer answer = mutex_try(&runtime->shared->mutex, runtime->rank);
    if (answer != MUTEX_BUSY)
        enter(runtime, answer);
    return answer != MUTEX_BUSY;
}

void shared_unlock(struct runtime *runtime)
{
    struct node *node = runtime->node;
    if (node)
        protection_flush(node); /* it is this process' kernel that is to be told */
    runtime->flush_due = node && (node->outbox || node->wake);
    runtime->postponed = node && node->fetches->postponed;
    mutex_give(&runtime->shared->mutex);
}

int shared_holder(struct runtime *runtime, unsigned *taken)
{
    struct mutex *mutex = &runtime->shared->mutex;
    enum mutex_answer answer = mutex_try(mutex, runtime->rank);
    if (answer == MUTEX_LEFT)
        end_beside(runtime);
    if (answer == MUTEX_TAKEN)
        mutex_give(mutex);
    *taken = atomic_load(&mutex->taken);
    return answer == MUTEX_BUSY ? atomic_load(&mutex->holder) : -1;
}

void shared_return(struct runtime *runtime, void *block, uint64_t bytes)
{
    struct returned *returned = block;
    *returned = (struct returned){.next = runtime->returned, .bytes = bytes};
    runtime->returned = returned;
}
