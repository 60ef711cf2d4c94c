/* The calls of dsm.h: arguments are checked here, before anything is sent; then the node is asked, and asked again until
 * it says yes. */
#include <string.h>

#include "runtime/runtime.h"

enum { PAGE_BYTES_MIN = 4096, PAGE_BYTES_MAX = 64 << 20 };

static struct runtime *running(const char *call)
{
    if (runtime_state() == RUNTIME_ACTIVE)
        return runtime_current;
    runtime_error(DSM_E_STATE, runtime_state() == RUNTIME_NEW ? "%s before init" : "%s after finalize", call);
    return NULL;
}

struct runtime *calls_enter(const char *call)
{
    struct runtime *runtime = running(call);
    return runtime && !progress_enter(runtime, RUNTIME_ACTIVE) ? running(call) : runtime;
}

struct runtime *calls_lock(const char *call)
{
    struct runtime *runtime = running(call);
    if (runtime)
        progress_lock(runtime);
    if (runtime && !running(call)) {
        progress_unlock(runtime);
        return NULL;
    }
    return runtime;
}

int calls_not_yet(const char *call)
{
    if (runtime_state() == RUNTIME_ACTIVE)
        return DSM_AGAIN;
    return runtime_error(DSM_E_STATE, "dsm ended while a thread of this rank waited in %s", call);
}

int64_t deadline_of(const struct wait *wait, double slice_s)
{
    return slice_s < 0 ? -1 : atomic_load_explicit(&wait->slice_ns, memory_order_relaxed) + (int64_t)(slice_s * 1e9);
}

bool dsm_active(void)
{
    return runtime_state() == RUNTIME_ACTIVE;
}

/* ---- after an acquire -------------------------------------------------------------------------------------- */

static bool caught_up(struct runtime *runtime, void *unused)
{
    (void)unused;
    return access_caught_up(runtime->node);
}

/* What is pinned must show what was acquired without a fault (README, pinned).  Pages that are wanted again come before the
 * thread goes on: ranks that want each other's answer each other at once, and no fault is left. */
static void catch_up(struct runtime *runtime)
{
    if (runtime->node->pins->first || !update_done(runtime->node))
        faults_await_pages(runtime, caught_up, NULL);
}

/* ---- meetings ------------------------------------------------------------------------------------------------ */

static bool meeting_done(struct runtime *runtime, void *unused)
{
    (void)unused;
    return meeting_take(runtime->node, MEETING_THREADS);
}

static int meeting_error(const struct meeting *meeting)
{
    switch (meeting->outcome) {
    case MEETING_AGREED: return DSM_OK;
    case MEETING_KINDS_DIFFER:
        return runtime_error(DSM_E_MEETING,
                             "ranks met in different collective calls: %s; all ranks make the same "
                             "collective calls in the same order",
                             meeting->text);
    case MEETING_BALLOTS_DIFFER:
        return runtime_error(DSM_E_ARGUMENT, "the arguments of a collective call differ between ranks: %s",
                             meeting->text);
    case MEETING_REFUSED: return runtime_error(DSM_E_VIEWS, "%s", meeting->text);
    case MEETING_NO_SPACE:
        return runtime_error(DSM_E_MEMORY,
                             "the shared address range has no gap that is large enough (DSM_RANGE_BYTES sets "
                             "its size)");
    }
    return runtime_error(DSM_E_MEETING, "unknown outcome");
}

