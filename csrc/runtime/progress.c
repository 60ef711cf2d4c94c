/* Why a waiting thread polls: no wake-up and no other thread is needed for the answer, and it answers other ranks
 * meanwhile. A rank whose threads all compute is woken by a doorbell, once (bells.h); polling from a second thread
 * would take half of the core from the computation. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "runtime/progress.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <string.h>
#include <time.h>

#include "machine/clock.h"
#include "machine/futex.h"
#include "runtime/bells.h"
#include "runtime/chaos_node.h"
#include "runtime/death.h"
#include "runtime/node_port.h"
#include "runtime/nodes.h"
#include "runtime/thread.h"
#include "runtime/trace.h"

enum {
    SLEEP_NS = 100 * 1000 * 1000, /* behind a wake that got lost */
    LATE_NS = 1000 * 1000,
    LOOKS_SENT = 8,
    CLOCK_LOOKS = 4,
    SPINS = 100,
    ALONE_SPINS = 10 * 1000, /* a few ms: to be woken takes some 50 us */
    NAP_NS = 1000 * 1000,    /* beside another process: a message for this one is not announced */
    LOCK_TRIES = 120,
    BATCH = 64
};

static _Thread_local bool is_service;

/* Give the core to another rank or thread of this host, if there is one that is ready to run. */
static void relax_core(const struct runtime *runtime, unsigned spins)
{
    thread_relax(runtime->options.oversubscribed || spins > SPINS);
}

/* ---- mutexes --------------------------------------------------------------------------------------------------- */

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

void progress_lock_own(struct runtime *runtime)
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

void progress_unlock_own(struct runtime *runtime)
{
    pthread_mutex_unlock(&runtime->mutex);
}

void progress_lock(struct runtime *runtime)
{
    progress_lock_own(runtime);
    shared_lock(runtime);
}

void progress_unlock(struct runtime *runtime)
{
    shared_unlock(runtime);
    progress_unlock_own(runtime);
}

void progress_become_service(void)
{
    is_service = true;
}

/* ---- messages ------------------------------------------------------------------------------------------------ */

static int receiver_of(const struct runtime *runtime, const struct message *message)
{
    return message->rank == RANK_ANY ? runtime->nodes.to[message->peer] : message->rank;
}

/* Whether this rank computes, and which process of the node polls. */
static void hint(const struct runtime *runtime, const struct message *message)
{
    message_header(message)->by_service = is_service;
    message_header(message)->poller = (uint16_t)atomic_load_explicit(&runtime->shared->poller, memory_order_relaxed);
}

static void send_message(struct runtime *runtime, struct message *message)
{
    struct transport_part parts[MESSAGE_SEGMENTS_MAX];
    int count = message->segment_count;
    message->rank = receiver_of(runtime, message);
    hint(runtime, message);
    runtime->stats->messages_sent++;
    runtime->stats->bytes_sent += message->wire_bytes;
    for (int i = 0; i < count; i++) {
        parts[i] = (struct transport_part){.at = message->segments[i].at, .bytes = message->segments[i].bytes};
        runtime->stats->bytes_sent += parts[i].bytes;
    }
    struct message sent = *message;
    uint8_t kind = message_header(message)->kind; /* read before the transport owns the bytes, and may give them back */
    message->wire = NULL;
    if (count == 0)
        transport_send(runtime->transport, sent.rank, sent.wire, sent.wire_bytes, sent.wire_capacity);
    else
        transport_send_parts(runtime->transport, sent.rank, sent.wire, sent.wire_bytes, sent.wire_capacity, parts,
                             count, message);
    bells_sending(runtime, sent.rank, kind, sent.ring);
}

/* Take in small messages behind it that go to the same process: a message more costs MPI, and the kernel where it is
 * TCP, as much as some KiB.  Not those for which a computing receiver is rung. */
