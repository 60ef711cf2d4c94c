#include "runtime/watchdog.h"

#include <stdio.h>

#include "machine/beacon.h"
#include "machine/clock.h"
#include "runtime/guard.h"
#include "runtime/neighbour.h"
#include "runtime/print.h"
#include "runtime/report.h"
#include "runtime/shared.h"
#include "runtime/thread.h"

/* A process that is stopped while it has the mutex of its node stops all of the node, before they can say what they
 * wait for. */
static void look_at_holder(struct runtime *runtime, int64_t longest)
{
    static unsigned before;
    static int64_t since_ns, due_ns;
    unsigned taken;
    int holder = shared_holder(runtime, &taken);
    int64_t now = clock_now_ns();
    if (holder < 0 || holder == runtime->rank || taken != before) {
        before = taken;
        since_ns = now;
        due_ns = now + longest;
    } else if (longest > 0 && now >= due_ns) {
        char text[200];
        due_ns = now + 10 * longest;
        snprintf(text, sizeof text,
                 "rank %d has held the mutex of its node, which ranks of its host share, for %.1f s: is it stopped "
                 "(SIGSTOP, a debugger), or swapped out?",
                 holder, (double)(now - since_ns) * 1e-9);
        print_line(runtime->rank, runtime->size, text);
    }
}

/* Sends a line to `dsm run --progress`, if that has started this job. */
static void tell_progress(struct runtime *runtime, int beacon)
{
    enum { TICKS = 2, STATE_BYTES = 400 };
    static unsigned ticks;
    char text[STATE_BYTES];
    if (beacon >= 0 && ticks++ % TICKS == 0)
        beacon_send(beacon, text, report_progress(runtime, text, sizeof text));
}

void *watchdog_thread(void *context)
{
    enum { TICK_MS = 200 };
    struct runtime *runtime = context;
    int64_t longest = (int64_t)(runtime->options.watchdog_s * 1e9);
    int beacon =
        runtime->options.watch_port ? beacon_open(runtime->options.watch_address, runtime->options.watch_port) : -1;
    bool print = false;
    thread_ask_short_slices();
    while (!atomic_load(&runtime->stopping)) {
        neighbour_watch(runtime, TICK_MS);
        guard_look_from_outside(runtime);
        look_at_holder(runtime, longest);
        tell_progress(runtime, beacon);
        if (print)
            report_waits(runtime, 0, 0);
        print = atomic_exchange(&runtime->print_waits, false);
        atomic_store(&runtime->roll_wanted, print); /* a thread in a meeting asks before the next tick */
        /* A wait that goes on is reported again, but rarely: one line is enough to act on. */
        if (longest > 0)
            report_waits(runtime, longest, 10 * longest);
    }
    guard_end(runtime);
    return NULL;
}