/* Arrive (the first time), and wait for the departure.  `result` may be NULL. */
static int meet(const char *call, const struct ballot *ballot, double slice_s, uint32_t *result)
{
    struct runtime *runtime = calls_enter(call);
    if (!runtime)
        return DSM_E_STATE;
    if (runtime->meeting &&
        (runtime->meeting != ballot->kind || !pthread_equal(runtime->meeting_thread, pthread_self()))) {
        enum meeting_kind other = runtime->meeting;
        progress_leave(runtime);
        return runtime_error(DSM_E_STATE, "%s while another thread of this rank is in %s, or left it by an exception",
                             ballot->what ? ballot->what : ballot_kind_name(ballot->kind), ballot_kind_name(other));
    }
    struct wait *wait = watchdog_begin(runtime, WAIT_FOR_MEETING, (uint64_t)ballot->kind);
    if (!runtime->meeting) {
        runtime->meeting = ballot->kind;
        runtime->meeting_thread = pthread_self();
        meeting_arrive(runtime->node, MEETING_THREADS, ballot);
        node_settle(runtime->node);
        progress_flush(runtime);
        faults_look(runtime, true); /* a system call, while the arrival travels */
    }
    int error = DSM_AGAIN;
    bool done = progress_wait(runtime, meeting_done, NULL, deadline_of(wait, slice_s));
    if (done) {
        const struct meeting *meeting = &runtime->node->meetings[MEETING_THREADS];
        runtime->meeting = 0;
        error = meeting_error(meeting);
        if (result)
            *result = meeting->result;
        /* Nobody may be left to bring anything after the last meeting. */
        if (ballot->kind != MEETING_FINALIZE)
            catch_up(runtime);
    }
    runtime->stats.wait_barrier_ns += watchdog_end(wait, done);
    progress_leave(runtime);
    return error;
}

int dsm_barrier(double slice_s)
{
    return meet("barrier()", &(struct ballot){.kind = MEETING_BARRIER}, slice_s, NULL);
}

/* Some ranks are over, others have called finalize() or MPI_Finalize: dsm ends when no rank wants it any more, which one
 * refusal prevents. */
