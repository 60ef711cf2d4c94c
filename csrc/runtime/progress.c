/* Why a waiting thread polls: no wake-up and no other thread is needed for the answer, and it answers other ranks
 * meanwhile. A rank whose threads all compute is woken by a doorbell, once (bells.h); polling from a second thread
 * would take half of the core from the computation. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/progress.h"

#include <errno.h>
#include <sched.h>
#include <time.h>

#include "machine/clock.h"
#include "runtime/bells.h"
#include "runtime/chaos_node.h"
#include "runtime/death.h"
#include "runtime/node_port.h"
#include "runtime/thread.h"
#include "runtime/trace.h"

enum {
    SLEEP_NS = 100 * 1000 * 1000, /* behind a wake that got lost */
    LATE_NS = 1000 * 1000,
    LOOKS_SENT = 8,
    CLOCK_LOOKS = 4,
    SPINS = 100,
    LOCK_TRIES = 120,
    BATCH = 64
};

static _Thread_local bool is_service;

/* Give the core to another rank or thread of this host, if there is one that is ready to run. */
static void relax_core(const struct runtime *runtime, unsigned spins)
{
    if (runtime->options.oversubscribed || spins > SPINS)
        sched_yield();
#if defined(__x86_64__)
    else
        __builtin_ia32_pause();
#endif
}

/* Sleeping on the mutex usually costs ten times its hold time, so a thread spins first, and lets a holder that
 * waits for this core run. */
static bool lock_soon(struct runtime *runtime)
{
    for (unsigned tries = 0; tries < LOCK_TRIES; tries++) {
        if (pthread_mutex_trylock(&runtime->mutex) == 0)
            return true;
        relax_core(runtime, tries);
    }
    return false;
}

void progress_lock(struct runtime *runtime)
{
    if (pthread_mutex_trylock(&runtime->mutex) == 0)
        return;
    atomic_fetch_add(&runtime->locking, !is_service);
    int error = lock_soon(runtime) ? 0 : pthread_mutex_lock(&runtime->mutex);
    atomic_fetch_sub(&runtime->locking, !is_service);
    if (error == EDEADLK)
        death_end_all(runtime, "the runtime touched shared memory itself (an argument of a dsm call lies in it?)", 1,
                      true);
}

void progress_unlock(struct runtime *runtime)
{
    pthread_mutex_unlock(&runtime->mutex);
}

void progress_become_service(void)
{
    is_service = true;
}

/* ---- messages ------------------------------------------------------------------------------------------------ */

static void send_message(struct runtime *runtime, struct message *message)
{
    struct transport_part parts[MESSAGE_SEGMENTS_MAX];
    int count = message->segment_count;
    message_header(message)->by_service = is_service;
    runtime->stats.messages_sent++;
    runtime->stats.bytes_sent += message->wire_bytes;
    for (int i = 0; i < count; i++) {
        parts[i] = (struct transport_part){.at = message->segments[i].at, .bytes = message->segments[i].bytes};
        runtime->stats.bytes_sent += parts[i].bytes;
    }
    struct message sent = *message;
    uint8_t kind = message_header(message)->kind; /* read before the transport owns the bytes, and may give them back */
    message->wire = NULL;
    if (count == 0) {
        message_free(message, &runtime->node->pool);
        transport_send(runtime->transport, sent.peer, sent.wire, sent.wire_bytes, sent.wire_capacity);
    } else {
        transport_send_parts(runtime->transport, sent.peer, sent.wire, sent.wire_bytes, sent.wire_capacity, parts,
                             count, message);
    }
    bells_sending(runtime, sent.peer, kind, sent.ring);
}

void progress_flush(struct runtime *runtime)
{
    struct node *node = runtime->node;
    if (runtime->trace >= 0 && runtime->traced < node->event_count)
        trace_write(runtime);
    /* What is sent at once may let the node send more. */
    for (struct message *message; (message = node_take_outbox(node));)
        for (struct message *next; message; message = next) {
            next = message->next;
            send_message(runtime, message);
        }
    if (node->send_blocked) {
        node->send_blocked = false;
        bells_ring_receivers(runtime);
    }
    if (node_take_wake(node)) {
        runtime->generation++;
        if (runtime->sleepers)
            pthread_cond_broadcast(&runtime->changed);
        for (struct awaiting *thread = runtime->awaiting; thread; thread = thread->next)
            if (node->counters->items[thread->counter].value != thread->seen)
                progress_rouse(&thread->sleeper);
    }
}

bool progress_poll(struct runtime *runtime)
{
    bool any = false;
    uint64_t before = runtime->generation;
    if (runtime->options.chaos_seed && chaos_node_step(runtime))
        progress_flush(runtime);
    /* A wake ends it: one more look costs what half a round trip does, and the thread may have what it waits for. */
    for (int i = 0; i < BATCH && runtime->generation == before; i++) {
        void *buffer, *placed;
        uint64_t bytes;
        int peer = transport_receive(runtime->transport, &buffer, &bytes, &placed);
        runtime->stats.bytes_copied += transport_copied(runtime->transport);
        if (peer < 0)
            break;
        any = true;
        runtime->stats.messages_received++;
        runtime->stats.bytes_received += bytes;
        struct message *message = placed ? placed : message_wrap(&runtime->node->pool, peer, buffer, bytes);
        for (int k = 0; k < message->segment_count; k++)
            runtime->stats.bytes_received += message->segments[k].bytes;
        if (bytes >= sizeof(struct message_header))
            bells_heard_from(runtime, peer, message_header(message)->by_service);
        node_receive(runtime->node, message);
        progress_flush(runtime);
    }
    if (runtime->node->wake || runtime->node->outbox)
        progress_flush(runtime); /* something has been sent */
    return any;
}

