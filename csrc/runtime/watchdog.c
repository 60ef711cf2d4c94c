/* A thread of its own, because the others may be the ones that hang: a fault inside an MPI call that holds MPI's locks
 * stops every thread that calls MPI, the service thread as well.  So nothing here calls MPI, and the mutex is only tried. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/runtime.h"

enum { TICK_NS = 200 * 1000 * 1000, TRIES = 100, LINE_BYTES = 512 };

/* The wait that this thread left at the end of a slice, to look at Python's signals. */
static _Thread_local struct {
    enum wait_kind kind;            /* WAIT_NONE: it was done */
    uint64_t object;
    int64_t since_ns, told_ns;
} left;

static void begin(struct wait *wait, enum wait_kind kind, uint64_t object)
{
    bool again = left.kind == kind && left.object == object;
    int64_t now = runtime_now_ns();
    atomic_store_explicit(&wait->slice_ns, now, memory_order_relaxed);
    atomic_store_explicit(&wait->since_ns, again ? left.since_ns : now, memory_order_relaxed);
    atomic_store_explicit(&wait->told_ns, again ? left.told_ns : 0, memory_order_relaxed);
    atomic_store_explicit(&wait->object, object, memory_order_relaxed);
    atomic_store_explicit(&wait->thread, runtime_thread(), memory_order_relaxed);
    atomic_store_explicit(&wait->beside, 0, memory_order_relaxed);
}

static bool take_record(struct wait *wait)
{
    int none = WAIT_NONE;
    return atomic_load_explicit(&wait->kind, memory_order_relaxed) == WAIT_NONE &&
           atomic_compare_exchange_strong(&wait->kind, &none, -1);
}

/* The record that this thread had last, which is free as a rule, or the next free one. */
static struct wait *free_record(struct runtime *runtime)
{
    static _Thread_local int last;
    static _Thread_local struct wait untold;    /* more threads wait than the table holds: this one unobserved */
    for (int k = 0; k < WAITS_MAX; k++) {
        int i = (last + k) % WAITS_MAX;
        if (!take_record(&runtime->waits[i]))
            continue;
        int used = atomic_load_explicit(&runtime->waits_used, memory_order_relaxed);
        while (used <= i && !atomic_compare_exchange_weak(&runtime->waits_used, &used, i + 1))
            ;
        last = i;
        return &runtime->waits[i];
    }
    return &untold;
}

struct wait *watchdog_begin(struct runtime *runtime, enum wait_kind kind, uint64_t object)
{
    struct wait *wait = free_record(runtime);
    begin(wait, kind, object);
    atomic_store_explicit(&wait->kind, (int)kind, memory_order_release);
    return wait;
}

uint64_t watchdog_end(struct wait *wait, bool done)
{
    uint64_t waited = (uint64_t)(runtime_now_ns() - wait->slice_ns);
    left.kind = done ? WAIT_NONE : (enum wait_kind)atomic_load(&wait->kind);
    left.object = wait->object;
    left.since_ns = wait->since_ns;
    left.told_ns = wait->told_ns;
    atomic_store_explicit(&wait->kind, WAIT_NONE, memory_order_release);
    return waited;
}

/* ---- words --------------------------------------------------------------------------------------------------- */

struct line {
    char text[LINE_BYTES];
    size_t used;
};

static void say(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct line *line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(line->text + line->used, sizeof line->text - line->used, format, arguments);
    va_end(arguments);
    if (n > 0)
        line->used += (size_t)n < sizeof line->text - line->used ? (size_t)n : sizeof line->text - line->used - 1;
}

static void say_page(struct line *line, const struct runtime *runtime, const struct wait *wait, bool known)
{
    say(line, "in a %s fault", atomic_load(&wait->kind) == WAIT_READ ? "read" : "write");
    struct region *region = known ? region_at(&runtime->node->regions, wait->object) : NULL;
    if (!region) {
        say(line, " at offset %llu of the shared range", (unsigned long long)wait->object);
        return;
    }
    uint64_t index = (wait->object - region->offset) / region->page_bytes;
    struct page *page = region_page_if(region, index);
    say(line, " on array %u '%s', page %llu (bytes %llu to %llu)", region->id, region->name, (unsigned long long)index,
        (unsigned long long)(index * region->page_bytes), (unsigned long long)((index + 1) * region->page_bytes - 1));
    if (page && page_fetch(page) && page_fetch(page)->awaited)
        say(line, ", for an answer of rank %d", page_fetch(page)->peer);
    else if (runtime->node->collection.holding)
        say(line, ", for the end of a garbage collection");
}

static void say_lock(struct line *line, const struct runtime *runtime, const struct wait *wait, bool known)
{
    say(line, "for lock %llu", (unsigned long long)wait->object);
    struct lock *lock = known ? lock_find(runtime->node, (uint32_t)wait->object) : NULL;
    if (lock && lock->held)
        say(line, ", held by another thread of this rank");
    else if (lock)
        say(line, ", asked of its manager, rank %u", lock->id % (uint32_t)runtime->size);
}

static void say_meeting(struct line *line, const struct runtime *runtime, const struct wait *wait, bool known)
{
    say(line, "in %s", meeting_kind_name((enum meeting_kind)wait->object));
    if (!known)
        return;
    const struct meeting *meeting = &runtime->node->meetings[MEETING_THREADS];
    bool missing = false;
    for (int k = 0; k < MEETING_CHILDREN; k++) {
        node_id child = meeting_child(runtime->rank, k, runtime->size);
        if (child != NODE_NONE && meeting->own && !meeting->children[k]) {
            say(line, missing ? ", rank %d" : ", for rank %d", child);
            missing = true;
        }
    }
    if (!missing && runtime->rank)
        say(line, ", for ranks that tell rank %d", meeting_parent(runtime->rank));
}

