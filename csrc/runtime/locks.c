/* Calls of dsm.h about locks. */
#include <stdio.h>

#include "machine/clock.h"
#include "runtime/call.h"
#include "runtime/error.h"
#include "runtime/faults.h"
#include "runtime/guard.h"
#include "runtime/thread.h"

int dsm_lock_new(const char *what, const char *name, uint32_t *id)
{
    struct runtime *runtime = call_lock_to_make(what);
    if (!runtime)
        return DSM_E_STATE;
    struct lock *lock = lock_use(runtime->node, runtime->made.locks);
    if (lock) {
        *id = runtime->made.locks++;
        snprintf(lock->name, sizeof lock->name, "%s", name);
        made_add(&runtime->made, what);
    }
    progress_unlock(runtime);
    return lock ? DSM_OK : error_set(DSM_E_MEMORY, "more than %d locks", TABLE_MAX);
}

static bool lock_answered(struct runtime *runtime, struct question *question)
{
    question->lock.answer = lock_poll(runtime->node, question->lock.lock, question->lock.ticket);
    node_settle(runtime->node);
    return question->lock.answer != LOCK_WAIT;
}

static struct lock *lock_of(struct runtime *runtime, uint32_t id)
{
    struct lock *lock = lock_find(runtime->node, id);
    if (!lock)
        error_set(DSM_E_ARGUMENT, "no lock %u", id);
    return lock;
}

/* Behind other threads of this rank a thread sleeps until it is the first, however many there are: then it waits
 * for the lock. */
static bool wait_in_line(struct runtime *runtime, struct question *question, int64_t deadline_ns)
{
    struct lock_waiter *waiter = lock_waiter_of(runtime->node, question->lock.lock, question->lock.ticket);
    if (question->lock.lock->queue != waiter) {
        struct sleeper *sleeper = pool_take(&runtime->node->pool, sizeof *sleeper);
        waiter->sleeper = sleeper;
        bool first = progress_sleep(runtime, sleeper, deadline_ns);
        waiter->sleeper = NULL;
        pool_give(&runtime->node->pool, sleeper, sizeof *sleeper);
        if (!first)
            return false;
    }
    return progress_wait(runtime, question, deadline_ns);
}

/* A thread has left the line. */
static void rouse_first(const struct lock *lock)
{
    if (lock->queue && lock->queue->sleeper)
        progress_rouse(lock->queue->sleeper);
}

/* Under the mutex. */
static int acquire(struct runtime *runtime, struct lock *lock, bool trying, const char *site, uint64_t *ticket,
                   double slice_s)
{
    if (*ticket == 0)
        *ticket = lock_enqueue(runtime->node, lock, thread_number(), site, trying);
    struct question question = {.answered = lock_answered, .lock = {.lock = lock, .ticket = *ticket}};
    if (lock_answered(runtime, &question)) {
        progress_flush(runtime); /* the token was here: no wait, no time taken */
        guard_look(runtime, false);
    } else {
        struct wait *wait = waits_begin(runtime->waits, WAIT_FOR_LOCK, lock->id);
        bool done = wait_in_line(runtime, &question, waits_deadline_ns(wait, slice_s));
        uint64_t waited = waits_end(wait, done);
        runtime->stats->wait_lock_ns += waited;
        lock->stats[runtime->node->me].wait_ns += waited;
        if (!done)
            return call_not_yet("acquire()");
        guard_look(runtime, true);
    }
    *ticket = 0;
    rouse_first(lock);
    if (question.lock.answer == LOCK_REFUSED)
        return DSM_AGAIN;
    faults_catch_up(runtime);
    return DSM_OK;
}

static int acquire_by_id(uint32_t id, bool trying, const char *site, uint64_t *ticket, double slice_s)
{
    struct runtime *runtime = call_enter("acquire()");
    if (!runtime)
        return DSM_E_STATE;
    struct lock *lock = lock_of(runtime, id);
    int error = lock ? acquire(runtime, lock, trying, site, ticket, slice_s) : DSM_E_ARGUMENT;
    progress_leave(runtime);
    return error;
}

int dsm_acquire(uint32_t lock, const char *site, uint64_t *ticket, double slice_s)
{
    return acquire_by_id(lock, false, site, ticket, slice_s);
}

