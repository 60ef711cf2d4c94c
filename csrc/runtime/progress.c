/* Two ways of making progress.  A thread that waits polls the transport itself: no wake-up, no other thread, and it
 * answers others meanwhile.  A rank whose threads all compute is woken by a doorbell, once; polling from a second thread
 * would take half of the core from the computation.
 *
 * When to ring: waking a sleeper costs the ringer a system call and the sleeper's core a switch.  A peer of this host says
 * on its board whether it polls: it is rung as soon as it does not, and never while it does.  Of others nothing is known but
 * the past: a peer is rung at once only if its last answer came from its service thread; otherwise it probably waits in a
 * loop like this one, and is rung when it does not answer for about two round trips.  Replies, grants and barriers are never
 * rung: their receiver waits.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/runtime.h"

enum {
    RING_FETCH_AFTER_NS = 30 * 1000, /* about two round trips between waiting ranks */
    RING_LOCK_AFTER_NS = 100 * 1000, /* the holder polls when it releases */
    RING_BUSY_AFTER_NS = 100 * 1000, /* more, for a peer that was heard of a moment ago: it sends large answers */
    RECENT_NS = 500 * 1000,
    SLEEP_NS = 100 * 1000 * 1000, /* behind a bell that got lost */
    POLL_NS = 100 * 1000,
    STANDING_NS = 1000 * 1000, /* a grant for a thread that timed out is not rung, and others wait behind it */
    SLICE_NS = 100 * 1000,
    LOOKS_HEARD_NEAR = 40,
    LOOKS_HEARD_FAR = 300,
    LOOKS_UNHEARD = 10,
    LOOKS_SENT = 8,
    LOOKS_MORE_NEAR = 3,
    LOOKS_MORE_FAR = 10,
    CLOCK_LOOKS = 4,
    LATE_NS = 1000 * 1000,
    RINGS_MAX = 4,
    SPINS = 100,
    SPINS_SERVING_NEAR = 4,
    LOCK_TRIES = 120,
    BATCH = 64
};

static _Thread_local bool is_service;

/* Give the core to another rank or thread of this host, if there is one that wants it. */
static void relax_core(const struct runtime *runtime, unsigned spins)
{
    if (runtime->options.oversubscribed || spins > SPINS)
        sched_yield();
#if defined(__x86_64__)
    else
        __builtin_ia32_pause();
#endif
}

/* Waking from a mutex costs ten times what it is held for as a rule, so the thread looks first, and gives a holder that
 * waits for this core a chance to run. */
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
        runtime_die(runtime, "the runtime touched shared memory itself (an argument of a dsm call lies in it?)", 1,
                    true);
}

void progress_unlock(struct runtime *runtime)
{
    pthread_mutex_unlock(&runtime->mutex);
}

/* ---- bells --------------------------------------------------------------------------------------------------- */

static void stop_ringing(struct runtime *runtime, struct peer_state *known)
{
    if (known->ring_at_ns)
        runtime->rings_due--;
    known->ring_at_ns = 0;
    known->rung = 0;
    known->for_page = false;
}

/* A peer that was asked and will not look by itself.  One that holds a lock looks when it releases it, which is soon enough
 * for who wants a lock: it is often the same one. */
static bool sleeps(const struct runtime *runtime, int peer)
{
    switch (board_read(runtime->board, peer)) {
    case BOARD_UNKNOWN: return runtime->peers[peer].by_service;
    case BOARD_COMPUTES: return true;
    case BOARD_HOLDS: return runtime->peers[peer].for_page;
    case BOARD_POLLS: break;
    }
    return false;
}

static void tell(struct runtime *runtime)
{
    bool polls = runtime->waiting > runtime->asleep || runtime->serving;
    board_say(runtime->board, polls ? BOARD_POLLS : runtime->held ? BOARD_HOLDS : BOARD_COMPUTES);
}

static void ring(struct runtime *runtime, int peer)
{
    runtime->stats.bells_rung++;
    doorbell_ring(runtime->doorbell, peer);
}