static void join(struct runtime *runtime, struct message *into)
{
    enum { JOINED_BYTES = 16 * 1024, JOIN_LOOKS = 16 };
    struct message **link = &into->next;
    if (into->segment_count > 0)
        return;
    for (int looks = 0; *link && looks < JOIN_LOOKS; looks++) {
        struct message *message = *link;
        bool small = into->wire_bytes + message->wire_bytes <= JOINED_BYTES && message->segment_count == 0;
        if (!small || message->ring != RING_NEVER || receiver_of(runtime, message) != receiver_of(runtime, into)) {
            link = &message->next;
            continue;
        }
        *link = message->next;
        hint(runtime, message);
        message_put_bytes(into, &runtime->node->pool, message->wire, message->wire_bytes);
        message_free(message, &runtime->node->pool);
    }
}

static void join_all(struct runtime *runtime, struct message *message)
{
    for (; message && !(runtime->options.without & DSM_WITHOUT_JOIN); message = message->next)
        join(runtime, message);
}

/* Under the process' mutex.  Returns the messages that the node gets back at once; those with segments come back by
 * `sent`. */
static struct message *send_all(struct runtime *runtime, struct message *message)
{
    struct message *done = NULL;
    for (struct message *next; message; message = next) {
        bool whole = message->segment_count == 0;
        next = message->next;
        send_message(runtime, message);
        if (!whole)
            continue;
        message->next = done;
        done = message;
    }
    return done;
}

static void free_all(struct runtime *runtime, struct message *message)
{
    for (struct message *next; message; message = next) {
        next = message->next;
        message_free(message, &runtime->node->pool);
    }
}

/* The threads that sleep beside a polling one, unless they have been told of this wake. */
static void wake_siblings(struct runtime *runtime)
{
    uint32_t generation = atomic_load(&runtime->shared->generation);
    if (runtime->sleepers && runtime->told != generation)
        pthread_cond_broadcast(&runtime->changed);
    runtime->told = generation;
}

void progress_wake(struct runtime *runtime)
{
    atomic_fetch_add(&runtime->shared->generation, 1);
    wake_siblings(runtime);
    if (atomic_load(&runtime->shared->sleepers))
        futex_wake(&runtime->shared->generation, INT_MAX);
}

static void wake_all(struct runtime *runtime)
{
    struct node *node = runtime->node;
    progress_wake(runtime);
    for (struct awaiting *thread = runtime->shared->awaiting; thread; thread = thread->next)
        if (counter_find(node, thread->counter)->value != thread->seen)
            progress_rouse(&thread->sleeper);
}

void progress_flush(struct runtime *runtime)
{
    struct node *node = runtime->node;
    for (;;) {
        if (runtime->trace >= 0 && runtime->shared->traced < node->event_count)
            trace_write(runtime);
        struct message *message = node_take_outbox(node);
        bool blocked = !message && node->send_blocked;
        if (blocked) {
            node->send_blocked = false;
            bells_mark_receivers(runtime);
        }
        if (!message && !blocked)
            break;
        join_all(runtime, message);
        shared_unlock(runtime);
        message = send_all(runtime, message); /* what is sent at once may let the node send more */
        if (blocked)
            bells_ring_receivers(runtime);
        shared_lock(runtime);
        free_all(runtime, message);
    }
    if (node_take_wake(node))
        wake_all(runtime);
}

static void take_in(struct runtime *runtime, struct message *message)
{
    if (message->wire_bytes >= sizeof(struct message_header)) {
        const struct message_header *header = message_header(message);
        bells_heard_from(runtime, message->peer, header->by_service && header->poller == 0);
        nodes_heard(runtime, message->peer, header->poller);
    }
    node_receive(runtime->node, message);
    progress_flush(runtime);
}

/* Of the first message in these bytes; all of them, if no other one can follow. */
static uint64_t first_bytes(const unsigned char *wire, uint64_t bytes)
{
    struct message_header header;
    if (bytes < sizeof header)
        return bytes;
    memcpy(&header, wire, sizeof header);
    return header.bytes >= sizeof header && header.bytes < bytes ? header.bytes : bytes;
}

/* Messages that were joined (join). */
static void take_joined(struct runtime *runtime, int peer, unsigned char *wire, uint64_t bytes)
{
    struct pool *pool = &runtime->node->pool;
    for (uint64_t at = 0, one; at < bytes; at += one) {
        one = first_bytes(wire + at, bytes - at);
        void *own = pool_take_persistent(pool, one);
        memcpy(own, wire + at, one);
        take_in(runtime, message_wrap(pool, runtime->nodes.of[peer], peer, own, one));
    }
    pool_give_persistent(pool, wire, bytes);
}