/* Without a mutex.  NULL: none, or the node is not alone, or dsm is not active. */
static struct lock *lock_of_alone(const struct runtime *runtime, uint32_t id)
{
    bool alone = runtime_state() == RUNTIME_ACTIVE && alone_is(runtime->node);
    return alone ? lock_find(runtime->node, id) : NULL;
}

/* A node that is alone needs no mutex for a lock that is free, or will be in a moment: to stand in line and be woken
 * costs more than most threads hold a lock. */
static bool take_alone(struct runtime *runtime, struct lock *lock, const char *site)
{
    enum { TRIES_ALONE = 100 };
    struct lock_user user = {.rank = (uint32_t)runtime->rank, .thread = thread_number()};
    for (unsigned tries = runtime->options.oversubscribed ? 1 : TRIES_ALONE; tries > 0; tries--) {
        if (lock_take_alone(runtime->node, lock, runtime->nodes.space, &user, site))
            return true;
        thread_relax(false);
    }
    return false;
}

static int acquire_alone(struct runtime *runtime, struct lock *lock, const char *site)
{
    if (!take_alone(runtime, lock, site))
        return DSM_AGAIN;
    if (changes_due(runtime->node, runtime->nodes.space)) {
        progress_lock(runtime);
        changes_follow(runtime->node);
        progress_unlock(runtime);
    }
    return DSM_OK;
}

int dsm_acquire_here(uint32_t id, const char *site)
{
    uint64_t ticket = 0;
    struct lock *alone = lock_of_alone(runtime_current, id);
    if (alone)
        return acquire_alone(runtime_current, alone, site);
    struct runtime *runtime = call_enter("acquire()");
    if (!runtime)
        return DSM_E_STATE;
    struct lock *lock = lock_of(runtime, id);
    int error = lock ? DSM_AGAIN : DSM_E_ARGUMENT;
    if (lock && lock->token && !lock_held(lock) && !lock->queue)
        error = acquire(runtime, lock, false, site, &ticket, -1);
    progress_leave(runtime);
    return error;
}

int dsm_try_acquire(uint32_t lock, const char *site, uint64_t *ticket, double slice_s)
{
    return acquire_by_id(lock, true, site, ticket, slice_s);
}

int dsm_acquire_cancel(uint32_t id, uint64_t *ticket)
{
    struct runtime *runtime = call_enter("acquire()");
    if (!runtime)
        return DSM_E_STATE;
    struct lock *lock = lock_of(runtime, id);
    if (lock && *ticket) {
        lock_cancel(runtime->node, lock, *ticket);
        rouse_first(lock);
        runtime->shared->orphaned = true;
        doorbell_ring(runtime->doorbell, runtime->rank); /* the service thread looks after the request now */
        *ticket = 0;
        node_settle(runtime->node);
        progress_flush(runtime);
    }
    progress_leave(runtime);
    return lock ? DSM_OK : DSM_E_ARGUMENT;
}

static bool released_alone(struct runtime *runtime, uint32_t id)
{
    struct lock *lock = lock_of_alone(runtime, id);
    return lock && lock_give_alone(lock, (uint32_t)runtime->rank);
}

int dsm_release(uint32_t id)
{
    if (released_alone(runtime_current, id))
        return DSM_OK;
    struct runtime *runtime = call_enter("release()");
    if (!runtime)
        return DSM_E_STATE;
    int error = DSM_OK;
    struct lock *lock = lock_of(runtime, id);
    if (!lock) {
        error = DSM_E_ARGUMENT;
    } else {
        /* A request for the lock is received here, or a thread that takes it in a loop would keep it for its rank. */
        progress_glance(runtime);
        if (!lock_release(runtime->node, lock, (uint32_t)runtime->rank))
            error = error_set(DSM_E_STATE, "release of lock %u%s%s%s, which no thread of rank %d holds", id,
                              lock->name[0] ? " '" : "", lock->name, lock->name[0] ? "'" : "", runtime->rank);
        node_settle(runtime->node);
        progress_flush(runtime);
    }
    progress_leave(runtime);
    return error;
}

bool dsm_locked(uint32_t id)
{
    struct runtime *runtime = call_lock("locked()");
    if (!runtime)
        return false;
    struct lock *lock = lock_find(runtime->node, id);
    bool held = lock && lock_held(lock) && lock_holder(lock) == (uint32_t)runtime->rank;
    progress_unlock(runtime);
    return held;
}
