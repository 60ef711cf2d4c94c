/* mutex - mutual exclusion among threads of several processes, in memory that they all map.
 *
 * States: free -> held by a rank -> free; held -> left, when its holder has died.  Its data are half changed then, so
 * it is never free again: every thread that wants it is told.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

/* `holder` is the rank that took it last; `taken` counts how often it was taken. */
struct mutex {
    pthread_mutex_t native;
    _Atomic int holder;
    _Atomic unsigned taken;
};

enum mutex_answer { MUTEX_TAKEN, MUTEX_BUSY, MUTEX_LEFT, MUTEX_MINE };

void mutex_make(struct mutex *mutex);

/* TAKEN; LEFT: `holder` has died with it; MINE: this thread has it already; BUSY: it cannot be had at once. */
enum mutex_answer mutex_try(struct mutex *mutex, int rank);
enum mutex_answer mutex_take(struct mutex *mutex, int rank);
void mutex_give(struct mutex *mutex);
