/* A thread's time falls into calls and, between these, phases; waits for data are in both.  The phase of a call is the
 * one that it ends. */
#include "runtime/profile.h"

#include <stdlib.h>
#include <string.h>

#include "machine/clock.h"
#include "protocol/coherence/cache.h"
#include "runtime/error.h"
#include "runtime/ledger.h"
#include "runtime/thread.h"

enum {
    SITES = 1 << 12, /* the last one is that of all further ones */
    LOCKS = 1 << 12,
    THREADS = 256, /* the same */
    EVENTS = 1 << 17,
    MEETINGS = 1 << 17,
    HOLDS = 1 << 16,
    MOMENTS = 1 << 10,
    SEEN_NS = 1000, /* shorter events are never shown */
    GROUP_GAP_NS = 200 * 1000,
    MOMENT_NS = 50 * 1000 * 1000
};

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void thin_out(struct dsm_profile *shown)
{
    while (shown->event_count > EVENTS / 2) {
        uint32_t kept = 0;
        shown->shortest_ns = shown->shortest_ns ? 2 * shown->shortest_ns : 2 * SEEN_NS;
        for (uint32_t i = 0; i < shown->event_count; i++)
            if (shown->events[i].end_ns - shown->events[i].begin_ns >= shown->shortest_ns ||
                shown->events[i].kind == DSM_EVENT_COLLECTION)
                shown->events[kept++] = shown->events[i];
        shown->events_left += shown->event_count - kept;
        shown->event_count = kept;
    }
}

/* Under the profile's mutex, as all that follows. */
static void append(struct profile *profile, const struct dsm_profile_event *event)
{
    struct dsm_profile *shown = &profile->shown;
    int64_t length_ns = event->end_ns - event->begin_ns;
    if (length_ns < shown->shortest_ns || (length_ns < SEEN_NS && event->kind != DSM_EVENT_COLLECTION)) {
        shown->events_left += length_ns >= SEEN_NS;
        return;
    }
    if (shown->event_count == EVENTS)
        thin_out(shown);
    shown->events[shown->event_count++] = *event;
}

