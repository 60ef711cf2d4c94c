#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/report.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "machine/clock.h"
#include "runtime/nodes.h"
#include "runtime/progress.h"
#include "runtime/stacks.h"

enum { TRIES = 100, REPORT_BYTES = 4096, THREADS_MAX = 8 };

/* ---- words --------------------------------------------------------------------------------------------------- */

struct line {
    char text[REPORT_BYTES];
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

static void say_fetch(struct line *line, const struct runtime *runtime, uint64_t offset)
{
    node_id awaited = access_awaited(runtime->node, offset);
    if (awaited != NODE_NONE)
        say(line, ", for an answer of rank %d", nodes_first(runtime, awaited));
    else if (region_at(runtime->node->regions, offset) && context_holds(runtime->node))
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
    if (kind == MEETING_FINALIZE)
        say(line, "at the end of the program (dsm.finalize())");
    else
        say(line, "in %s", ballot_kind_name((enum meeting_kind)kind));
}

/* At its home a counter is raised at once, so a thread that waits there waits for a notification. */
static void say_counter(struct line *line, const struct runtime *runtime, int rank, uint64_t counter, bool known)
{
    node_id home = counter_home(runtime->node, (uint32_t)counter);
    if (home == runtime->nodes.of[rank])
        say(line, "for a notification (counter %llu", (unsigned long long)counter);
    else
        say(line, "for the sum of a counter of rank %d (counter %llu", nodes_first(runtime, home),
            (unsigned long long)counter);
    const struct counter *found = known ? counter_find(runtime->node, (uint32_t)counter) : NULL;
    if (found)
        say_name(line, found->name);
    say(line, ")");
}

static void say_flag(struct line *line, const struct runtime *runtime, uint64_t id)
{
    const struct flag *flag = flag_find(runtime->node, (uint32_t)id);
    say(line, "for event %llu", (unsigned long long)id);
    if (flag)
        say_name(line, flag->name);
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
    case WAIT_FOR_FLAG: say_flag(line, runtime, object); return;
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
        say(line, ", requested from its manager, rank %d",
            nodes_first(runtime, (node_id)(lock->id % runtime->nodes.count)));
    for (uint32_t i = 0; i < trail.count; i++) {
        const struct hop *hop = &trail.hops[i];
        say(line, ", held by thread %u of rank %d", hop->thread, (int)hop->rank);
        if (hop->site[0])
            say(line, ", which took it at %s", hop->site);
        if (hop->waits == WAIT_NONE)
            continue;
        say(line, " and waits ");
        say_what(line, runtime, (int)hop->rank, (enum wait_kind)hop->waits, hop->object, true);
    }
    if (!trail_is_circle(&trail))
        return;
    if (trail.count == 1)
        say(line, ": a deadlock, since that thread has the lock itself; dsm.RLock is one that it may take again");
    else
        say(line, ": a deadlock, unless one of them gives up; take these locks in the same order everywhere");
}

static void sort(int *ranks, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++)
        for (uint32_t k = i; k > 0 && ranks[k - 1] > ranks[k]; k--) {
            int larger = ranks[k - 1];
            ranks[k - 1] = ranks[k];
            ranks[k] = larger;
        }
}

/* Ranks that are missing. */
struct missing {
    int ranks[ROLL_NAMED_MAX];
    uint32_t named, count;
};

static void miss(struct missing *missing, int rank)
{
    if (missing->named < ROLL_NAMED_MAX)
        missing->ranks[missing->named++] = rank;
    missing->count++;
}

/* Those in these spaces of a node; a peer may name more spaces than its node has. */
static void miss_spaces(struct missing *missing, const struct runtime *runtime, node_id node, uint64_t spaces)
{
    for (int rank = nodes_first(runtime, node); rank < runtime->size; rank++)
        if (runtime->nodes.of[rank] == node && spaces >> nodes_space(runtime, rank) & 1)
            miss(missing, rank);
}

static void say_ranks(struct line *line, struct missing *missing)
{
    sort(missing->ranks, missing->named);
    for (uint32_t i = 0; i < missing->named; i++)
        say(line, "%s%d", i ? ", " : missing->count == 1 ? ", for rank " : ", for ranks ", missing->ranks[i]);
    if (missing->count > missing->named)
        say(line, " and %u more", missing->count - missing->named);
}