/* The time of a bell has come.  It is repeated some times, ever later: a datagram may get lost, or come before MPI shows
 * the message. */
static void ring_peer(struct runtime *runtime, int peer)
{
    static const int64_t again_ns[RINGS_MAX] = {50 * 1000, 2000 * 1000, 10 * 1000 * 1000, 40 * 1000 * 1000};
    struct peer_state *known = &runtime->peers[peer];
    ring(runtime, peer);
    if (known->rung == RINGS_MAX) {
        stop_ringing(runtime, known);
        return;
    }
    if (!known->ring_at_ns)
        runtime->rings_due++;
    known->ring_at_ns = clock_now_ns() + again_ns[known->rung++];
}

static void ring_later(struct runtime *runtime, int peer, int64_t after_ns, bool for_page)
{
    struct peer_state *known = &runtime->peers[peer];
    known->for_page = known->for_page || for_page;
    if (sleeps(runtime, peer)) {
        known->rung = 0;
        ring_peer(runtime, peer);
    } else if (!known->ring_at_ns) {
        int64_t now = clock_now_ns();
        if (now - known->heard_ns < RECENT_NS)
            after_ns += RING_BUSY_AFTER_NS;
        known->ring_at_ns = now + after_ns;
        runtime->rings_due++;
    }
}

static void ring_for(struct runtime *runtime, const struct message *message)
{
    if (runtime->options.progress != DSM_PROGRESS_DOORBELL)
        return;
    bool for_page = message_header(message)->kind == MESSAGE_FETCH;
    int64_t after = for_page ? RING_FETCH_AFTER_NS : RING_LOCK_AFTER_NS;
    switch ((enum ring)message->ring) {
    case RING_NEVER: break;
    case RING_LATER: ring_later(runtime, message->peer, after, for_page); break;
    case RING_NOW: ring(runtime, message->peer); break;
    }
}

/* A peer that polled when it was asked may have gone back to its computation before it could see the message. */
static bool is_due(const struct runtime *runtime, int peer, int64_t now_ns)
{
    const struct peer_state *known = &runtime->peers[peer];
    if (!known->ring_at_ns || board_read(runtime->board, peer) == BOARD_POLLS)
        return false;
    return known->ring_at_ns <= now_ns || (known->rung == 0 && sleeps(runtime, peer));
}

static void ring_due(struct runtime *runtime, int64_t now_ns)
{
    for (int peer = 0; peer < runtime->size && runtime->rings_due; peer++)
        if (is_due(runtime, peer, now_ns))
            ring_peer(runtime, peer);
}

/* Where nobody waits for the answer a bell is not repeated, and not rung at a peer that polls: it may miss the message, but
 * then whoever comes to wait will see that it computes. */
static void ring_once(struct runtime *runtime, int64_t now_ns)
{
    for (int peer = 0; peer < runtime->size && runtime->rings_due; peer++) {
        struct peer_state *known = &runtime->peers[peer];
        bool due = is_due(runtime, peer, now_ns);
        if (due && known->rung == 0)
            ring(runtime, peer);
        if (due || known->rung)
            stop_ringing(runtime, known);
    }
}

static void heard_from(struct runtime *runtime, int peer, bool by_service)
{
    runtime->peers[peer].by_service = by_service;
    runtime->peers[peer].heard_ns = clock_now_ns();
    stop_ringing(runtime, &runtime->peers[peer]);
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
    /* The header is read for the bell before the transport owns (and may give back) the bytes. */
    uint8_t kind = message_header(message)->kind;
    message->wire = NULL;
    if (count == 0) {
        message_free(message, &runtime->node->pool);
        transport_send(runtime->transport, sent.peer, sent.wire, sent.wire_bytes, sent.wire_capacity);
    } else {
        transport_send_parts(runtime->transport, sent.peer, sent.wire, sent.wire_bytes, sent.wire_capacity, parts,
                             count, message);
    }
    struct message_header header = {.kind = kind};
    sent.wire = (unsigned char *)&header;
    ring_for(runtime, &sent);
}