int dsm_finalize(bool at_exit, double slice_s)
{
    struct ballot ballot = {.kind = MEETING_FINALIZE, .refusal = at_exit ? "the interpreter is not through" : NULL};
    int error = meet("finalize()", &ballot, slice_s, NULL);
    if (error == DSM_E_VIEWS) {
        runtime_current->at_exit = runtime_current->at_exit || at_exit;
        return DSM_OK;
    }
    if (!error)
        runtime_end(runtime_current);
    return error;
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

static void describe(const struct runtime *runtime, const struct region *region, struct dsm_region *out)
{
    *out = (struct dsm_region){
        .id = region->id,
        .address = runtime->memory.application + region->offset,
        .bytes = region->bytes,
        .page_bytes = region->page_bytes,
        .pages = region->pages,
    };
}

int dsm_allocate(uint64_t bytes, uint64_t page_bytes, const void *initial, uint32_t initial_bytes, const char *name,
                 const char *what, double slice_s, struct dsm_region *region)
{
    if (bytes == 0)
        return runtime_error(DSM_E_ARGUMENT, "an allocation of 0 bytes");
    if (page_bytes < PAGE_BYTES_MIN || page_bytes > PAGE_BYTES_MAX || (page_bytes & (page_bytes - 1)))
        return runtime_error(DSM_E_ARGUMENT, "page size %llu is not a power of two from 4 KiB to 64 MiB",
                             (unsigned long long)page_bytes);
    if (initial && (initial_bytes == 0 || PAGE_BYTES_MIN % initial_bytes))
        return runtime_error(DSM_E_ARGUMENT, "an initial value of %u bytes does not divide a page", initial_bytes);
    struct ballot ballot = {
        .kind = MEETING_ALLOCATE,
        .numbers = {bytes, page_bytes, initial ? initial_bytes : 0},
        .what = what,
        .name = name,
        .value = initial,
    };
    uint32_t id;
    int error = meet("an allocation", &ballot, slice_s, &id);
    if (error)
        return error;
    struct runtime *runtime = calls_lock("an allocation");
    if (!runtime)
        return DSM_E_STATE;
    describe(runtime, region_find(runtime->node->regions, id), region);
    progress_unlock(runtime);
    return DSM_OK;
}

int dsm_free(uint32_t region, const char *refusal, const char *what, double slice_s)
{
    struct ballot ballot = {.kind = MEETING_FREE, .numbers = {region}, .what = what, .refusal = refusal};
    return meet("free()", &ballot, slice_s, NULL);
}

int dsm_forget(uint32_t region)
{
    struct runtime *runtime = calls_lock("forget");
    if (!runtime)
        return DSM_E_STATE;
    struct regions *regions = runtime->node->regions;
    for (uint32_t i = 0; i < regions->grave_count; i++)
        if (regions->graves[i].id == region)
            regions->graves[i].forgotten = true;
    progress_unlock(runtime);
    return DSM_OK;
}

int dsm_region_of(const void *address, struct dsm_region *out)
{
    struct runtime *runtime = calls_lock("a look at an array");
    if (!runtime)
        return DSM_E_STATE;
    uint64_t offset = (uint64_t)((uintptr_t)address - (uintptr_t)runtime->memory.application);
    struct region *region = offset < runtime->memory.bytes ? region_at(runtime->node->regions, offset) : NULL;
    if (region)
        describe(runtime, region, out);
    progress_unlock(runtime);
    return region ? DSM_OK : runtime_error(DSM_E_ARGUMENT, "address %p lies in no shared array", address);
}

int dsm_page_info(uint32_t id, uint64_t index, struct dsm_page_info *info)
{
    struct runtime *runtime = calls_lock("a look at a page");
    if (!runtime)
        return DSM_E_STATE;
    struct region *region = region_find(runtime->node->regions, id);
    bool there = region && index < region->pages;
    const struct page *page = there ? region_page_if(region, index) : NULL;
    *info = (struct dsm_page_info){.owner = NODE_NONE, .copy = true, .valid = true};
    if (page)
        *info = (struct dsm_page_info){
            .owner = page->owner,
            .copy = page->copy,
            .valid = page_valid(page),
            .writable = page->writable,
            .twin = page->twin != NULL,
            .pinned = page_pinned(page),
        };
    progress_unlock(runtime);
    return there ? DSM_OK : runtime_error(DSM_E_ARGUMENT, "no page %llu of array %u", (unsigned long long)index, id);
}

/* ---- pins ---------------------------------------------------------------------------------------------------- */

struct pin_question {
    uint64_t offset;
    bool write, first;
    enum access_answer answer;
};

static bool pin_done(struct runtime *runtime, void *context)
{
    struct pin_question *question = context;
    question->answer = access_fault(runtime->node, question->offset, question->write, question->first);
    question->first = false;
    if (question->answer == ACCESS_DONE)
        access_pin(runtime->node, question->offset, question->write);
    return question->answer != ACCESS_WAIT;
}

/* Pages, by the offset of the first and the one behind the last. */
struct span {
    uint64_t from, end, page_bytes;
};

/* The pages of the bytes, which must lie in one region; of no bytes none. */
static int span_of(const char *call, void *address, uint64_t bytes, struct span *span)
{
    *span = (struct span){.page_bytes = 1};
    if (bytes == 0)
        return DSM_OK;
    struct runtime *runtime = calls_lock(call);
    if (!runtime)
        return DSM_E_STATE;
    uint64_t offset = (uint64_t)((uintptr_t)address - (uintptr_t)runtime->memory.application);
    const struct region *region = offset < runtime->memory.bytes ? region_at(runtime->node->regions, offset) : NULL;
    bool fits = region && offset - region->offset + bytes <= region->pages * region->page_bytes;
    if (fits) {
        span->page_bytes = region->page_bytes;
        span->from = offset / region->page_bytes * region->page_bytes;
        span->end = offset + bytes;
    }
    progress_unlock(runtime);
    return fits ? DSM_OK
                : runtime_error(DSM_E_ARGUMENT, "%llu bytes at %p do not lie in one shared array",
                                (unsigned long long)bytes, address);
}

int dsm_pin(void *address, uint64_t bytes, bool write)
{
    struct span span;
    int error = span_of("pinned", address, bytes, &span);
    if (error)
        return error;
    for (uint64_t at = span.from; at < span.end; at += span.page_bytes) {
        struct runtime *runtime = calls_enter("pinned");
        if (!runtime)
            return DSM_E_STATE;
        struct pin_question question = {.offset = at, .write = write, .first = true};
        struct wait *wait = watchdog_begin(runtime, write ? WAIT_FOR_WRITE : WAIT_FOR_READ, at);
        bool done = faults_await_pages(runtime, pin_done, &question);
        runtime->stats.wait_fault_ns += watchdog_end(wait, true);
        progress_leave(runtime);
        if (!done)
            return calls_not_yet("pinned");
    }
    return DSM_OK;
}

int dsm_unpin(void *address, uint64_t bytes, bool write)
{
    struct span span;
    if (runtime_state() > RUNTIME_ACTIVE)
        return DSM_OK; /* all pins have ended with dsm */
    int error = span_of("the end of pinned", address, bytes, &span);
    if (error)
        return error;
    struct runtime *runtime = calls_enter("the end of pinned");
    if (!runtime)
        return DSM_E_STATE;
    for (uint64_t at = span.from; at < span.end; at += span.page_bytes)
        access_unpin(runtime->node, at, write);
    progress_flush(runtime);
    progress_leave(runtime);
    return DSM_OK;
}

/* ---- locks --------------------------------------------------------------------------------------------------- */

int dsm_lock_new(const char *what, const char *name, double slice_s, uint32_t *lock)
{
    struct ballot ballot = {.kind = MEETING_LOCK_NEW, .what = what, .name = name};
    return meet("the creation of a lock", &ballot, slice_s, lock);
}

struct lock_question {
    struct lock *lock;
    uint64_t *ticket;
    enum lock_answer answer;
};

static bool lock_done(struct runtime *runtime, void *context)
{
    struct lock_question *question = context;
    question->answer = lock_poll(runtime->node, question->lock, *question->ticket);
    node_settle(runtime->node);
    return question->answer != LOCK_WAIT;
}

static struct lock *lock_of(struct runtime *runtime, uint32_t id)
{
    struct lock *lock = lock_find(runtime->node, id);
    if (!lock)
        runtime_error(DSM_E_ARGUMENT, "no lock %u", id);
    return lock;
}

/* Behind other threads of this rank a thread sleeps until it is the first, however many there are: then it waits for the
 * lock. */
static bool wait_in_line(struct runtime *runtime, struct lock_question *question, int64_t deadline_ns)
{
    struct lock_waiter *waiter = lock_waiter_of(runtime->node, question->lock, *question->ticket);
    if (question->lock->queue != waiter) {
        struct sleeper sleeper;
        waiter->sleeper = &sleeper;
        bool first = progress_sleep(runtime, &sleeper, deadline_ns);
        waiter->sleeper = NULL;
        if (!first)
            return false;
    }
    return progress_wait(runtime, lock_done, question, deadline_ns);
}

/* A thread has left the line. */
static void rouse_first(const struct lock *lock)
{
    if (lock->queue && lock->queue->sleeper)
        progress_rouse(lock->queue->sleeper);
}

/* Under the mutex. */
static int acquire(struct runtime *runtime, struct lock *lock, bool trying, const char *site, uint64_t *ticket,
                   double slice_s)
{
    if (*ticket == 0)
        *ticket = lock_enqueue(runtime->node, lock, (struct lock_user){runtime_thread(), site}, trying);
    struct lock_question question = {.lock = lock, .ticket = ticket};
    if (lock_done(runtime, &question)) {
        progress_flush(runtime); /* the token was here: no wait, no time taken */
        faults_look(runtime, false);
    } else {
        struct wait *wait = watchdog_begin(runtime, WAIT_FOR_LOCK, lock->id);
        bool done = wait_in_line(runtime, &question, deadline_of(wait, slice_s));
        uint64_t waited = watchdog_end(wait, done);
        runtime->stats.wait_lock_ns += waited;
        lock->stats.wait_ns += waited;
        if (!done)
            return calls_not_yet("acquire()");
        faults_look(runtime, true);
    }
    *ticket = 0;
    rouse_first(lock);
    if (question.answer == LOCK_REFUSED)
        return DSM_AGAIN;
    runtime->held++;
    catch_up(runtime);
    return DSM_OK;
}

static int acquire_by_id(uint32_t id, bool trying, const char *site, uint64_t *ticket, double slice_s)
{
    struct runtime *runtime = calls_enter("acquire()");
    if (!runtime)
        return DSM_E_STATE;
    struct lock *lock = lock_of(runtime, id);
    int error = lock ? acquire(runtime, lock, trying, site, ticket, slice_s) : DSM_E_ARGUMENT;
    progress_leave(runtime);
    return error;
}

int dsm_acquire(uint32_t lock, const char *site, uint64_t *ticket, double slice_s)
{
    return acquire_by_id(lock, false, site, ticket, slice_s);
}

int dsm_acquire_here(uint32_t id, const char *site)
{
    uint64_t ticket = 0;
    struct runtime *runtime = calls_enter("acquire()");
    if (!runtime)
        return DSM_E_STATE;
    struct lock *lock = lock_of(runtime, id);
    int error = lock ? DSM_AGAIN : DSM_E_ARGUMENT;
    if (lock && lock->token && !lock->held && !lock->queue)
        error = acquire(runtime, lock, false, site, &ticket, -1);
    progress_leave(runtime);
    return error;
}

int dsm_try_acquire(uint32_t lock, const char *site, uint64_t *ticket, double slice_s)
{
    return acquire_by_id(lock, true, site, ticket, slice_s);
}

int dsm_acquire_cancel(uint32_t id, uint64_t *ticket)
{
    struct runtime *runtime = calls_enter("acquire()");
    if (!runtime)
        return DSM_E_STATE;
    struct lock *lock = lock_of(runtime, id);
    if (lock && *ticket) {
        lock_cancel(runtime->node, lock, *ticket);
        rouse_first(lock);
        runtime->standing = true;
        doorbell_ring(runtime->doorbell, runtime->rank); /* the service thread looks after the request now */
        *ticket = 0;
        node_settle(runtime->node);
        progress_flush(runtime);
    }
    progress_leave(runtime);
    return lock ? DSM_OK : DSM_E_ARGUMENT;
}

int dsm_release(uint32_t id)
{
    enum { POLL_AFTER_NS = 5 * 1000 };
    struct runtime *runtime = calls_enter("release()");
    if (!runtime)
        return DSM_E_STATE;
    int error = DSM_OK;
    struct lock *lock = lock_of(runtime, id);
    if (!lock) {
        error = DSM_E_ARGUMENT;
    } else if (!lock->held) {
        error = runtime_error(DSM_E_STATE, "release of lock %u, which no thread of rank %d holds", id, runtime->rank);
    } else {
        /* A rank that wants the lock is heard here, or one that takes it in a loop would keep it for itself. */
        int64_t now = runtime->size > 1 && !runtime->polling ? clock_now_ns() : 0;
        if (now - runtime->polled_ns > POLL_AFTER_NS) {
            progress_poll(runtime);
            runtime->polled_ns = now;
        }
        lock_release(runtime->node, lock);
        runtime->held--;
        node_settle(runtime->node);
        progress_flush(runtime);
    }
    progress_leave(runtime);
    return error;
}

bool dsm_locked(uint32_t id)
{
    struct runtime *runtime = calls_lock("locked()");
    if (!runtime)
        return false;
    struct lock *lock = lock_find(runtime->node, id);
    bool held = lock && lock->held;
    progress_unlock(runtime);
    return held;
}

/* ---- counters ------------------------------------------------------------------------------------------------ */

int dsm_counter_new(int64_t start, const char *what, const char *name, double slice_s, uint32_t *counter)
{
    struct ballot ballot = {.kind = MEETING_COUNTER_NEW, .numbers = {(uint64_t)start}, .what = what, .name = name};
    return meet("the creation of a counter", &ballot, slice_s, counter);
}

struct counter_question {
    uint64_t ticket;
    int64_t *before;
};

static bool counter_done(struct runtime *runtime, void *context)
{
    struct counter_question *question = context;
    return counter_poll(runtime->node, question->ticket, question->before);
}

int dsm_counter_add(uint32_t counter, int64_t delta, uint64_t *ticket, double slice_s, int64_t *before)
{
    struct runtime *runtime = calls_enter("a counter");
    if (!runtime)
        return DSM_E_STATE;
    if (counter >= runtime->node->counters->count) {
        progress_leave(runtime);
        return runtime_error(DSM_E_ARGUMENT, "no counter %u", counter);
    }
    if (*ticket == 0) {
        *ticket = counter_add(runtime->node, counter, delta);
        node_settle(runtime->node);
        progress_flush(runtime);
    }
    struct counter_question question = {.ticket = *ticket, .before = before};
    struct wait *wait = watchdog_begin(runtime, WAIT_FOR_COUNTER, counter);
    bool done = progress_wait(runtime, counter_done, &question, deadline_of(wait, slice_s));
    runtime->stats.wait_counter_ns += watchdog_end(wait, done);
    faults_look(runtime, false);
    if (done)
        *ticket = 0;
    progress_leave(runtime);
    if (done && !counter_fits(*before, delta))
        return runtime_error(DSM_E_OVERFLOW, "counter %u holds %lld: %lld more do not fit 64 bits", counter,
                             (long long)*before, (long long)delta);
    return done ? DSM_OK : calls_not_yet("a counter's next()");
}
