/* Why the signal is looked at after each acquire and barrier: pages may have become stale there, and faults will
 * follow. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/guard.h"

#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "machine/fault.h"
#include "runtime/print.h"
#include "runtime/runtime.h"

/* A library that takes it again and again is reported a few times. */
static void take_signal_back(struct runtime *runtime)
{
    enum { WARNINGS_MAX = 4 };
    if (!fault_stolen())
        return;
    fault_retake();
    /* At its end the interpreter gives back what faulthandler had taken. */
    if (runtime->at_exit || runtime->thefts++ >= WARNINGS_MAX)
        return;
    print_warning(
        runtime,
        "SIGSEGV was taken after dsm.init() (by %s), as signal.signal(), faulthandler.enable() and its disable() do; "
        "dsm has taken it back and passes real segmentation faults on. Do so before dsm.init()",
        fault_thief());
}

static void take_mask_back(struct runtime *runtime)
{
    static atomic_bool warned;
    if (masks_unblock() && !atomic_exchange(&warned, true))
        print_warning(runtime,
                      "a thread of the program has blocked SIGSEGV, and would have ended this process without a "
                      "word when it touched a page that is not here; dsm has unblocked it. Leave SIGSEGV and SIGBUS "
                      "out of pthread_sigmask(), or start with `python -m dsm run`");
}

/* At all threads, or only when there are more or fewer than at the last time.  Only a warning: the mask of another
 * thread cannot be changed. */
static void look_at_masks(struct runtime *runtime, bool all)
{
    struct masks *masks = &runtime->masks;
    char name[MASKS_NAME_BYTES], others[32] = "";
    if (!all && !masks_threads_changed(masks))
        return;
    unsigned found = masks_look(masks, name);
    if (found == 0)
        return;
    if (found > 1)
        snprintf(others, sizeof others, ", and so do %u more", found - 1);
    print_warning(
        runtime,
        "thread %d ('%s') blocks SIGSEGV%s: this process dies without a word when such a thread touches a page that "
        "is not here. Start with `python -m dsm run`, or set LD_PRELOAD as `python -m dsm info` says",
        (int)masks->found[masks->found_count - 1], name, others);
}

void guard_look(struct runtime *runtime, bool stale)
{
    struct timespec tick;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &tick);
    int64_t now = (int64_t)tick.tv_sec * 1000000000 + tick.tv_nsec;
    bool moved = now != runtime->guarded_ns;
    runtime->guarded_ns = now;
    if (stale || moved)
        take_signal_back(runtime);
    if (moved) {
        take_mask_back(runtime);
        look_at_masks(runtime, false);
    }
}

void guard_look_from_outside(struct runtime *runtime)
{
    enum { LOOKS_OF_COUNT = 25 };
    static unsigned looks;
    if (pthread_mutex_trylock(&runtime->mutex) != 0)
        return;
    take_signal_back(runtime);
    look_at_masks(runtime, ++looks % LOOKS_OF_COUNT == 0);
    pthread_mutex_unlock(&runtime->mutex);
}

void guard_begin(struct runtime *runtime)
{
    masks_open(&runtime->masks);
    look_at_masks(runtime, true);
}

void guard_end(struct runtime *runtime)
{
    masks_close(&runtime->masks);
}