static void end_group(struct profile *profile, struct profile_thread *thread)
{
    const struct profile_group *group = &thread->group;
    const struct ledger *ledger = profile->ledger;
    if (group->count == 0)
        return;
    append(profile, &(struct dsm_profile_event){
                        .begin_ns = group->begin_ns,
                        .end_ns = group->end_ns,
                        .bytes = atomic_load(&ledger->bytes) - group->bytes,
                        .kind = DSM_EVENT_FAULTS,
                        .object = group->region,
                        .thread = thread->shown->number,
                        .count = group->count,
                        .pages = (uint32_t)(atomic_load(&ledger->pages) - group->pages),
                        .peer = atomic_load(&ledger->sources) > group->sources ? atomic_load(&ledger->peer) : -1,
                    });
    thread->group.count = 0;
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

/* Of the calling thread.  Those beyond the table share an entry: their numbers are only about right. */
static struct profile_thread *own(struct profile *profile)
{
    static _Thread_local struct profile_thread *known;
    if (known)
        return known;
    struct dsm_profile *shown = &profile->shown;
    pthread_mutex_lock(&profile->mutex);
    uint32_t i = shown->thread_count < THREADS ? shown->thread_count++ : THREADS - 1;
    known = &profile->threads[i];
    if (!known->shown) {
        known->shown = &shown->threads[i];
        *known->shown = (struct dsm_profile_thread){.number = thread_number(), .began_ns = clock_now_ns()};
        known->shown->last_ns = known->shown->began_ns;
    }
    pthread_mutex_unlock(&profile->mutex);
    return known;
}

/* Only the most are kept. */
static void count_faults(struct dsm_profile_array *arrays, uint32_t region, uint32_t faults)
{
    struct dsm_profile_array *least = arrays;
    for (uint32_t i = 0; i < DSM_PROFILE_ARRAYS; i++) {
        if (arrays[i].faults && arrays[i].region == region) {
            arrays[i].faults += faults;
            return;
        }
        if (arrays[i].faults < least->faults)
            least = &arrays[i];
    }
    if (faults > least->faults)
        *least = (struct dsm_profile_array){.region = region, .faults = faults};
}

void profile_fault(struct runtime *runtime, uint32_t region, uint64_t waited_ns)
{
    struct profile *profile = runtime->profile;
    struct profile_thread *thread = own(profile);
    struct profile_group *group = &thread->group;
    const struct ledger *ledger = profile->ledger;
    int64_t end_ns = clock_now_ns(), begin_ns = end_ns - (int64_t)waited_ns;
    thread->shown->data_ns += (int64_t)waited_ns;
    thread->shown->faults++;
    pthread_mutex_lock(&profile->mutex);
    profile->faults++;
    count_faults(thread->touched, region, 1);
    if (group->region != region || begin_ns - group->end_ns > GROUP_GAP_NS)
        end_group(profile, thread);
    if (group->count == 0)
        *group = (struct profile_group){
            .begin_ns = begin_ns,
            .pages = atomic_load(&ledger->pages),
            .bytes = atomic_load(&ledger->bytes),
            .sources = atomic_load(&ledger->sources),
            .region = region,
        };
    group->count++;
    group->end_ns = end_ns;
    pthread_mutex_unlock(&profile->mutex);
}

/* ---- locks ------------------------------------------------------------------------------------------------------- */

static void begin_hold(struct dsm_profile *shown, uint32_t id, uint32_t site, int64_t asked_ns, int64_t now)
{
    if (id >= LOCKS) {
        shown->holds_left++;
        return;
    }
    struct dsm_profile_lock *lock = &shown->locks[id];
    lock->acquires++;
    lock->waited_ns += now - asked_ns;
    lock->acquired_ns = now;
    lock->hold = 0;
    if (shown->hold_count == HOLDS) {
        shown->holds_left++;
        return;
    }
    lock->hold = shown->hold_count + 1;
    shown->holds[shown->hold_count++] =
        (struct dsm_profile_hold){.asked_ns = asked_ns, .acquired_ns = now, .lock = id, .site = site};
}

static void end_hold(struct dsm_profile *shown, uint32_t id, int64_t now)
{
    struct dsm_profile_lock *lock = id < LOCKS ? &shown->locks[id] : NULL;
    if (!lock || !lock->acquired_ns)
        return;
    lock->held_ns += now - lock->acquired_ns;
    lock->acquired_ns = 0;
    if (lock->hold)
        shown->holds[lock->hold - 1].released_ns = now;
    lock->hold = 0;
}

/* ---- memory over time -------------------------------------------------------------------------------------------- */

/* Every second moment gives way when there are too many, and from then on they are half as many. */
static void thin_moments(struct profile *profile)
{
    struct dsm_profile *shown = &profile->shown;
    for (uint32_t i = 0; i < MOMENTS / 2; i++)
        shown->moments[i] = shown->moments[2 * i];
    shown->moment_count = MOMENTS / 2;
    profile->moment_every_ns *= 2;
}

static void look_at_memory(struct runtime *runtime, struct profile *profile, int64_t now)
{
    const struct node *node = runtime->node;
    if (runtime->nodes.space != 0 || now < profile->moment_due_ns)
        return;
    if (profile->shown.moment_count == MOMENTS)
        thin_moments(profile);
    profile->moment_due_ns = now + profile->moment_every_ns;
    profile->shown.moments[profile->shown.moment_count++] = (struct dsm_profile_moment){
        .time_ns = now,
        .protocol_bytes = node->pool.bytes_used,
        .twin_bytes = node->pool.twin_bytes,
        .diff_bytes = node->pool.diff_bytes,
        .data_bytes = memory_held(&runtime->memory),
        .cached_bytes = node->cache->bytes,
    };
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

/* A call that is now at its end, and the phase before it. */
struct ended {
    uint32_t call, object, site;
    int64_t last_ns, begin_ns, now;
    int64_t computed_ns, waited_ns;
    uint64_t pages, bytes, faults;
    int32_t peer; /* where pages came from; -1: none came */
    bool busy;    /* the process faulted or wrote */
    bool brought; /* pages had come before, which may have been read */
};

static void add_to_site(struct profile *profile, struct profile_thread *thread, const struct ended *ended)
{
    struct dsm_profile_site *site = &profile->shown.sites[ended->site < SITES ? ended->site : SITES - 1];
    site->objects += site->calls && site->object != ended->object;
    site->object = ended->object;
    site->calls++;
    site->computed_ns += ended->computed_ns;
    site->data_ns += thread->shown->data_ns - thread->data_left_ns;
    site->waited_ns += ended->waited_ns;
    site->pages += ended->pages;
    site->bytes += ended->bytes;
    if (thread->shown->faults == thread->faults_left)
        return;
    site->faults += thread->shown->faults - thread->faults_left;
    for (uint32_t i = 0; i < DSM_PROFILE_ARRAYS; i++)
        count_faults(site->arrays, thread->touched[i].region, thread->touched[i].faults);
    memset(thread->touched, 0, sizeof thread->touched);
}

static void append_call(struct profile *profile, struct profile_thread *thread, const struct ended *ended)
{
    struct dsm_profile_event event = {
        .begin_ns = ended->last_ns,
        .end_ns = ended->begin_ns,
        .bytes = ended->bytes,
        .kind = DSM_EVENT_PHASE,
        .site = ended->site,
        .object = ended->object,
        .thread = thread->shown->number,
        .count = (uint32_t)(thread->shown->faults - thread->faults_left),
        .pages = (uint32_t)ended->pages,
        .peer = -1,
    };
    end_group(profile, thread);
    append(profile, &event);
    event.begin_ns = ended->begin_ns;
    event.end_ns = ended->now;
    event.kind = ended->call;
    event.peer = ended->peer;
    append(profile, &event);
}

static bool is_collective(uint32_t call)
{
    return call == DSM_CALL_BARRIER || call == DSM_CALL_ALLOCATION || call == DSM_CALL_FREE ||
           call == DSM_CALL_COLLECTIVE || call == DSM_CALL_END;
}

static void append_meeting(struct profile *profile, const struct ended *ended)
{
    struct dsm_profile *shown = &profile->shown;
    if (!is_collective(ended->call))
        return;
    if (shown->meeting_count == MEETINGS) {
        shown->meetings_left++;
        return;
    }
    shown->meetings[shown->meeting_count++] = (struct dsm_profile_meeting){
        .begin_ns = ended->begin_ns,
        .end_ns = ended->now,
        .computed_ns = ended->computed_ns,
        .site = ended->site,
        .busy = ended->busy,
        .brought = ended->brought,
    };
}

/* What the process has done since the last call of any of its threads.  Pages that came then are read after it. */
static void take_marks(struct profile *profile, struct ended *ended)
{
    const struct ledger *ledger = profile->ledger;
    uint64_t pages = atomic_load(&ledger->pages), bytes = atomic_load(&ledger->bytes),
             runs = atomic_load(&ledger->runs), sources = atomic_load(&ledger->sources);
    ended->pages = pages - profile->pages_marked;
    ended->bytes = bytes - profile->bytes_marked;
    ended->faults = profile->faults - profile->faults_marked;
    ended->peer = sources > profile->sources_marked ? atomic_load(&ledger->peer) : -1;
    ended->busy = ended->faults || runs > profile->runs_marked;
    ended->brought = profile->brought;
    profile->pages_marked = pages;
    profile->bytes_marked = bytes;
    profile->runs_marked = runs;
    profile->faults_marked = profile->faults;
    profile->sources_marked = sources;
    profile->brought = ended->pages > 0;
}

static void end_call(struct profile *profile, struct profile_thread *thread, struct ended *ended)
{
    struct dsm_profile_thread *shown = thread->shown;
    ended->last_ns = shown->last_ns;
    ended->computed_ns = ended->begin_ns - shown->last_ns - (thread->data_entered_ns - thread->data_left_ns);
    ended->waited_ns = ended->now - ended->begin_ns - (shown->data_ns - thread->data_entered_ns);
    take_marks(profile, ended);
    shown->computed_ns += ended->computed_ns;
    shown->spent_ns[ended->call] += ended->waited_ns;
    append_call(profile, thread, ended);
    append_meeting(profile, ended);
    add_to_site(profile, thread, ended);
    shown->last_ns = ended->now;
    thread->data_left_ns = shown->data_ns;
    thread->faults_left = shown->faults;
}

int64_t dsm_profile_enter(uint32_t call, uint32_t object)
{
    struct profile *profile = runtime_current->profile;
    struct profile_thread *thread = own(profile);
    int64_t now = clock_now_ns();
    if (thread->shown->depth++ == 0)
        thread->data_entered_ns = thread->shown->data_ns;
    if (call == DSM_CALL_RELEASE) { /* here, because another thread may have the lock before this call ends */
        pthread_mutex_lock(&profile->mutex);
        end_hold(&profile->shown, object, now);
        pthread_mutex_unlock(&profile->mutex);
    }
    return now;
}

void dsm_profile_leave(uint32_t call, uint32_t object, uint32_t site, int64_t begin_ns)
{
    struct runtime *runtime = runtime_current;
    struct profile *profile = runtime->profile;
    struct profile_thread *thread = own(profile);
    struct ended ended = {.call = call, .object = object, .site = site, .begin_ns = begin_ns, .now = clock_now_ns()};
    pthread_mutex_lock(&profile->mutex);
    if (call == DSM_CALL_ACQUIRE)
        begin_hold(&profile->shown, object, site, begin_ns, ended.now);
    if (--thread->shown->depth == 0) {
        end_call(profile, thread, &ended);
        look_at_memory(runtime, profile, ended.now);
    }
    pthread_mutex_unlock(&profile->mutex);
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static void note(void *context, const struct event *event)
{
    struct runtime *runtime = context;
    struct profile *profile = runtime->profile;
    ledger_note(runtime, profile->ledger, event);
    if (event->kind == EVENT_COLLECT) {
        int64_t now = clock_now_ns();
        pthread_mutex_lock(&profile->mutex);
        append(profile,
               &(struct dsm_profile_event){.begin_ns = now, .end_ns = now, .kind = DSM_EVENT_COLLECTION, .peer = -1});
        pthread_mutex_unlock(&profile->mutex);
    }
}

static bool allocate(struct profile *profile, const struct runtime *runtime)
{
    struct dsm_profile *shown = &profile->shown;
    profile->ledger = ledger_new(runtime);
    profile->threads = calloc(THREADS, sizeof *profile->threads);
    shown->sites = calloc(SITES, sizeof *shown->sites);
    shown->events = calloc(EVENTS, sizeof *shown->events);
    shown->meetings = calloc(MEETINGS, sizeof *shown->meetings);
    shown->holds = calloc(HOLDS, sizeof *shown->holds);
    shown->locks = calloc(LOCKS, sizeof *shown->locks);
    shown->threads = calloc(THREADS, sizeof *shown->threads);
    shown->moments = calloc(MOMENTS, sizeof *shown->moments);
    return profile->ledger && profile->threads && shown->sites && shown->events && shown->meetings && shown->holds &&
           shown->locks && shown->threads && shown->moments;
}

/* It lasts as long as the process: Python reads it after the end of dsm. */
int profile_begin(struct runtime *runtime)
{
    struct profile *profile = calloc(1, sizeof *profile);
    if (!profile || !allocate(profile, runtime))
        return error_set(DSM_E_MEMORY, "no memory for the profile (DSM_PROFILE)");
    pthread_mutex_init(&profile->mutex, NULL);
    profile->shown.began_ns = profile->ledger->began_ns;
    profile->shown.sites_max = SITES;
    profile->shown.locks_max = LOCKS;
    profile->shown.asked = profile->ledger->asked;
    profile->moment_every_ns = MOMENT_NS;
    runtime->profile = profile;
    runtime->port.note = note;
    own(profile); /* this thread is the first */
    return DSM_OK;
}

void profile_settle(struct profile *profile)
{
    struct profile_thread *thread = own(profile);
    pthread_mutex_lock(&profile->mutex);
    end_group(profile, thread);
    profile->shown.arrays_left = profile->ledger->left;
    pthread_mutex_unlock(&profile->mutex);
}