/* ---- waiting threads ----------------------------------------------------------------------------------------- */

static void sleep_on(struct runtime *runtime, pthread_cond_t *condition, int64_t until_ns)
{
    struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
    pthread_cond_timedwait(condition, &runtime->mutex, &until);
}

/* Another thread polls: sleep until it signals a change, or leaves.  Not for ever, should the signal get lost. */
static void sleep_beside(struct runtime *runtime, int64_t now_ns, int64_t deadline_ns)
{
    int64_t until = now_ns + SLEEP_NS;
    runtime->sleepers++;
    sleep_on(runtime, &runtime->changed, deadline_ns >= 0 && deadline_ns < until ? deadline_ns : until);
    runtime->sleepers--;
}

bool progress_enter(struct runtime *runtime, enum runtime_state last)
{
    progress_lock(runtime);
    if (runtime_state() > last) {
        progress_unlock(runtime);
        return false;
    }
    runtime->waiting++;
    bells_show(runtime);
    return true;
}

bool progress_sleep(struct runtime *runtime, struct sleeper *sleeper, int64_t deadline_ns)
{
    thread_make_condition(&sleeper->roused);
    sleeper->up = false;
    runtime->asleep++;
    bells_show(runtime);
    for (int64_t now = clock_now_ns(); !sleeper->up && (deadline_ns < 0 || now < deadline_ns); now = clock_now_ns())
        sleep_on(runtime, &sleeper->roused, deadline_ns < 0 ? now + SLEEP_NS : deadline_ns);
    runtime->asleep--;
    bells_show(runtime);
    pthread_cond_destroy(&sleeper->roused);
    return sleeper->up;
}

void progress_rouse(struct sleeper *sleeper)
{
    sleeper->up = true;
    pthread_cond_signal(&sleeper->roused);
}

bool progress_under_way(const struct runtime *runtime)
{
    return transport_pending(runtime->transport) || runtime->node->fetches->postponed;
}

/* MPI sees at one of the next looks that the receiver has what was sent last. */
static void see_sends_through(struct runtime *runtime)
{
    for (int looks = 0; looks < LOOKS_SENT && transport_pending(runtime->transport); looks++)
        progress_poll(runtime);
}

void progress_leave(struct runtime *runtime)
{
    bool bells = runtime->options.progress == DSM_PROGRESS_DOORBELL;
    runtime->waiting--;
    if (runtime->rings_due && !runtime->polling)
        bells_ring_once(runtime, INT64_MAX);
    if (bells && !runtime->polling)
        see_sends_through(runtime);
    bells_show(runtime);
    bool late = !runtime->all_seen && runtime->bell_ns && clock_now_ns() - runtime->bell_ns < LATE_NS;
    runtime->bell_ns = 0;
    if (bells && (late || progress_under_way(runtime)))
        doorbell_ring(runtime->doorbell, runtime->rank);
    progress_unlock(runtime);
}

bool progress_wait(struct runtime *runtime, struct question *question, int64_t deadline_ns)
{
    unsigned spins = 0;
    int64_t now = 0;
    bool finished;
    for (;;) {
        uint64_t asked = runtime->generation;
        finished = question->answered(runtime, question);
        progress_flush(runtime);
        if (finished || runtime_state() != RUNTIME_ACTIVE)
            break;
        while (runtime->generation == asked) {
            /* Reading the clock is a tenth of a look. */
            if (spins % CLOCK_LOOKS == 0 || spins > SPINS || runtime->options.oversubscribed)
                now = clock_now_ns();
            if (deadline_ns >= 0 && now >= deadline_ns)
                goto over;
            if (runtime->polling) {
                now = clock_now_ns();
                sleep_beside(runtime, now, deadline_ns);
                continue;
            }
            runtime->polling = true;
            bool any = progress_poll(runtime);
            if (runtime->rings_due)
                bells_ring_due(runtime, now);
            spins = any ? 0 : spins + 1;
            if (!any) {
                runtime->polled_ns = now;
                node_port_prepare(runtime);
                progress_unlock(runtime);
                relax_core(runtime, spins);
                progress_lock(runtime);
            }
            runtime->polling = false;
        }
    }
over:
    if (runtime->sleepers)
        pthread_cond_signal(&runtime->changed);
    return finished;
}

static void rouse_all(struct runtime *runtime)
{
    for (struct awaiting *thread = runtime->awaiting; thread; thread = thread->next)
        progress_rouse(&thread->sleeper);
    for (uint32_t i = 0; i < runtime->node->locks->count; i++)
        for (struct lock_waiter *waiter = runtime->node->locks->items[i]->queue; waiter; waiter = waiter->next)
            if (waiter->sleeper)
                progress_rouse(waiter->sleeper);
}

/* Calls that wait return with an error; a page fault cannot, and goes on to its end.  The other ranks still answer,
 * because they are here, too, until no thread of any rank waits. */
void progress_end(struct runtime *runtime)
{
    progress_lock(runtime);
    runtime_enter_state(RUNTIME_ENDING);
    runtime->generation++;
    pthread_cond_broadcast(&runtime->changed);
    rouse_all(runtime);
    for (;;) {
        if (runtime->waiting == 0) {
            runtime_enter_state(RUNTIME_ENDED);
            if (transport_quiet(runtime->transport))
                break;
        }
        if (!progress_poll(runtime)) {
            progress_unlock(runtime);
            sched_yield();
            progress_lock(runtime);
        }
    }
    progress_unlock(runtime);
}
