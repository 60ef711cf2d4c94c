#include "runtime/inquiry.h"

#include "machine/clock.h"
#include "runtime/progress.h"

enum { ASKED_AGAIN_NS = 50 * 1000 * 1000 };

/* A quarter of what is too long; 0: no inquiry. */
static int64_t period_ns(const struct runtime *runtime)
{
    return (int64_t)(runtime->options.watchdog_s * 1e9 / 4);
}

void inquiry_ask_for_absent(struct runtime *runtime, struct wait *wait)
{
    int64_t period = period_ns(runtime), now = clock_now_ns();
    bool wanted = atomic_load_explicit(&runtime->roll_wanted, memory_order_relaxed) &&
                  atomic_exchange(&runtime->roll_wanted, false);
    if (!wanted && (period == 0 || now - wait->since_ns < period))
        return;
    if (now - runtime->shared->roll_called_ns < (wanted ? ASKED_AGAIN_NS : period))
        return; /* by a thread of another process of the node */
    shared_lock(runtime);
    runtime->shared->roll_called_ns = now;
    roll_call(runtime->node);
    node_settle(runtime->node);
    progress_flush(runtime);
    shared_unlock(runtime);
}

void inquiry_report_locks(struct runtime *runtime)
{
    int64_t period = period_ns(runtime), now = period ? clock_now_ns() : 0;
    if (period == 0 || now - runtime->shared->locks_reported_ns < period)
        return;
    runtime->shared->locks_reported_ns = now;
    trail_tell(runtime->node);
    node_settle(runtime->node);
    progress_flush(runtime);
}
