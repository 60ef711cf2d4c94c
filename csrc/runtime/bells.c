#include "runtime/bells.h"

#include <stdlib.h>

#include "machine/clock.h"
#include "runtime/runtime.h"

enum {
    RING_FETCH_AFTER_NS = 30 * 1000, /* about two round trips between waiting ranks */
    RING_LOCK_AFTER_NS = 100 * 1000, /* the holder polls when it releases */
    RING_BUSY_AFTER_NS = 100 * 1000, /* more, for a peer that was heard of a moment ago: it sends large answers */
    RECENT_NS = 500 * 1000,
    RINGS_ALL = 2, /* so many reached one process only */
    RINGS_MAX = 4
};

/* How a node answers. */
struct bell_state {
    bool computes;      /* its last message came from a service thread, and none of its processes polled */
    bool receives;      /* pages are being sent to it, for which a thread here waits */
    int rank;           /* its process that a message went to last */
    uint8_t rung;       /* how often since the request */
    int64_t heard_ns;   /* when one of its processes last sent something */
    int64_t ring_at_ns; /* a request went out that it may sleep through; 0: none */
};

int bells_open(struct runtime *runtime)
{
    runtime->bells = calloc((size_t)runtime->size, sizeof *runtime->bells);
    return runtime->bells ? 0 : -1;
}

static void stop_ringing(struct runtime *runtime, struct bell_state *state)
{
    if (state->ring_at_ns)
        runtime->rings_due--;
    state->ring_at_ns = 0;
    state->rung = 0;
}

static void ring(struct runtime *runtime, int rank)
{
    runtime->stats->bells_rung++;
    doorbell_ring(runtime->doorbell, rank);
}

/* Any process of the node, or of this one, may have the request, or the answer, and compute. */
static void ring_all(struct runtime *runtime, const struct bell_state *state)
{
    int node = (int)(state - runtime->bells), own = (int)runtime->node->number;
    for (int rank = 0; rank < runtime->size; rank++)
        if (rank != runtime->rank && (runtime->nodes.of[rank] == node || runtime->nodes.of[rank] == own))
            ring(runtime, rank);
}

/* The time of a bell has come.  It is repeated some times, ever later: a datagram may get lost, or come before MPI
 * shows the message. */
static void ring_peer(struct runtime *runtime, struct bell_state *state)
{
    static const int64_t again_ns[RINGS_MAX] = {50 * 1000, 2000 * 1000, 10 * 1000 * 1000, 40 * 1000 * 1000};
    if (state->rung < RINGS_ALL)
        ring(runtime, state->rank);
    else
        ring_all(runtime, state);
    if (state->rung == RINGS_MAX) {
        stop_ringing(runtime, state);
        return;
    }
    if (!state->ring_at_ns)
        runtime->rings_due++;
    state->ring_at_ns = clock_now_ns() + again_ns[state->rung++];
}

static void expect(struct runtime *runtime, struct bell_state *state, int64_t now_ns, int64_t after_ns)
{
    if (now_ns - state->heard_ns < RECENT_NS)
        after_ns += RING_BUSY_AFTER_NS;
    state->ring_at_ns = now_ns + after_ns;
    runtime->rings_due++;
}

static void ring_later(struct runtime *runtime, struct bell_state *state, int64_t after_ns)
{
    if (state->computes) {
        state->rung = 0;
        ring_peer(runtime, state);
    } else if (!state->ring_at_ns) {
        expect(runtime, state, clock_now_ns(), after_ns);
    }
}

void bells_await(struct runtime *runtime, node_id node, int64_t now_ns)
{
    struct bell_state *state = &runtime->bells[node];
    if (runtime->nodes.of[state->rank] != node)
        state->rank = runtime->nodes.to[node]; /* another process of this node has asked */
    if (runtime->options.progress == DSM_PROGRESS_DOORBELL && !state->ring_at_ns)
        expect(runtime, state, now_ns, RING_FETCH_AFTER_NS);
}

void bells_sending(struct runtime *runtime, int rank, uint8_t kind, uint8_t when)
{
    struct bell_state *state = &runtime->bells[runtime->nodes.of[rank]];
    if (runtime->options.progress != DSM_PROGRESS_DOORBELL || when == RING_NEVER)
        return;
    state->rank = rank;
    bool fetch = kind == MESSAGE_FETCH || kind == MESSAGE_FORWARD;
    int64_t after = fetch ? RING_FETCH_AFTER_NS : RING_LOCK_AFTER_NS;
    switch ((enum ring)when) {
    case RING_NEVER: break;
    case RING_LATER: ring_later(runtime, state, after); break;
    case RING_NOW: ring(runtime, rank); break;
    }
}

static bool is_due(const struct bell_state *state, int64_t now_ns)
{
    return state->ring_at_ns && state->ring_at_ns <= now_ns;
}

void bells_mark_receivers(struct runtime *runtime)
{
    for (const struct message *message = runtime->node->bulk->sending; message; message = message->bulk_next)
        if (message->rank != RANK_ANY) {
            runtime->bells[message->peer].receives = true;
            runtime->bells[message->peer].rank = message->rank;
        }
}

void bells_ring_receivers(struct runtime *runtime)
{
    for (uint32_t node = 0; node < runtime->nodes.count; node++) {
        struct bell_state *state = &runtime->bells[node];
        bool receives = state->receives;
        state->receives = false;
        if (receives && runtime->options.progress == DSM_PROGRESS_DOORBELL)
            ring_later(runtime, state, RING_FETCH_AFTER_NS);
    }
}

void bells_ring_due(struct runtime *runtime, int64_t now_ns)
{
    for (uint32_t node = 0; node < runtime->nodes.count && runtime->rings_due; node++)
        if (is_due(&runtime->bells[node], now_ns))
            ring_peer(runtime, &runtime->bells[node]);
}

void bells_ring_once(struct runtime *runtime, int64_t now_ns)
{
    for (uint32_t node = 0; node < runtime->nodes.count && runtime->rings_due; node++) {
        struct bell_state *state = &runtime->bells[node];
        bool due = is_due(state, now_ns);
        if (due && state->rung == 0)
            ring(runtime, state->rank);
        if (due || state->rung)
            stop_ringing(runtime, state);
    }
}

void bells_heard_from(struct runtime *runtime, node_id node, bool computes)
{
    runtime->bells[node].computes = computes;
    runtime->bells[node].heard_ns = clock_now_ns();
    stop_ringing(runtime, &runtime->bells[node]);
}
