#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/service.h"

#include <sched.h>
#include <time.h>

#include "machine/clock.h"
#include "runtime/bells.h"
#include "runtime/inquiry.h"
#include "runtime/progress.h"
#include "runtime/thread.h"

enum {
    SLEEP_NS = 100 * 1000 * 1000, /* behind a bell that got lost */
    POLL_NS = 100 * 1000,
    ORPHANED_NS = 1000 * 1000, /* a grant for a thread that timed out is not rung, and others wait behind it */
    LOOKS_HEARD_NEAR = 40,
    LOOKS_HEARD_FAR = 300,
    LOOKS_UNHEARD = 10,
    LOOKS_MORE_NEAR = 3,
    LOOKS_MORE_FAR = 10,
    SPINS_NEAR = 4,
    SPINS_FAR = 100
};

/* Something is under way that wants more polling soon, whether or not a bell rings. */
static bool is_busy(const struct runtime *runtime)
{
    return progress_under_way(runtime) || runtime->rings_due || runtime->node->collection.phase != COLLECTION_IDLE ||
           runtime->node->prefetches->under_way;
}

/* A peer rings after it has sent, but MPI does not show the message at the first look (with MPICH 5 nearly always
 * at the second), and the bell may have been for another message than the one that is found: one look, and then
 * sleep, would leave it until the slow poll, or the one after that.  Where this thread runs on the requester's
 * core, each look after an answer delays that answer; between hosts MPI has to be looked at several times before it
 * has sent what it calls sent. */
static bool poll_patiently(struct runtime *runtime, bool heard)
{
    bool any = false;
    int heard_looks = runtime->one_host ? LOOKS_HEARD_NEAR : LOOKS_HEARD_FAR,
        looks = heard ? heard_looks : LOOKS_UNHEARD;
    int more = runtime->one_host ? LOOKS_MORE_NEAR : LOOKS_MORE_FAR;
    for (int empty = 0; empty < looks && !atomic_load(&runtime->locking); empty++)
        if (progress_poll(runtime)) {
            any = true;
            looks = more;
            empty = 0;
        }
    return any;
}

/* Until the next look.  True: a bell was heard. */
static bool pause_service(struct runtime *runtime, bool busy)
{
    if (runtime->options.progress == DSM_PROGRESS_SPIN) {
        sched_yield();
        return false;
    }
    if (runtime->options.progress == DSM_PROGRESS_POLL) {
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
        return false;
    }
    bool soon = runtime->shared->orphaned || runtime->options.chaos_seed;
    return doorbell_wait(runtime->doorbell, busy ? POLL_NS : soon ? ORPHANED_NS : SLEEP_NS);
}

void *service_thread(void *context)
{
    struct runtime *runtime = context;
    unsigned quiet = 0; /* looks without a message since there was one */
    bool busy = false;
    progress_become_service();
    thread_ask_short_slices();
    while (!atomic_load(&runtime->stopping)) {
        bool heard = false;
        if (busy && quiet < (runtime->one_host ? SPINS_NEAR : SPINS_FAR))
            sched_yield();
        else
            heard = pause_service(runtime, busy);
        progress_lock_own(runtime);
        runtime->stats->bells_heard += heard;
        busy = false;
        if (runtime->polling && heard)
            runtime->bell_ns = clock_now_ns();
        if (!runtime->polling) {
            quiet = poll_patiently(runtime, heard) ? 0 : quiet + 1;
            if (heard && quiet && atomic_load(&runtime->locking))
                runtime->bell_ns = clock_now_ns();
            if (runtime->rings_due)
                bells_ring_once(runtime, clock_now_ns());
        }
        shared_lock(runtime);
        if (!runtime->polling) {
            busy = is_busy(runtime);
            runtime->shared->orphaned = runtime->shared->orphaned && lock_orphaned(runtime->node);
        }
        if (!busy)
            quiet = 0;
        inquiry_report_locks(runtime);
        shared_unlock(runtime);
        progress_unlock_own(runtime);
    }
    return NULL;
}