/* A thread here waits until a page has been sent, and its receiver may compute. */
static void ring_receivers(struct runtime *runtime)
{
    if (runtime->options.progress != DSM_PROGRESS_DOORBELL)
        return;
    for (const struct message *message = runtime->node->bulk->sending; message; message = message->bulk_next)
        ring_later(runtime, message->peer, RING_FETCH_AFTER_NS, true);
}

void progress_sent(struct runtime *runtime, struct message *message)
{
    node_sent(runtime->node, message);
}

_Static_assert(SEGMENT_NOWHERE == TRANSPORT_NOWHERE, "a segment is handed on as a part");

int progress_place(struct runtime *runtime, int source, void *buffer, uint64_t bytes, struct transport_part *parts,
                   struct message **placed)
{
    struct message *message = message_wrap(&runtime->node->pool, source, buffer, bytes);
    node_place(runtime->node, message);
    for (int i = 0; i < message->segment_count; i++)
        parts[i] =
            (struct transport_part){message->segments[i].at, message->segments[i].bytes, message->segments[i].offset};
    *placed = message;
    return message->segment_count;
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
        ring_receivers(runtime);
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
    if (runtime->options.chaos_seed)
        disturb(runtime);
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
            heard_from(runtime, peer, message_header(message)->by_service);
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

/* Another thread polls: sleep until it tells, or hands over when it leaves.  Should that get lost, not for ever. */
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
    tell(runtime);
    return true;
}

bool progress_sleep(struct runtime *runtime, struct sleeper *sleeper, int64_t deadline_ns)
{
    runtime_make_condition(&sleeper->roused);
    sleeper->up = false;
    runtime->asleep++;
    tell(runtime);
    for (int64_t now = clock_now_ns(); !sleeper->up && (deadline_ns < 0 || now < deadline_ns); now = clock_now_ns())
        sleep_on(runtime, &sleeper->roused, deadline_ns < 0 ? now + SLEEP_NS : deadline_ns);
    runtime->asleep--;
    tell(runtime);
    pthread_cond_destroy(&sleeper->roused);
    return sleeper->up;
}

void progress_rouse(struct sleeper *sleeper)
{
    sleeper->up = true;
    pthread_cond_signal(&sleeper->roused);
}

/* What wants looks to end: messages, and fetches that wait until a page has been sent. */
static bool under_way(const struct runtime *runtime)
{
    return transport_pending(runtime->transport) || runtime->node->fetches->postponed;
}

/* MPI learns at one of the next looks that the receiver has what was sent last. */
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
        ring_once(runtime, INT64_MAX);
    if (bells && !runtime->polling)
        see_sends_through(runtime);
    tell(runtime);
    bool late = !runtime->all_seen && runtime->bell_ns && clock_now_ns() - runtime->bell_ns < LATE_NS;
    runtime->bell_ns = 0;
    if (bells && (late || under_way(runtime)))
        doorbell_ring(runtime->doorbell, runtime->rank);
    progress_unlock(runtime);
}

/* While nothing arrives: what the next message would wait for the kernel to do.  A little at a time, about as long as an
 * answer takes; several times that where the machine is a virtual one that gave its free memory back. */
static void prepare(struct runtime *runtime)
{
    if (runtime->expected_count == 0) {
        pool_touch(&runtime->node->pool);
        return;
    }
    struct expected *last = &runtime->expected[runtime->expected_count - 1];
    last->end = memory_prepare(&runtime->memory, last->offset, last->end);
    if (last->end == last->offset)
        runtime->expected_count--;
}

