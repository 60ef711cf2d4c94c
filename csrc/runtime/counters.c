/* Calls of dsm.h about counters. */
#include <stdio.h>

#include "machine/clock.h"
#include "runtime/call.h"
#include "runtime/error.h"
#include "runtime/guard.h"

int dsm_counter_new(int64_t start, const char *what, const char *name, uint32_t *id)
{
    struct runtime *runtime = call_lock_to_make(what);
    if (!runtime)
        return DSM_E_STATE;
    struct counter *counter = counter_use(runtime->node, runtime->made.counters, start);
    if (counter) {
        *id = runtime->made.counters++;
        snprintf(counter->name, sizeof counter->name, "%s", name);
        made_add(&runtime->made, what);
    }
    progress_unlock(runtime);
    return counter ? DSM_OK : error_set(DSM_E_MEMORY, "more than %d counters", TABLE_MAX);
}

static bool sum_answered(struct runtime *runtime, struct question *question)
{
    question->awaited = counter_home(runtime->node, question->sum.counter);
    return counter_poll(runtime->node, question->sum.ticket, &question->sum.before);
}

int dsm_counter_add(uint32_t id, int64_t delta, uint64_t *ticket, double slice_s, int64_t *before)
{
    struct runtime *runtime = call_enter("a counter");
    if (!runtime)
        return DSM_E_STATE;
    const struct counter *counter = counter_find(runtime->node, id);
    if (!counter) {
        progress_leave(runtime);
        return error_set(DSM_E_ARGUMENT, "no counter %u", id);
    }
    if (*ticket == 0) {
        *ticket = counter_add(runtime->node, counter, delta);
        node_settle(runtime->node);
        progress_flush(runtime);
    }
    struct question question = {.answered = sum_answered, .sum = {.counter = id, .ticket = *ticket}};
    struct wait *wait = waits_begin(runtime->waits, WAIT_FOR_COUNTER, id);
    bool done = progress_wait(runtime, &question, waits_deadline_ns(wait, slice_s));
    runtime->stats->wait_counter_ns += waits_end(wait, done);
    guard_look(runtime, false);
    if (done) {
        *ticket = 0;
        *before = question.sum.before;
    }
    progress_leave(runtime);
    if (done && !counter_fits(*before, delta))
        return error_set(DSM_E_OVERFLOW, "counter %u holds %lld: %lld more do not fit 64 bits", id, (long long)*before,
                         (long long)delta);
    return done ? DSM_OK : call_not_yet("a counter's next()");
}

/* ---- notifications ------------------------------------------------------------------------------------------- */

static bool change_answered(struct runtime *runtime, struct question *question)
{
    return counter_find(runtime->node, question->change.counter)->value != question->change.seen;
}

/* Leave the core to others: the service thread receives what comes. */
static void sleep_until_changed(struct runtime *runtime, const struct question *question, int64_t deadline_ns)
{
    struct awaiting **first = &runtime->shared->awaiting, *own = pool_take(&runtime->node->pool, sizeof *own);
    *own = (struct awaiting){
        .next = *first, .link = first, .counter = question->change.counter, .seen = question->change.seen};
    if (own->next)
        own->next->link = &own->next;
    *first = own;
    progress_sleep(runtime, &own->sleeper, deadline_ns);
    *own->link = own->next;
    if (own->next)
        own->next->link = own->link;
    pool_give(&runtime->node->pool, own, sizeof *own);
}

/* A thread that polls sees a change soonest; but a wait for a notification may take minutes, so later it sleeps. */
static bool await_change(struct runtime *runtime, struct question *question, int64_t deadline_ns)
{
    enum { POLL_FIRST_NS = 1000 * 1000 };
    int64_t soon = clock_now_ns() + POLL_FIRST_NS;
    bool last = deadline_ns >= 0 && deadline_ns <= soon;
    bool done = progress_wait(runtime, question, last ? deadline_ns : soon);
    if (!done && !last && runtime_state() == RUNTIME_ACTIVE)
        sleep_until_changed(runtime, question, deadline_ns);
    return done || change_answered(runtime, question);
}

int dsm_counter_await(uint32_t counter, int64_t seen, uint32_t beside, double slice_s, int64_t *value)
{
    struct runtime *runtime = call_enter("a wait for a counter");
    if (!runtime)
        return DSM_E_STATE;
    const struct counter *found = counter_find(runtime->node, counter);
    if (!found || counter_home(runtime->node, counter) != runtime->node->number) {
        progress_leave(runtime);
        return error_set(DSM_E_ARGUMENT, "counter %u is not at home on rank %d", counter, runtime->rank);
    }
    struct question question = {.answered = change_answered, .change = {.counter = counter, .seen = seen}};
    struct wait *wait = waits_begin(runtime->waits, WAIT_FOR_COUNTER, counter);
    wait->beside = beside;
    bool done = await_change(runtime, &question, waits_deadline_ns(wait, slice_s));
    *value = found->value;
    runtime->stats->wait_counter_ns += waits_end(wait, done);
    guard_look(runtime, false);
    progress_leave(runtime);
    return done ? DSM_OK : call_not_yet("a wait for a counter");
}
