/* A thread of its own, because the others may be the ones that hang: a fault inside an MPI call that holds MPI's locks
 * stops every thread that calls MPI, the service thread as well.  So nothing here calls MPI, and the mutex is only tried. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/runtime.h"

enum { TICK_NS = 200 * 1000 * 1000, TRIES = 100, LINE_BYTES = 4096, STACKS_MAX = 8, FRAMES_MAX = 4, STACK_BYTES = 512 };

/* The wait that this thread left at the end of a slice, to look at Python's signals. */
static _Thread_local struct {
    enum wait_kind kind; /* WAIT_NONE: it was done */
    uint64_t object;
    int64_t since_ns, told_ns, asked_ns;
} left;

static void begin(struct wait *wait, enum wait_kind kind, uint64_t object)
{
    bool again = left.kind == kind && left.object == object;
    int64_t now = clock_now_ns();
    atomic_store_explicit(&wait->slice_ns, now, memory_order_relaxed);
    atomic_store_explicit(&wait->since_ns, again ? left.since_ns : now, memory_order_relaxed);
    atomic_store_explicit(&wait->told_ns, again ? left.told_ns : 0, memory_order_relaxed);
    atomic_store_explicit(&wait->asked_ns, again ? left.asked_ns : 0, memory_order_relaxed);
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
    static _Thread_local struct wait untold; /* more threads wait than the table holds: this one unobserved */
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

uint64_t watchdog_end(struct wait *wait, bool done)
{
    uint64_t waited = (uint64_t)(clock_now_ns() - wait->slice_ns);
    left.kind = done ? WAIT_NONE : (enum wait_kind)atomic_load(&wait->kind);
    left.object = wait->object;
    left.since_ns = wait->since_ns;
    left.told_ns = wait->told_ns;
    left.asked_ns = wait->asked_ns;
    atomic_store_explicit(&wait->kind, WAIT_NONE, memory_order_release);
    return waited;
}

/* ---- asking others ------------------------------------------------------------------------------------------- */

/* A quarter of what is too long; 0: nobody asks. */
static int64_t period_ns(const struct runtime *runtime)
{
    return (int64_t)(runtime->options.watchdog_s * 1e9 / 4);
}

static void ask_who_is_missing(struct runtime *runtime, struct wait *wait)
{
    int64_t period = period_ns(runtime), now = clock_now_ns();
    int64_t last = wait->asked_ns ? wait->asked_ns : wait->since_ns;
    bool wanted = atomic_load_explicit(&runtime->roll_wanted, memory_order_relaxed) &&
                  atomic_exchange(&runtime->roll_wanted, false);
    if (!wanted && (period == 0 || now - last < period))
        return;
    wait->asked_ns = now;
    roll_call(runtime->node);
    node_settle(runtime->node);
    progress_flush(runtime);
}

struct wait *watchdog_begin(struct runtime *runtime, enum wait_kind kind, uint64_t object)
{
    struct wait *wait = free_record(runtime);
    begin(wait, kind, object);
    atomic_store_explicit(&wait->kind, (int)kind, memory_order_release);
    if (kind == WAIT_FOR_MEETING)
        ask_who_is_missing(runtime, wait);
    return wait;
}

void watchdog_tell_of_locks(struct runtime *runtime)
{
    int64_t period = period_ns(runtime), now = period ? clock_now_ns() : 0;
    if (period == 0 || now - runtime->told_of_locks_ns < period)
        return;
    runtime->told_of_locks_ns = now;
    trail_tell(runtime->node);
    node_settle(runtime->node);
    progress_flush(runtime);
}

enum wait_kind watchdog_waits(const struct runtime *runtime, uint32_t thread, uint64_t *object)
{
    int used = atomic_load(&runtime->waits_used);
    for (int i = 0; i < used; i++) {
        const struct wait *wait = &runtime->waits[i];
        int kind = atomic_load(&wait->kind);
        if (kind <= WAIT_NONE || atomic_load(&wait->thread) != thread)
            continue;
        *object = atomic_load(&wait->object);
        return (enum wait_kind)kind;
    }
    return WAIT_NONE;
}

/* ---- stacks -------------------------------------------------------------------------------------------------- */

/* Python's faulthandler writes the stack of the thread that gets a signal, without the GIL, into a file; then it raises the
 * signal once more for the handler that was there before, which tells that the stack is complete. */
static struct {
    int signal, file;
    void (*handler)(int);
    _Atomic bool written, failed;
    char skip[2][STACK_BYTES]; /* files that begin like this are not the program's */
} stacks = {.file = -1};

static void stack_written(int signal)
{
    (void)signal;
    atomic_store(&stacks.written, true);
}

int dsm_stack_signal(int *file)
{
    struct sigaction own = {.sa_handler = stack_written, .sa_flags = SA_RESTART}, before;
    *file = memfd_create("dsm stacks", MFD_CLOEXEC);
    for (int signal = SIGRTMAX - 1; signal > SIGRTMIN && *file >= 0; signal--)
        if (sigaction(signal, NULL, &before) == 0 && !(before.sa_flags & SA_SIGINFO) && before.sa_handler == SIG_DFL &&
            sigaction(signal, &own, NULL) == 0)
            return stacks.signal = signal;
    return 0;
}

void dsm_stack_ready(int file, const char *skip, const char *skip_too)
{
    struct sigaction now;
    if (sigaction(stacks.signal, NULL, &now) != 0)
        return;
    snprintf(stacks.skip[0], STACK_BYTES, "%s", skip);
    snprintf(stacks.skip[1], STACK_BYTES, "%s", skip_too);
    stacks.handler = now.sa_handler;
    stacks.file = file;
}

/* "  File "PATH", line N in NAME": the frames of the program, from the innermost one outwards. */
static void read_frames(char *text, char *stack, size_t room)
{
    size_t used = 0;
    int frames = 0;
    for (char *rest, *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char path[STACK_BYTES], name[STACK_BYTES];
        unsigned at;
        if (sscanf(line, " File \"%511[^\"]\", line %u in %511[^\n]", path, &at, name) != 3 ||
            strncmp(path, stacks.skip[0], strlen(stacks.skip[0])) == 0 ||
            strncmp(path, stacks.skip[1], strlen(stacks.skip[1])) == 0)
            continue;
        if (frames++ == FRAMES_MAX)
            break;
        int n =
            snprintf(stack + used, room - used, "%s %s:%u in %s", frames == 1 ? "at" : ", called at", path, at, name);
        used += n > 0 && (size_t)n < room - used ? (size_t)n : 0;
        stack[used] = 0;
    }
}

/* Where in the program the thread is; false: it does not say. */
static bool stack_of(uint32_t thread, char *stack, size_t room)
{
    struct sigaction now;
    char text[LINE_BYTES];
    stack[0] = 0;
    if (stacks.file < 0 || stacks.failed || sigaction(stacks.signal, NULL, &now) != 0 ||
        now.sa_handler != stacks.handler)
        return false;
    if (ftruncate(stacks.file, 0) != 0 || lseek(stacks.file, 0, SEEK_SET) != 0)
        return false;
    atomic_store(&stacks.written, false);
    if (syscall(SYS_tgkill, getpid(), (pid_t)thread, stacks.signal) != 0)
        return false;
    for (int k = 0; k < TRIES && !atomic_load(&stacks.written); k++)
        nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
    stacks.failed = !stacks.written; /* it blocks signals: its stack would be taken for another's */
    ssize_t count = pread(stacks.file, text, sizeof text - 1, 0);
    if (stacks.failed || count <= 0)
        return false;
    text[count] = 0;
    read_frames(text, stack, room);
    return stack[0] != 0;
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

static void say_page(struct line *line, const struct runtime *runtime, enum wait_kind kind, uint64_t offset, bool known)
{
    say(line, "in a %s fault", kind == WAIT_FOR_READ ? "read" : "write");
    struct region *region = known ? region_at(runtime->node->regions, offset) : NULL;
    if (!region) {
        say(line, " at offset %llu of the shared range", (unsigned long long)offset);
        return;
    }
    uint64_t index = (offset - region->offset) / region->page_bytes;
    say(line, " on array %u '%s', page %llu (bytes %llu to %llu)", region->id, region->name, (unsigned long long)index,
        (unsigned long long)(index * region->page_bytes), (unsigned long long)((index + 1) * region->page_bytes - 1));
}

static void say_page_source(struct line *line, const struct runtime *runtime, uint64_t offset)
{
    struct region *region = region_at(runtime->node->regions, offset);
    struct page *page = region ? region_page_if(region, (offset - region->offset) / region->page_bytes) : NULL;
    if (page && page_fetch(page) && page_fetch(page)->awaited)
        say(line, ", for an answer of rank %d", page_fetch(page)->peer);
    else if (region && context_holds(runtime->node))
        say(line, ", for the end of a garbage collection");
}

static void say_name(struct line *line, const char *name)
{
    if (name[0])
        say(line, " '%s'", name);
}

static void say_lock(struct line *line, const struct runtime *runtime, uint64_t id, bool known)
{
    say(line, "for lock %llu", (unsigned long long)id);
    const struct lock *lock = known ? lock_find(runtime->node, (uint32_t)id) : NULL;
    if (lock)
        say_name(line, lock->name);
}

static void say_meeting(struct line *line, uint64_t kind)
{
    say(line, "in %s", ballot_kind_name((enum meeting_kind)kind));
}

/* At its home a counter is raised at once: who waits there waits until another thread or rank raises it. */
static void say_counter(struct line *line, const struct runtime *runtime, int rank, uint64_t counter, bool known)
{
    int home = (int)(counter % (uint64_t)runtime->size);
    if (home == rank)
        say(line, "to be notified (counter %llu", (unsigned long long)counter);
    else
        say(line, "for the sum of a counter of rank %d (counter %llu", home, (unsigned long long)counter);
    if (known && counter < runtime->node->counters->count)
        say_name(line, runtime->node->counters->items[counter].name);
    say(line, ")");
}

static void say_what(struct line *line, const struct runtime *runtime, int rank, enum wait_kind kind, uint64_t object,
                     bool known)
{
    switch (kind) {
    case WAIT_FOR_READ:
    case WAIT_FOR_WRITE: say_page(line, runtime, kind, object, known); return;
    case WAIT_FOR_LOCK: say_lock(line, runtime, object, known); return;
    case WAIT_FOR_MEETING: say_meeting(line, object); return;
    case WAIT_FOR_COUNTER: say_counter(line, runtime, rank, object, known); return;
    case WAIT_NONE:
    case WAIT_KINDS: break;
    }
    say(line, "no more");
}

static void say_holders(struct line *line, const struct runtime *runtime, uint64_t id)
{
    const struct lock *lock = lock_find(runtime->node, (uint32_t)id);
    struct trail trail = {0};
    if (lock)
        trail_follow(runtime->node, lock, &trail);
    if (lock && trail.count == 0)
        say(line, ", asked of its manager, rank %u", lock->id % (uint32_t)runtime->size);
    for (uint32_t i = 0; i < trail.count; i++) {
        const struct hop *hop = &trail.hops[i];
        say(line, ", held by thread %u of rank %d", hop->thread, hop->node);
        if (hop->site[0])
            say(line, ", which took it at %s", hop->site);
        if (hop->waits == WAIT_NONE)
            continue;
        say(line, " and waits ");
        say_what(line, runtime, hop->node, (enum wait_kind)hop->waits, hop->object, true);
    }
    if (!trail_is_circle(&trail))
        return;
    if (trail.count == 1)
        say(line, ": a deadlock, since that thread has the lock itself; dsm.RLock is one that it may take again");
    else
        say(line, ": a deadlock, unless one of them gives up; take these locks in the same order everywhere");
}

static void sort(node_id *nodes, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++)
        for (uint32_t k = i; k > 0 && nodes[k - 1] > nodes[k]; k--) {
            node_id larger = nodes[k - 1];
            nodes[k - 1] = nodes[k];
            nodes[k] = larger;
        }
}

/* Who has not arrived has said so itself, if it answers at all; else the arrivals that this rank lacks are what is known. */
static void say_missing(struct line *line, const struct runtime *runtime)
{
    const struct meeting *meeting = &runtime->node->meetings[MEETING_THREADS];
    struct roll roll = *runtime->node->roll;
    if (meeting->state != MEETING_ARRIVED) {
        say(line, ", which is over: for pages that are to be up to date after it");
        return;
    }
    uint32_t named = roll.absent < ROLL_NAMED_MAX ? roll.absent : ROLL_NAMED_MAX;
    bool missing = roll_known(runtime->node);
    sort(roll.named, named);
    for (uint32_t i = 0; i < named && missing; i++)
        say(line, "%s%d", i ? ", " : roll.absent == 1 ? ", for rank " : ", for ranks ", roll.named[i]);
    if (missing && roll.absent > named)
        say(line, " and %u more", roll.absent - named);
    for (int k = 0; k < TREE_CHILDREN && !roll_known(runtime->node); k++) {
        node_id child = tree_child(runtime->rank, k, runtime->size);
        if (child != NODE_NONE && meeting->own && !meeting->children[k]) {
            say(line, missing ? ", rank %d" : ", for rank %d", child);
            missing = true;
        }
    }
    if (!missing && runtime->rank)
        say(line, ", for ranks that tell rank %d", tree_parent(runtime->rank));
}

static void say_for_whom(struct line *line, const struct runtime *runtime, enum wait_kind kind, uint64_t object)
{
    switch (kind) {
    case WAIT_FOR_READ:
    case WAIT_FOR_WRITE: say_page_source(line, runtime, object); break;
    case WAIT_FOR_LOCK: say_holders(line, runtime, object); break;
    case WAIT_FOR_MEETING: say_missing(line, runtime); break;
    default: break;
    }
}

/* ---- lines --------------------------------------------------------------------------------------------------- */

/* Threads that wait for the same. */
struct group {
    int kind;
    uint64_t object;
    int64_t since_ns, told_ns; /* the first of them; the last line about one of them */
    unsigned count;
    uint32_t threads[STACKS_MAX];
};

static struct group group_of(struct runtime *runtime, const struct wait *first, int64_t now)
{
    struct group group = {.kind = first->kind, .object = first->object, .since_ns = now};
    int used = atomic_load(&runtime->waits_used);
    for (int i = 0; i < used; i++) {
        const struct wait *wait = &runtime->waits[i];
        if (wait->kind != group.kind || wait->object != group.object)
            continue;
        if (group.count < STACKS_MAX)
            group.threads[group.count] = wait->thread;
        group.count += 1 + wait->beside;
        group.since_ns = wait->since_ns < group.since_ns ? wait->since_ns : group.since_ns;
        group.told_ns = wait->told_ns > group.told_ns ? wait->told_ns : group.told_ns;
    }
    return group;
}

static void mark_told(struct runtime *runtime, const struct group *group, int64_t told_ns)
{
    int used = atomic_load(&runtime->waits_used);
    for (int i = 0; i < used; i++)
        if (runtime->waits[i].kind == group->kind && runtime->waits[i].object == group->object)
            runtime->waits[i].told_ns = told_ns;
}

static bool try_lock(struct runtime *runtime)
{
    for (int k = 0; k < TRIES; k++) {
        if (pthread_mutex_trylock(&runtime->mutex) == 0)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
    }
    return false;
}

static void tell(struct runtime *runtime, const struct group *group, int64_t now, bool *stuck)
{
    struct line line = {.used = 0};
    bool known = !*stuck && try_lock(runtime);
    *stuck = !known; /* it is not tried for each line */
    say(&line, "dsm: rank %d of %d has waited %.1f s ", runtime->rank, runtime->size,
        (double)(now - group->since_ns) * 1e-9);
    say_what(&line, runtime, runtime->rank, (enum wait_kind)group->kind, group->object, known);
    if (known)
        say_for_whom(&line, runtime, (enum wait_kind)group->kind, group->object);
    if (group->count > 1)
        say(&line, "; so %s %u other thread%s of this rank", group->count > 2 ? "do" : "does", group->count - 1,
            group->count > 2 ? "s" : "");
    if (known)
        pthread_mutex_unlock(&runtime->mutex);
    else
        say(&line, "; the runtime is held by a thread inside MPI: was unpinned shared memory given to an MPI call? "
                   "Use dsm.pinned(view) around the call");
    say(&line, "\n");
    char stack[2 * STACK_BYTES];
    for (unsigned i = 0; i < STACKS_MAX && i < group->count && group->threads[i]; i++)
        if (stack_of(group->threads[i], stack, sizeof stack) && !strstr(line.text, stack)) /* each place once */
            say(&line, "dsm: rank %d of %d: thread %u is %s\n", runtime->rank, runtime->size, group->threads[i], stack);
    ssize_t written = write(STDERR_FILENO, line.text, line.used);
    (void)written;
}

void watchdog_print(struct runtime *runtime, int64_t longer_than_ns, int64_t again_after_ns)
{
    int64_t now = clock_now_ns();
    int used = atomic_load(&runtime->waits_used);
    bool stuck = false;
    for (int i = 0; i < used; i++) {
        const struct wait *wait = &runtime->waits[i];
        if (atomic_load(&wait->kind) <= WAIT_NONE || now - wait->since_ns < longer_than_ns || wait->told_ns == now ||
            (wait->told_ns && now - wait->told_ns < again_after_ns))
            continue;
        struct group group = group_of(runtime, wait, now);
        bool tells = group.count && (!group.told_ns || now - group.told_ns >= again_after_ns);
        mark_told(runtime, &group, tells ? now : group.told_ns);
        if (tells)
            tell(runtime, &group, now, &stuck);
    }
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
    bool print = false;
    progress_short_slices();
    while (!atomic_load(&runtime->stopping)) {
        look_at_neighbour(runtime);
        faults_look_from_outside(runtime);
        if (print)
            watchdog_print(runtime, 0, 0);
        print = atomic_exchange(&runtime->print_waits, false);
        atomic_store(&runtime->roll_wanted, print); /* who waits in a meeting asks before the next tick */
        /* A wait that goes on is told again, but rarely: once is enough to act on. */
        if (longest > 0)
            watchdog_print(runtime, longest, 10 * longest);
    }
    masks_close(&runtime->masks);
    return NULL;
}