bool progress_wait(struct runtime *runtime, bool (*done)(struct runtime *runtime, void *context), void *context,
                   int64_t deadline_ns)
{
    unsigned spins = 0;
    int64_t now = 0;
    bool finished;
    for (;;) {
        uint64_t asked = runtime->generation;
        finished = done(runtime, context);
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
                ring_due(runtime, now);
            spins = any ? 0 : spins + 1;
            if (!any) {
                runtime->polled_ns = now;
                prepare(runtime);
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

/* What a thread is doing when dsm ends it may do to its end only where nobody could tell it the contrary: in a page fault.
 * The other ranks still answer, because they are here, too, until all are through. */
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

/* ---- the service thread --------------------------------------------------------------------------------------- */

/* Something is under way that wants more polling soon, whether or not a bell rings. */
static bool is_busy(const struct runtime *runtime)
{
    return under_way(runtime) || runtime->rings_due || runtime->node->collection.phase != COLLECTION_IDLE ||
           runtime->node->prefetches->under_way;
}

/* Who rang has sent before, but MPI does not show the message at the first look (with MPICH 5 nearly always at the second),
 * and a bell may have been for another message than the one that is found: one look, and then sleep, would leave it until
 * the slow poll, or the one after that.  After an answer each look is part of the time of that answer where this thread runs
 * on the requester's core; between hosts MPI has to be looked at several times before it has sent what it calls sent. */
static bool poll_patiently(struct runtime *runtime, bool heard)
{
    bool any = false;
    int heard_looks = runtime->one_host ? LOOKS_HEARD_NEAR : LOOKS_HEARD_FAR,
        looks = heard ? heard_looks : LOOKS_UNHEARD;
    int more = runtime->one_host ? LOOKS_MORE_NEAR : LOOKS_MORE_FAR;
    for (int empty = 0; empty < looks && !atomic_load(&runtime->locking); empty++)
        if (progress_poll(runtime)) {
            any = true;
            looks = more;
            empty = 0;
        }
    return any;
}

/* Until the next look.  True: a bell was heard. */
static bool pause_service(struct runtime *runtime, bool busy)
{
    if (runtime->options.progress == DSM_PROGRESS_SPIN) {
        sched_yield();
        return false;
    }
    if (runtime->options.progress == DSM_PROGRESS_POLL) {
        nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
        return false;
    }
    bool soon = runtime->standing || runtime->options.chaos_seed;
    return doorbell_wait(runtime->doorbell, busy ? POLL_NS : soon ? STANDING_NS : SLEEP_NS);
}

void progress_short_slices(void)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime_ns, deadline_ns, period_ns;
    } attributes = {.size = 48, .policy = SCHED_OTHER, .nice = getpriority(PRIO_PROCESS, 0), .runtime_ns = SLICE_NS};
    syscall(SYS_sched_setattr, 0, &attributes, 0); /* an older kernel ignores or refuses it: nothing is lost */
}

void *progress_service(void *context)
{
    struct runtime *runtime = context;
    unsigned quiet = 0; /* looks without a message since there was one */
    bool busy = false;
    is_service = true;
    progress_short_slices();
    while (!atomic_load(&runtime->stopping)) {
        bool heard = false;
        if (busy && quiet < (runtime->one_host ? SPINS_SERVING_NEAR : SPINS))
            sched_yield();
        else
            heard = pause_service(runtime, busy);
        progress_lock(runtime);
        runtime->serving = true;
        tell(runtime);
        runtime->stats.bells_heard += heard;
        busy = false;
        if (runtime->polling && heard)
            runtime->bell_ns = clock_now_ns();
        if (!runtime->polling) {
            quiet = poll_patiently(runtime, heard) ? 0 : quiet + 1;
            if (heard && quiet && atomic_load(&runtime->locking))
                runtime->bell_ns = clock_now_ns();
            if (runtime->rings_due)
                ring_once(runtime, clock_now_ns());
            busy = is_busy(runtime);
            runtime->standing = runtime->standing && lock_orphaned(runtime->node);
        }
        if (!busy)
            quiet = 0;
        watchdog_tell_of_locks(runtime);
        runtime->serving = false;
        tell(runtime);
        progress_unlock(runtime);
    }
    return NULL;
}