static void receive(struct runtime *runtime, int peer, struct message *placed, void *buffer, uint64_t bytes)
{
    runtime->stats->messages_received++;
    runtime->stats->bytes_received += bytes;
    shared_lock(runtime);
    for (int k = 0; placed && k < placed->segment_count; k++)
        runtime->stats->bytes_received += placed->segments[k].bytes;
    if (placed)
        take_in(runtime, placed);
    else if (first_bytes(buffer, bytes) < bytes)
        take_joined(runtime, peer, buffer, bytes);
    else
        take_in(runtime, message_wrap(&runtime->node->pool, runtime->nodes.of[peer], peer, buffer, bytes));
    shared_unlock(runtime);
}

static void step_chaos(struct runtime *runtime)
{
    shared_lock(runtime);
    if (chaos_node_step(runtime))
        progress_flush(runtime);
    shared_unlock(runtime);
}

bool progress_poll(struct runtime *runtime)
{
    bool any = false;
    if (runtime->options.chaos_seed)
        step_chaos(runtime);
    uint32_t before = atomic_load(&runtime->shared->generation);
    int batch = runtime->nodes.count > 1 ? BATCH : 0; /* a node that is alone sends nothing */
    /* A wake ends it: one more look costs what half a round trip does, and the thread may have what it waits for. */
    for (int i = 0; i < batch && atomic_load(&runtime->shared->generation) == before; i++) {
        void *buffer, *placed;
        uint64_t bytes;
        int peer = transport_receive(runtime->transport, &buffer, &bytes, &placed);
        if (peer < 0)
            break;
        any = true;
        receive(runtime, peer, placed, buffer, bytes);
    }
    if (runtime->flush_due) {
        shared_lock(runtime);
        progress_flush(runtime);
        shared_unlock(runtime);
    }
    return any;
}

void progress_glance(struct runtime *runtime)
{
    enum { GLANCE_AFTER_NS = 5 * 1000 };
    int64_t now = runtime->nodes.count > 1 && !runtime->polling ? clock_now_ns() : 0;
    if (now - runtime->polled_ns <= GLANCE_AFTER_NS)
        return;
    shared_unlock(runtime);
    progress_poll(runtime);
    shared_lock(runtime);
    runtime->polled_ns = now;
}

/* ---- waiting threads ----------------------------------------------------------------------------------------- */

/* Another thread polls: sleep until it signals a change, or leaves.  Not for ever, should the signal get lost. */
static void sleep_beside(struct runtime *runtime, int64_t now_ns, int64_t deadline_ns)
{
    int64_t until_ns = now_ns + SLEEP_NS;
    if (deadline_ns >= 0 && deadline_ns < until_ns)
        until_ns = deadline_ns;
    struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
    runtime->sleepers++;
    pthread_cond_timedwait(&runtime->changed, &runtime->mutex, &until);
    runtime->sleepers--;
}

bool progress_enter_own(struct runtime *runtime, enum runtime_state last)
{
    progress_lock_own(runtime);
    if (runtime_state() > last) {
        progress_unlock_own(runtime);
        return false;
    }
    runtime->waiting++;
    return true;
}

bool progress_enter(struct runtime *runtime, enum runtime_state last)
{
    bool entered = progress_enter_own(runtime, last);
    if (entered)
        shared_lock(runtime);
    return entered;
}

bool progress_sleep(struct runtime *runtime, struct sleeper *sleeper, int64_t deadline_ns)
{
    atomic_store(&sleeper->up, 0);
    for (int64_t now = clock_now_ns(); !sleeper->up && (deadline_ns < 0 || now < deadline_ns); now = clock_now_ns()) {
        progress_unlock(runtime);
        futex_wait(&sleeper->up, 0, deadline_ns < 0 ? now + SLEEP_NS : deadline_ns);
        progress_lock(runtime);
    }
    return atomic_load(&sleeper->up);
}

