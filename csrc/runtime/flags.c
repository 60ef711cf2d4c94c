/* Calls of dsm.h about flags, which are events of the user. */
#include <limits.h>
#include <stdio.h>

#include "machine/clock.h"
#include "machine/futex.h"
#include "runtime/call.h"
#include "runtime/error.h"
#include "runtime/faults.h"
#include "runtime/guard.h"
#include "runtime/thread.h"

static struct flag *find(const struct runtime *runtime, uint32_t id)
{
    struct flag *flag = flag_find(runtime->node, id);
    if (!flag)
        error_set(DSM_E_ARGUMENT, "no event %u", id);
    return flag;
}

int dsm_flag_new(const char *what, const char *name, uint32_t *id)
{
    struct runtime *runtime = call_lock_to_make(what);
    if (!runtime)
        return DSM_E_STATE;
    struct flag *flag = flag_use(runtime->node, runtime->made.flags);
    if (flag) {
        *id = runtime->made.flags++;
        snprintf(flag->name, sizeof flag->name, "%s", name);
        made_add(&runtime->made, what);
    }
    progress_unlock(runtime);
    return flag ? DSM_OK : error_set(DSM_E_MEMORY, "more than %d events", TABLE_MAX);
}

/* Without a mutex.  NULL: none, or the node is not alone, or dsm is not active. */
static struct flag *find_alone(const struct runtime *runtime, uint32_t id)
{
    bool alone = runtime_state() == RUNTIME_ACTIVE && alone_is(runtime->node);
    return alone ? flag_find(runtime->node, id) : NULL;
}

/* ---- a node that is alone ---------------------------------------------------------------------------------------- */

static int turn_alone(struct flag *flag, bool set)
{
    if (flag_turn_alone(flag, set) && set && atomic_load(&flag->sleepers))
        futex_wake(&flag->turns, INT_MAX);
    return DSM_OK;
}

static void follow_alone(struct runtime *runtime)
{
    if (!changes_due(runtime->node, runtime->nodes.space))
        return;
    progress_lock(runtime);
    changes_follow(runtime->node);
    progress_unlock(runtime);
}

/* To be woken takes longer than most waits, so the thread spins first.  It sleeps not for ever: dsm may end. */
static bool await_turn(const struct runtime *runtime, struct flag *flag, uint32_t seen, int64_t deadline_ns)
{
    enum { SPINS = 100, SPINS_ALONE = 10 * 1000, CLOCK_SPINS = 64, SLEEP_NS = 100 * 1000 * 1000 };
    bool crowded = runtime->options.oversubscribed;
    unsigned spins = 0, limit = crowded ? SPINS : SPINS_ALONE;
    int64_t now = 0;
    while (atomic_load(&flag->turns) == seen && runtime_state() == RUNTIME_ACTIVE) {
        if (spins % CLOCK_SPINS == 0 || spins >= limit)
            now = clock_now_ns();
        if (deadline_ns >= 0 && now >= deadline_ns)
            return false;
        if (spins < limit) {
            thread_relax(crowded || spins > SPINS);
            spins++;
            continue;
        }
        int64_t until_ns = now + SLEEP_NS;
        atomic_fetch_add(&flag->sleepers, 1);
        futex_wait(&flag->turns, seen, deadline_ns >= 0 && deadline_ns < until_ns ? deadline_ns : until_ns);
        atomic_fetch_sub(&flag->sleepers, 1);
    }
    return atomic_load(&flag->turns) != seen;
}

/* The thread is counted as one that waits, and holds no mutex. */
static int wait_alone(struct flag *flag, uint32_t seen, double slice_s)
{
    struct runtime *runtime = call_enter_own("wait()");
    if (!runtime)
        return DSM_E_STATE;
    progress_unlock_own(runtime);
    struct wait *wait = waits_begin(runtime->waits, WAIT_FOR_FLAG, flag->id);
    bool done = await_turn(runtime, flag, seen, waits_deadline_ns(wait, slice_s));
    uint64_t waited = waits_end(wait, done);
    progress_lock_own(runtime);
    runtime->stats->wait_flag_ns += waited;
    progress_leave_own(runtime);
    return done ? DSM_OK : call_not_yet("an event's wait()");
}

/* ---- several nodes ----------------------------------------------------------------------------------------------- */

static bool changed(struct runtime *runtime, struct question *question)
{
    struct flag *flag = question->flag.flag;
    bool done = question->flag.sets ? event_set(runtime->node, flag) : event_clear(runtime->node, flag);
    node_settle(runtime->node);
    return done;
}

