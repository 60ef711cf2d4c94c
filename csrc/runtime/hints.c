/* Calls beside the protocol's own: to be notified, to fetch pages early, to know the job. */
#include "runtime/runtime.h"

uint64_t dsm_job(void)
{
    return runtime_current ? runtime_current->job : 0;
}

/* ---- to be notified ------------------------------------------------------------------------------------------ */

struct change {
    uint32_t counter;
    int64_t seen;
};

static bool has_changed(struct runtime *runtime, void *context)
{
    const struct change *change = context;
    return runtime->node->counters->items[change->counter].value != change->seen;
}

/* Leave the core to others: the service thread receives what comes. */
static void sleep_until_changed(struct runtime *runtime, const struct change *change, int64_t deadline_ns)
{
    struct awaiting own = {
        .next = runtime->awaiting, .link = &runtime->awaiting, .counter = change->counter, .seen = change->seen};
    if (own.next)
        own.next->link = &own.next;
    runtime->awaiting = &own;
    progress_sleep(runtime, &own.sleeper, deadline_ns);
    *own.link = own.next;
    if (own.next)
        own.next->link = own.link;
}

/* What comes soon is seen soonest by a thread that polls; but who waits to be notified may wait for minutes. */
static bool await_change(struct runtime *runtime, struct change *change, int64_t deadline_ns)
{
    enum { POLL_NS = 1000 * 1000 };
    int64_t soon = clock_now_ns() + POLL_NS;
    bool last = deadline_ns >= 0 && deadline_ns <= soon;
    bool done = progress_wait(runtime, has_changed, change, last ? deadline_ns : soon);
    if (!done && !last && runtime_state() == RUNTIME_ACTIVE)
        sleep_until_changed(runtime, change, deadline_ns);
    return done || has_changed(runtime, change);
}

int dsm_counter_await(uint32_t counter, int64_t seen, uint32_t beside, double slice_s, int64_t *value)
{
    struct runtime *runtime = calls_enter("a wait for a counter");
    if (!runtime)
        return DSM_E_STATE;
    if (counter >= runtime->node->counters->count || counter % (uint32_t)runtime->size != (uint32_t)runtime->rank) {
        progress_leave(runtime);
        return runtime_error(DSM_E_ARGUMENT, "counter %u is not at home on rank %d", counter, runtime->rank);
    }
    struct change change = {.counter = counter, .seen = seen};
    struct wait *wait = watchdog_begin(runtime, WAIT_FOR_COUNTER, counter);
    wait->beside = beside;
    bool done = await_change(runtime, &change, deadline_of(wait, slice_s));
    *value = runtime->node->counters->items[counter].value;
    runtime->stats.wait_counter_ns += watchdog_end(wait, done);
    faults_look(runtime, false);
    progress_leave(runtime);
    return done ? DSM_OK : calls_not_yet("a wait for a counter");
}

/* ---- prefetching --------------------------------------------------------------------------------------------- */

/* Nobody waits for the answers: the service thread receives them if no thread of this rank happens to. */
static void add_runs(struct runtime *runtime, const struct region *region, uint64_t from, uint64_t bytes,
                     uint64_t stride, uint64_t runs)
{
    for (uint64_t k = 0; k < runs; k++) {
        uint64_t at = from + k * stride;
        prefetch_add(runtime->node, region, at / region->page_bytes, (at + bytes - 1) / region->page_bytes + 1);
    }
    node_settle(runtime->node);
    progress_flush(runtime);
    if (runtime->node->prefetches->under_way && runtime->options.progress == DSM_PROGRESS_DOORBELL)
        doorbell_ring(runtime->doorbell, runtime->rank);
}

int dsm_prefetch(const void *address, uint64_t bytes, uint64_t stride, uint64_t runs)
{
    if (bytes == 0 || runs == 0)
        return DSM_OK;
    struct runtime *runtime = calls_enter("prefetch()");
    if (!runtime)
        return DSM_E_STATE;
    uint64_t offset = (uint64_t)((uintptr_t)address - (uintptr_t)runtime->memory.application);
    const struct region *region = offset < runtime->memory.bytes ? region_at(runtime->node->regions, offset) : NULL;
    uint64_t from = region ? offset - region->offset : 0, room = region ? region->pages * region->page_bytes - from : 0;
    bool fits = bytes <= room && (runs == 1 || stride <= (room - bytes) / (runs - 1));
    if (fits)
        add_runs(runtime, region, from, bytes, stride, runs);
    progress_leave(runtime);
    return fits ? DSM_OK
                : runtime_error(DSM_E_ARGUMENT, "prefetch: %llu bytes at %p do not lie in one shared array",
                                (unsigned long long)bytes, address);
}