/* The arrivals that this node lacks itself. */
static void miss_children(struct missing *missing, const struct runtime *runtime)
{
    const struct meeting *meeting = &runtime->node->meetings[MEETING_THREADS];
    for (int k = 0; k < TREE_CHILDREN; k++) {
        node_id child = tree_child(runtime->node->number, k, runtime->node->size);
        if (child != NODE_NONE && meeting->own && !meeting->children[k])
            miss(missing, nodes_first(runtime, child));
    }
}

/* Ranks of this node, and those of other nodes: these have reported it, if they answer at all. */
static void say_missing(struct line *line, const struct runtime *runtime)
{
    const struct node *node = runtime->node;
    const struct meeting *meeting = &node->meetings[MEETING_THREADS];
    struct missing missing = {.count = 0};
    uint64_t joined = meeting->joined;
    bool here = joined >> runtime->nodes.space & 1; /* and not all of this node */
    if (!here && meeting->state != MEETING_ARRIVED) {
        say(line, ", which is over, for pages that it made stale");
        return;
    }
    if (here)
        miss_spaces(&missing, runtime, node->number, ~joined);
    if (roll_known(node)) {
        for (uint32_t i = 0; i < node->roll->absent && i < ROLL_NAMED_MAX; i++)
            miss_spaces(&missing, runtime, node->roll->named[i].node, node->roll->named[i].spaces);
        if (node->roll->absent > ROLL_NAMED_MAX)
            missing.count += node->roll->absent - ROLL_NAMED_MAX;
    } else if (!here) {
        miss_children(&missing, runtime);
    }
    say_ranks(line, &missing);
    if (!missing.count && node->number)
        say(line, ", for ranks that report to rank %d", nodes_first(runtime, tree_parent(node->number)));
}

