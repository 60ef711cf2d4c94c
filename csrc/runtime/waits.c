#include "runtime/waits.h"

#include "machine/clock.h"
#include "runtime/thread.h"

/* The wait that this thread left at the end of a slice, to look at Python's signals. */
static _Thread_local struct {
    enum wait_kind kind; /* WAIT_NONE: it was done */
    uint64_t object;
    int64_t since_ns, reported_ns;
} left;

static void begin(struct wait *wait, enum wait_kind kind, uint64_t object)
{
    bool again = left.kind == kind && left.object == object;
    int64_t now = clock_now_ns();
    atomic_store_explicit(&wait->slice_ns, now, memory_order_relaxed);
    atomic_store_explicit(&wait->since_ns, again ? left.since_ns : now, memory_order_relaxed);
    atomic_store_explicit(&wait->reported_ns, again ? left.reported_ns : 0, memory_order_relaxed);
    atomic_store_explicit(&wait->object, object, memory_order_relaxed);
    atomic_store_explicit(&wait->thread, thread_number(), memory_order_relaxed);
    atomic_store_explicit(&wait->beside, 0, memory_order_relaxed);
}

static bool take_record(struct wait *wait)
{
    int none = WAIT_NONE;
    return atomic_load_explicit(&wait->kind, memory_order_relaxed) == WAIT_NONE &&
           atomic_compare_exchange_strong(&wait->kind, &none, -1);
}

/* The record that this thread had last, which is free as a rule, or the next free one. */
static struct wait *free_record(struct waits *waits)
{
    static _Thread_local int last;
    static _Thread_local struct wait unobserved; /* more threads wait than the table holds */
    for (int k = 0; k < WAITS_MAX; k++) {
        int i = (last + k) % WAITS_MAX;
        if (!take_record(&waits->records[i]))
            continue;
        int used = atomic_load_explicit(&waits->used, memory_order_relaxed);
        while (used <= i && !atomic_compare_exchange_weak(&waits->used, &used, i + 1))
            ;
        last = i;
        return &waits->records[i];
    }
    return &unobserved;
}

uint64_t waits_end(struct wait *wait, bool done)
{
    uint64_t waited = (uint64_t)(clock_now_ns() - wait->slice_ns);
    left.kind = done ? WAIT_NONE : (enum wait_kind)atomic_load(&wait->kind);
    left.object = wait->object;
    left.since_ns = wait->since_ns;
    left.reported_ns = wait->reported_ns;
    atomic_store_explicit(&wait->kind, WAIT_NONE, memory_order_release);
    return waited;
}

struct wait *waits_begin(struct waits *waits, enum wait_kind kind, uint64_t object)
{
    struct wait *wait = free_record(waits);
    begin(wait, kind, object);
    atomic_store_explicit(&wait->kind, (int)kind, memory_order_release);
    return wait;
}

int64_t waits_deadline_ns(const struct wait *wait, double slice_s)
{
    return slice_s < 0 ? -1 : atomic_load_explicit(&wait->slice_ns, memory_order_relaxed) + (int64_t)(slice_s * 1e9);
}

enum wait_kind waits_of(const struct waits *waits, uint32_t thread, uint64_t *object)
{
    int used = atomic_load(&waits->used);
    for (int i = 0; i < used; i++) {
        const struct wait *wait = &waits->records[i];
        int kind = atomic_load(&wait->kind);
        if (kind <= WAIT_NONE || atomic_load(&wait->thread) != thread)
            continue;
        *object = atomic_load(&wait->object);
        return (enum wait_kind)kind;
    }
    return WAIT_NONE;
}