/* At its home a counter is raised at once: who waits there waits until another thread or rank raises it. */
static void say_counter(struct line *line, const struct runtime *runtime, const struct wait *wait)
{
    unsigned long long counter = wait->object, home = counter % (unsigned long long)runtime->size;
    if (home == (unsigned long long)runtime->rank)
        say(line, "to be notified (counter %llu)", counter);
    else
        say(line, "for counter %llu of rank %llu", counter, home);
}

static void tell(struct runtime *runtime, struct wait *wait, int64_t now, bool known)
{
    struct line line = {.used = 0};
    say(&line, "dsm: rank %d of %d has waited %.1f s ", runtime->rank, runtime->size,
        (double)(now - wait->since_ns) * 1e-9);
    switch (atomic_load(&wait->kind)) {
    case WAIT_READ:
    case WAIT_WRITE: say_page(&line, runtime, wait, known); break;
    case WAIT_LOCK: say_lock(&line, runtime, wait, known); break;
    case WAIT_MEETING: say_meeting(&line, runtime, wait, known); break;
    case WAIT_COUNTER: say_counter(&line, runtime, wait); break;
    default: return;                /* it has ended meanwhile */
    }
    if (!known)
        say(&line, "; the runtime is held by a thread inside MPI: was unpinned shared memory given to an MPI call? "
                   "Use dsm.pinned(view) around the call");
    say(&line, "\n");
    wait->told_ns = now;
    ssize_t written = write(STDERR_FILENO, line.text, line.used);
    (void)written;
}

void watchdog_print(struct runtime *runtime, int64_t longer_than_ns, int64_t again_after_ns)
{
    int64_t now = runtime_now_ns();
    bool known = false, tried = false;
    int used = atomic_load(&runtime->waits_used);
    for (int i = 0; i < used; i++) {
        struct wait *wait = &runtime->waits[i];
        if (atomic_load(&wait->kind) <= WAIT_NONE || now - wait->since_ns < longer_than_ns)
            continue;
        if (wait->told_ns && now - wait->told_ns < again_after_ns)
            continue;
        for (int k = 0; k < TRIES && !known && !tried; k++) {
            known = pthread_mutex_trylock(&runtime->mutex) == 0;
            if (!known)
                nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
        }
        tried = true;
        tell(runtime, wait, now, known);
    }
    if (known)
        pthread_mutex_unlock(&runtime->mutex);
}

/* ---- the neighbour --------------------------------------------------------------------------------------------- */

/* A process number means something only inside its namespace. */
struct process {
    uint64_t number, names;
};

static struct process own_process(void)
{
    struct stat names = {0};
    stat("/proc/self/ns/pid", &names);
    return (struct process){.number = (uint64_t)getpid(), .names = (uint64_t)names.st_ino};
}

/* A rank that is killed cannot say so, and what mpiexec says names no rank: so each rank watches the next one of its
 * host, as one file that becomes readable. */
void watchdog_choose_neighbour(struct runtime *runtime)
{
    struct process own = own_process(), *all = calloc((size_t)runtime->size, sizeof *all);
    runtime->neighbour_file = -1;
    if (transport_agree_min(runtime->transport, all != NULL) != 1) {
        free(all);
        return;
    }
    transport_gather(runtime->transport, &own, (int)sizeof own, all);
    for (int k = 1; k < runtime->size && runtime->neighbour_file < 0; k++) {
        int peer = (runtime->rank + k) % runtime->size;
        if (!doorbell_same_host(runtime->doorbell, peer) || all[peer].names != own.names)
            continue;
        runtime->neighbour = peer;
        runtime->neighbour_file = (int)syscall(SYS_pidfd_open, (pid_t)all[peer].number, 0);
        break;
    }
    free(all);
}

/* Sleep for a while, or until the neighbour is gone. */
static void look_at_neighbour(struct runtime *runtime)
{
    enum { TICK_MS = TICK_NS / 1000000 };
    struct pollfd gone = {.fd = runtime->neighbour_file, .events = POLLIN};
    if (poll(&gone, 1, TICK_MS) <= 0 || atomic_load(&runtime->stopping))
        return;
    /* There is a millisecond before mpiexec kills this rank, too.  A farewell was sent before its sender died. */
    doorbell_wait(runtime->doorbell, 0);
    if (!doorbell_farewell_heard(runtime->doorbell) && !atomic_load(&runtime->stopping)) {
        char text[160];
        snprintf(text, sizeof text, "rank %d is gone without finalize: it was killed, crashed, or left by os._exit",
                 runtime->neighbour);
        runtime_die(runtime, text, 1, false);
    }
    close(runtime->neighbour_file);
    runtime->neighbour_file = -1;
}

void *watchdog_thread(void *context)
{
    struct runtime *runtime = context;
    int64_t longest = (int64_t)(runtime->options.watchdog_s * 1e9);
    progress_short_slices();
    while (!atomic_load(&runtime->stopping)) {
        look_at_neighbour(runtime);
        faults_look_from_outside(runtime);
        if (atomic_exchange(&runtime->print_waits, false))
            watchdog_print(runtime, 0, 0);
        /* A wait that goes on is told again, but rarely: once is enough to act on. */
        if (longest > 0)
            watchdog_print(runtime, longest, 10 * longest);
    }
    masks_close(&runtime->masks);
    return NULL;
}