static void say_source(struct line *line, const struct runtime *runtime, enum wait_kind kind, uint64_t object)
{
    switch (kind) {
    case WAIT_FOR_READ:
    case WAIT_FOR_WRITE: say_fetch(line, runtime, object); break;
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
    int64_t since_ns, reported_ns; /* the first of them; the last line about one of them */
    unsigned count;
    uint32_t threads[THREADS_MAX];
};

static struct group group_of(struct runtime *runtime, const struct wait *first, int64_t now)
{
    struct group group = {.kind = first->kind, .object = first->object, .since_ns = now};
    int used = atomic_load(&runtime->waits->used);
    for (int i = 0; i < used; i++) {
        const struct wait *wait = &runtime->waits->records[i];
        if (wait->kind != group.kind || wait->object != group.object)
            continue;
        if (group.count < THREADS_MAX)
            group.threads[group.count] = wait->thread;
        group.count += 1 + wait->beside;
        group.since_ns = wait->since_ns < group.since_ns ? wait->since_ns : group.since_ns;
        group.reported_ns = wait->reported_ns > group.reported_ns ? wait->reported_ns : group.reported_ns;
    }
    return group;
}

static void mark_reported(struct runtime *runtime, const struct group *group, int64_t reported_ns)
{
    int used = atomic_load(&runtime->waits->used);
    for (int i = 0; i < used; i++)
        if (runtime->waits->records[i].kind == group->kind && runtime->waits->records[i].object == group->object)
            runtime->waits->records[i].reported_ns = reported_ns;
}

static bool try_lock(struct runtime *runtime)
{
    for (int k = 0; k < TRIES; k++) {
        if (pthread_mutex_trylock(&runtime->mutex) == 0) {
            if (shared_try(runtime))
                return true;
            pthread_mutex_unlock(&runtime->mutex);
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
    }
    return false;
}

/* Another rank may not have made what this one waits for: the reader of their lines sees it. */
static void say_made(struct line *line, const struct runtime *runtime, enum wait_kind kind)
{
    if ((kind == WAIT_FOR_FLAG || kind == WAIT_FOR_MEETING) && runtime->made.text[0])
        say(line, "; made here since ranks last compared that: %s", runtime->made.text);
}

/* Once: a rank that never arrives may be looking at an old copy. */
static void say_remedy(struct line *line, const struct runtime *runtime, const struct group *group)
{
    static bool said;
    if (said || group->kind != WAIT_FOR_MEETING || runtime->nodes.count == 1)
        return;
    said = true;
    say(line,
        "dsm: rank %d of %d: a rank that loops until another one has changed shared memory may see the old value for "
        "ever; `python -m dsm run --races` names such accesses\n",
        runtime->rank, runtime->size);
}

static void report(struct runtime *runtime, const struct group *group, int64_t now, bool *stuck)
{
    struct line line = {.used = 0};
    unsigned before, after;
    shared_holder(runtime, &before);
    bool known = !*stuck && try_lock(runtime);
    *stuck = !known; /* then it is not tried again for the next line */
    say(&line, "dsm: rank %d of %d has waited %.1f s ", runtime->rank, runtime->size,
        (double)(now - group->since_ns) * 1e-9);
    say_what(&line, runtime, runtime->rank, (enum wait_kind)group->kind, group->object, known);
    if (known)
        say_source(&line, runtime, (enum wait_kind)group->kind, group->object);
    if (group->count > 1)
        say(&line, "; %u more thread%s of this rank wait%s for the same", group->count - 1, group->count > 2 ? "s" : "",
            group->count > 2 ? "" : "s");
    if (known)
        say_made(&line, runtime, (enum wait_kind)group->kind);
    int holder = known ? -1 : shared_holder(runtime, &after);
    if (known)
        progress_unlock(runtime);
    else if (holder >= 0 && holder != runtime->rank && after == before)
        say(&line, "; rank %d holds the mutex of its node, which ranks of its host share", holder);
    else
        say(&line, "; the runtime is held by a thread inside MPI: was unpinned shared memory given to an MPI call? "
                   "Use dsm.pinned(view) around the call");
    say(&line, "\n");
    say_remedy(&line, runtime, group);
    char stack[STACKS_BYTES];
    for (unsigned i = 0; i < THREADS_MAX && i < group->count && group->threads[i]; i++)
        if (stacks_of(group->threads[i], stack, sizeof stack) && !strstr(line.text, stack)) /* each place once */
            say(&line, "dsm: rank %d of %d: thread %u is %s\n", runtime->rank, runtime->size, group->threads[i], stack);
    ssize_t written = write(STDERR_FILENO, line.text, line.used);
    (void)written;
}

size_t report_progress(struct runtime *runtime, char *text, size_t room)
{
    static uint64_t faults, protocol_bytes; /* as they were when the mutex was free */
    struct line line = {.used = 0};
    const struct wait *longest = NULL;
    int used = atomic_load(&runtime->waits->used);
    for (int i = 0; i < used; i++) {
        const struct wait *wait = &runtime->waits->records[i];
        if (atomic_load(&wait->kind) > WAIT_NONE && (!longest || wait->since_ns < longest->since_ns))
            longest = wait;
    }
    enum wait_kind kind = longest ? (enum wait_kind)atomic_load(&longest->kind) : WAIT_NONE;
    bool known = try_lock(runtime);
    if (known) {
        struct region_stats stats = regions_total(runtime->node->regions, runtime->nodes.space);
        faults = stats.faults_read + stats.faults_write;
        protocol_bytes = runtime->node->pool.bytes_used;
    }
    say(&line, "%d %d %llu %llu %llu %lld ", runtime->rank, runtime->size, (unsigned long long)faults,
        (unsigned long long)protocol_bytes, (unsigned long long)memory_held(&runtime->memory),
        longest ? (long long)(clock_now_ns() - longest->since_ns) / 1000000 : 0);
    if (kind > WAIT_NONE)
        say_what(&line, runtime, runtime->rank, kind, longest->object, known);
    if (known)
        progress_unlock(runtime);
    snprintf(text, room, "%s", line.text);
    return line.used < room ? line.used : room - 1;
}

void report_waits(struct runtime *runtime, int64_t longer_than_ns, int64_t again_after_ns)
{
    int64_t now = clock_now_ns();
    int used = atomic_load(&runtime->waits->used);
    bool stuck = false;
    for (int i = 0; i < used; i++) {
        const struct wait *wait = &runtime->waits->records[i];
        bool waits = atomic_load(&wait->kind) > WAIT_NONE && now - wait->since_ns >= longer_than_ns;
        bool reported = wait->reported_ns && (wait->reported_ns == now || now - wait->reported_ns < again_after_ns);
        if (!waits || reported)
            continue;
        struct group group = group_of(runtime, wait, now);
        bool due = group.count && (!group.reported_ns || now - group.reported_ns >= again_after_ns);
        mark_reported(runtime, &group, due ? now : group.reported_ns);
        if (due)
            report(runtime, &group, now, &stuck);
    }
}