/* A collection may be under way that lets no notice out: the thread waits for its end. */
static int change(uint32_t id, bool sets, double slice_s)
{
    struct runtime *runtime = call_enter(sets ? "set()" : "clear()");
    if (!runtime)
        return DSM_E_STATE;
    struct flag *flag = find(runtime, id);
    int error = flag ? DSM_OK : DSM_E_ARGUMENT;
    if (flag) {
        progress_glance(runtime);
        struct question question = {.answered = changed, .flag = {.flag = flag, .sets = sets}};
        int64_t deadline_ns = slice_s < 0 ? -1 : clock_now_ns() + (int64_t)(slice_s * 1e9);
        if (!progress_wait(runtime, &question, deadline_ns))
            error = call_not_yet(sets ? "an event's set()" : "an event's clear()");
    }
    progress_leave(runtime);
    return error;
}

static bool is_later(struct runtime *runtime, struct question *question)
{
    bool done = event_poll(runtime->node, question->flag.flag, question->flag.after, question->flag.asks);
    node_settle(runtime->node);
    return done;
}

/* Where a set is expected, the thread asks for it when it is late. */
static bool wait_and_ask(struct runtime *runtime, struct question *question, int64_t deadline_ns)
{
    enum { OVERDUE_NS = 2 * 1000 * 1000 };
    int64_t late_ns = clock_now_ns() + OVERDUE_NS;
    if (!question->flag.asks && (deadline_ns < 0 || late_ns < deadline_ns) && progress_wait(runtime, question, late_ns))
        return true;
    question->flag.asks = true;
    return progress_wait(runtime, question, deadline_ns);
}

static int wait_for(struct runtime *runtime, struct flag *flag, uint64_t after, double slice_s)
{
    struct question question = {.answered = is_later,
                                .flag = {.flag = flag, .after = after, .asks = !event_expects(runtime->node)}};
    if (is_later(runtime, &question)) {
        progress_flush(runtime);
        guard_look(runtime, false);
    } else {
        struct wait *wait = waits_begin(runtime->waits, WAIT_FOR_FLAG, flag->id);
        progress_glance(runtime); /* also where the slice is over at once */
        bool done = wait_and_ask(runtime, &question, waits_deadline_ns(wait, slice_s));
        runtime->stats->wait_flag_ns += waits_end(wait, done);
        if (!done)
            return call_not_yet("an event's wait()");
        guard_look(runtime, true);
    }
    stamp set = flag->set;
    faults_catch_up(runtime);
    if (flag->set == set) /* else there may be more to follow */
        flag->followed |= (uint64_t)1 << runtime->nodes.space;
    return DSM_OK;
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

int dsm_flag_set(uint32_t id, double slice_s)
{
    struct flag *alone = find_alone(runtime_current, id);
    return alone ? turn_alone(alone, true) : change(id, true, slice_s);
}

int dsm_flag_clear(uint32_t id, double slice_s)
{
    struct flag *alone = find_alone(runtime_current, id);
    return alone ? turn_alone(alone, false) : change(id, false, slice_s);
}

bool dsm_flag_is_here(uint32_t id)
{
    const struct runtime *runtime = runtime_current;
    if (runtime_state() != RUNTIME_ACTIVE)
        return false;
    const struct flag *flag = flag_find(runtime->node, id);
    if (flag && alone_is(runtime->node))
        return flag->turns % 2 == 1 && !changes_due(runtime->node, runtime->nodes.space);
    return flag && flag->followed >> runtime->nodes.space & 1 && flag_is_set(flag);
}

int dsm_flag_wait(uint32_t id, uint64_t *ticket, double slice_s)
{
    struct flag *alone = find_alone(runtime_current, id);
    if (alone) {
        uint32_t seen = *ticket ? (uint32_t)(*ticket - 1) : atomic_load(&alone->turns);
        *ticket = (uint64_t)seen + 1;
        int error = seen % 2 ? DSM_OK : wait_alone(alone, seen, slice_s);
        if (error == DSM_OK)
            follow_alone(runtime_current);
        return error;
    }
    struct runtime *runtime = call_enter("wait()");
    if (!runtime)
        return DSM_E_STATE;
    struct flag *flag = find(runtime, id);
    if (flag && *ticket == 0)
        *ticket = flag->clear + 1;
    int error = flag ? wait_for(runtime, flag, *ticket - 1, slice_s) : DSM_E_ARGUMENT;
    progress_leave(runtime);
    return error;
}

int dsm_flag_is_set(uint32_t id, bool *set)
{
    struct flag *alone = find_alone(runtime_current, id);
    if (alone) {
        *set = atomic_load(&alone->turns) % 2;
        follow_alone(runtime_current);
        return DSM_OK;
    }
    struct runtime *runtime = call_enter("is_set()");
    if (!runtime)
        return DSM_E_STATE;
    struct flag *flag = find(runtime, id);
    if (flag) {
        struct question question = {.answered = is_later, .flag = {.flag = flag, .after = flag->clear, .asks = true}};
        progress_glance(runtime); /* a loop that asks again and again must learn of it */
        *set = is_later(runtime, &question) && flag_is_set(flag);
        progress_flush(runtime);
        if (*set)
            faults_catch_up(runtime);
    }
    progress_leave(runtime);
    return flag ? DSM_OK : DSM_E_ARGUMENT;
}