void progress_rouse(struct sleeper *sleeper)
{
    atomic_store(&sleeper->up, 1);
    futex_wake(&sleeper->up, 1);
}

bool progress_under_way(const struct runtime *runtime)
{
    return transport_pending(runtime->transport) || runtime->postponed;
}

/* MPI sees at one of the next looks that the receiver has what was sent last. */
static void see_sends_through(struct runtime *runtime)
{
    for (int looks = 0; looks < LOOKS_SENT && transport_pending(runtime->transport); looks++)
        progress_poll(runtime);
}

void progress_leave(struct runtime *runtime)
{
    shared_unlock(runtime);
    progress_leave_own(runtime);
}

void progress_leave_own(struct runtime *runtime)
{
    bool bells = runtime->options.progress == DSM_PROGRESS_DOORBELL;
    runtime->waiting--;
    if (runtime->rings_due && !runtime->polling)
        bells_ring_once(runtime, INT64_MAX);
    if (bells && !runtime->polling)
        see_sends_through(runtime);
    bool late = runtime->bell_ns && clock_now_ns() - runtime->bell_ns < LATE_NS;
    runtime->bell_ns = 0;
    if (bells && (late || progress_under_way(runtime)))
        doorbell_ring(runtime->doorbell, runtime->rank);
    progress_unlock_own(runtime);
}

/* Other nodes are told of one process of this node that polls. */
static void show_polling(struct runtime *runtime, bool polls)
{
    _Atomic int *poller = &runtime->shared->poller;
    int none = 0, me = runtime->rank + 1;
    if (runtime->nodes.spaces == 1 || me > UINT16_MAX)
        return;
    if (!polls)
        atomic_compare_exchange_strong(poller, &me, 0);
    else if (atomic_load_explicit(poller, memory_order_relaxed) == 0)
        atomic_compare_exchange_strong(poller, &none, me);
}

/* Nothing that was sent here is unanswered, and MPI needs no look. */
static bool is_owed_nothing(const struct runtime *runtime)
{
    return runtime->options.progress == DSM_PROGRESS_DOORBELL && runtime->rings_due == 0 &&
           transport_pending(runtime->transport) == 0;
}

/* While another process of the node polls, which is then counted in `pollers`, this one need not.  False: it is the
 * last one.  A node that is alone is sent nothing. */
static bool nap(struct runtime *runtime, uint32_t asked, int64_t deadline_ns)
{
    struct shared *shared = runtime->shared;
    bool alone = runtime->nodes.count == 1;
    int64_t until_ns = clock_now_ns() + (alone ? SLEEP_NS : NAP_NS);
    if (atomic_fetch_sub(&shared->pollers, 1) == 1 && !alone) {
        atomic_fetch_add(&shared->pollers, 1);
        return false;
    }
    show_polling(runtime, false);
    atomic_fetch_add(&shared->sleepers, 1);
    futex_wait(&shared->generation, asked, deadline_ns >= 0 && deadline_ns < until_ns ? deadline_ns : until_ns);
    atomic_fetch_sub(&shared->sleepers, 1);
    atomic_fetch_add(&shared->pollers, 1);
    return true;
}

static bool may_nap(const struct runtime *runtime, unsigned spins)
{
    bool alone = runtime->nodes.count == 1 && !runtime->options.oversubscribed;
    return spins > (alone ? ALONE_SPINS : SPINS) && is_owed_nothing(runtime);
}

/* Between two looks.  *idle: this process is counted in `pollers`. */
static void pause_polling(struct runtime *runtime, uint32_t asked, unsigned spins, int64_t deadline_ns, bool *idle)
{
    bool free = may_nap(runtime, spins);
    if (free && !*idle)
        atomic_fetch_add(&runtime->shared->pollers, 1);
    *idle = *idle || free;
    show_polling(runtime, true);
    progress_unlock_own(runtime);
    if (!free || !nap(runtime, asked, deadline_ns))
        relax_core(runtime, spins);
    progress_lock_own(runtime);
}

