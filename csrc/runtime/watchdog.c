#include "runtime/watchdog.h"

#include "runtime/guard.h"
#include "runtime/neighbour.h"
#include "runtime/report.h"
#include "runtime/runtime.h"
#include "runtime/thread.h"

void *watchdog_thread(void *context)
{
    enum { TICK_MS = 200 };
    struct runtime *runtime = context;
    int64_t longest = (int64_t)(runtime->options.watchdog_s * 1e9);
    bool print = false;
    thread_ask_short_slices();
    while (!atomic_load(&runtime->stopping)) {
        neighbour_watch(runtime, TICK_MS);
        guard_look_from_outside(runtime);
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
