#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "mutex.h"

#include <errno.h>

void mutex_make(struct mutex *mutex)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&mutex->native, &attributes);
    pthread_mutexattr_destroy(&attributes);
    atomic_store(&mutex->holder, -1);
}

/* The name of a holder that died stays: the next process that is told of it may die of it, too. */
static enum mutex_answer answer(struct mutex *mutex, int error, int rank)
{
    unsigned taken = atomic_load_explicit(&mutex->taken, memory_order_relaxed);
    switch (error) {
    case 0:
        atomic_store_explicit(&mutex->holder, rank, memory_order_relaxed);
        atomic_store_explicit(&mutex->taken, taken + 1, memory_order_relaxed);
        return MUTEX_TAKEN;
    case EBUSY: return MUTEX_BUSY;
    case EDEADLK: return MUTEX_MINE;
    default: return MUTEX_LEFT;
    }
}

enum mutex_answer mutex_try(struct mutex *mutex, int rank)
{
    return answer(mutex, pthread_mutex_trylock(&mutex->native), rank);
}

enum mutex_answer mutex_take(struct mutex *mutex, int rank)
{
    return answer(mutex, pthread_mutex_lock(&mutex->native), rank);
}

void mutex_give(struct mutex *mutex)
{
    pthread_mutex_unlock(&mutex->native);
}