/* Poll until the node wakes its threads: it had done so `asked` times.  False when the deadline passes first. */
static bool await_wake(struct runtime *runtime, uint32_t asked, node_id awaited, unsigned *spins, int64_t *now,
                       int64_t deadline_ns)
{
    bool woken = true, idle = false;
    while (atomic_load(&runtime->shared->generation) == asked) {
        /* Reading the clock is a tenth of a look. */
        if (*spins % CLOCK_LOOKS == 0 || *spins > SPINS || runtime->options.oversubscribed)
            *now = clock_now_ns();
        woken = deadline_ns < 0 || *now < deadline_ns;
        if (!woken)
            break;
        if (awaited != NODE_NONE)
            bells_await(runtime, awaited, *now);
        if (runtime->polling) {
            *now = clock_now_ns();
            sleep_beside(runtime, *now, deadline_ns);
            continue;
        }
        runtime->polling = true;
        bool any = progress_poll(runtime);
        if (runtime->rings_due)
            bells_ring_due(runtime, *now);
        *spins = any ? 0 : *spins + 1;
        if (!any) {
            runtime->polled_ns = *now;
            node_port_prepare(runtime);
            pause_polling(runtime, asked, *spins, deadline_ns, &idle);
        }
        runtime->polling = false;
    }
    if (idle)
        atomic_fetch_sub(&runtime->shared->pollers, 1);
    show_polling(runtime, false);
    wake_siblings(runtime); /* another process may have counted */
    return woken;
}

bool progress_wait(struct runtime *runtime, struct question *question, int64_t deadline_ns)
{
    unsigned spins = 0;
    int64_t now = 0;
    bool finished;
    for (;;) {
        uint32_t asked = atomic_load(&runtime->shared->generation);
        question->awaited = NODE_NONE;
        finished = question->answered(runtime, question);
        progress_flush(runtime);
        if (finished || runtime_state() != RUNTIME_ACTIVE)
            break;
        shared_unlock(runtime);
        bool woken = await_wake(runtime, asked, question->awaited, &spins, &now, deadline_ns);
        shared_lock(runtime);
        if (!woken)
            break;
    }
    if (runtime->sleepers)
        pthread_cond_signal(&runtime->changed);
    return finished;
}

bool progress_await(struct runtime *runtime, bool (*happened)(const struct runtime *runtime), int64_t deadline_ns)
{
    unsigned spins = 0;
    int64_t now = 0;
    bool woken = true;
    for (;;) {
        uint32_t asked = atomic_load(&runtime->shared->generation);
        bool done = happened(runtime);
        if (done || !woken || runtime_state() != RUNTIME_ACTIVE) {
            if (runtime->sleepers)
                pthread_cond_signal(&runtime->changed);
            return done;
        }
        woken = await_wake(runtime, asked, NODE_NONE, &spins, &now, deadline_ns);
    }
}

static void rouse_all(struct runtime *runtime)
{
    for (struct awaiting *thread = runtime->shared->awaiting; thread; thread = thread->next)
        progress_rouse(&thread->sleeper);
    const struct lock *lock;
    for (uint32_t next = 0; (lock = lock_next(runtime->node, &next));)
        for (struct lock_waiter *waiter = lock->queue; waiter; waiter = waiter->next)
            if (waiter->sleeper)
                progress_rouse(waiter->sleeper);
}

/* Calls that wait return with an error; a page fault cannot, and goes on to its end.  The other ranks still answer,
 * because they are here, too, until no thread of any rank waits. */
void progress_end(struct runtime *runtime)
{
    progress_lock(runtime);
    runtime_enter_state(RUNTIME_ENDING);
    progress_wake(runtime);
    pthread_cond_broadcast(&runtime->changed);
    rouse_all(runtime);
    shared_unlock(runtime);
    for (;;) {
        if (runtime->waiting == 0) {
            shared_lock(runtime); /* a node that is alone serves faults under its own mutex only */
            runtime_enter_state(RUNTIME_ENDED);
            shared_unlock(runtime);
            if (transport_quiet(runtime->transport))
                break;
        }
        if (!progress_poll(runtime)) {
            progress_unlock_own(runtime);
            sched_yield();
            progress_lock_own(runtime);
        }
    }
    progress_unlock_own(runtime);
}
