/* What a message passes on its way in: receives, then chaos if it is on, then parts. */
#include "transport.h"

#include "chaos.h"
#include "communicator.h"
#include "parts.h"
#include "receives.h"
#include "sends.h"

#include <stdio.h>
#include <stdlib.h>

struct transport {
    struct communicator comm;
    struct sends sends;
    struct receives receives;
    struct parts parts;
    struct chaos *chaos; /* NULL in production */
};

/* ---- life ------------------------------------------------------------------------------------------------------ */

static void discard(struct transport *transport)
{
    communicator_free(&transport->comm);
    sends_close(&transport->sends);
    receives_close(&transport->receives);
    parts_close(&transport->parts);
    chaos_close(transport->chaos);
    free(transport);
}

int transport_open(struct transport **transport, const void *mpi_comm, const struct transport_buffers *buffers,
                   char *text, int text_capacity)
{
    struct transport *made = calloc(1, sizeof *made);
    *transport = NULL;
    if (!made) {
        snprintf(text, (size_t)text_capacity, "no memory");
        return -1;
    }
    made->comm.buffers = *buffers;
    if (communicator_ask(&made->comm, mpi_comm, text, text_capacity) != 0) {
        discard(made);
        return -1;
    }
    *transport = made;
    return 0;
}

int transport_opened(struct transport *transport, char *text, int text_capacity)
{
    const struct communicator *comm = &transport->comm;
    int ready = communicator_ready(&transport->comm, text, text_capacity);
    if (ready == 0)
        return 0;
    transport->sends.comm = comm;
    if (ready == 1 && (receives_open(&transport->receives, comm) != 0 || parts_open(&transport->parts, comm) != 0)) {
        snprintf(text, (size_t)text_capacity, "no memory");
        ready = -1;
    }
    if (ready < 0)
        discard(transport);
    return ready;
}

int transport_start_chaos(struct transport *transport, uint64_t seed)
{
    const struct communicator *comm = &transport->comm;
    transport->chaos = transport->parts.chaos = chaos_open(seed, comm->rank, comm->size, &comm->buffers);
    return transport->chaos ? 0 : -1;
}

int transport_rank(const struct transport *transport)
{
    return transport->comm.rank;
}

int transport_size(const struct transport *transport)
{
    return transport->comm.size;
}

/* ---- messages -------------------------------------------------------------------------------------------------- */

void transport_send(struct transport *transport, int peer, void *buffer, uint64_t bytes, uint64_t capacity)
{
    sends_post(&transport->sends, peer, ENVELOPE_ALONE, buffer, bytes, capacity);
}

void transport_send_parts(struct transport *transport, int peer, void *buffer, uint64_t bytes, uint64_t capacity,
                          const struct transport_part *parts, int count, void *token)
{
    sends_post(&transport->sends, peer, ENVELOPE_PARTS, buffer, bytes, capacity);
    sends_post_parts(&transport->sends, peer, parts, count, token);
}

/* Chaos is entered here. */
static bool next_envelope(struct transport *transport, struct envelope *envelope)
{
    if (!transport->chaos)
        return receives_next(&transport->receives, envelope);
    while (receives_next(&transport->receives, envelope))
        chaos_keep(transport->chaos, envelope);
    return chaos_take(transport->chaos, envelope);
}

int transport_receive(struct transport *transport, void **buffer, uint64_t *bytes, void **token)
{
    struct parts *parts = &transport->parts;
    struct envelope envelope;
    *token = NULL;
    if (transport->sends.count > 0)
        sends_poll(&transport->sends);
    bool found = parts->count > 0 && parts_take(parts, &envelope, token);
    while (!found && next_envelope(transport, &envelope)) {
        found = envelope.kind == ENVELOPE_ALONE && (parts->waiting[envelope.source] == 0 || transport->chaos);
        if (!found) {
            parts_await(parts, &envelope);
            found = parts_take(parts, &envelope, token);
        }
    }
    if (!found)
        return -1;
    *buffer = envelope.buffer;
    *bytes = envelope.bytes;
    return envelope.source;
}

unsigned transport_pending(const struct transport *transport)
{
    return transport->sends.count + transport->parts.count + (transport->chaos ? chaos_kept(transport->chaos) : 0);
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

bool transport_quiet(struct transport *transport)
{
    return communicator_meet(&transport->comm);
}

/* A send that its receiver has not matched ends only when it is received.  So every rank goes on receiving, and
 * throws away what comes, until the sends of all ranks are done. */
void transport_close(struct transport *transport)
{
    const struct transport_buffers *buffers = &transport->comm.buffers;
    bool done = false, met = false, left = true;
    while (!met || left) {
        void *buffer, *token;
        uint64_t bytes;
        left = transport_receive(transport, &buffer, &bytes, &token) >= 0;
        if (left)
            buffers->give(buffers->context, buffer, bytes);
        done = done || transport->sends.count == 0;
        met = met || (done && communicator_meet(&transport->comm));
        left = left || transport->receives.count > 0 || transport_pending(transport) > 0;
    }
    discard(transport);
}

/* ---- collectives ----------------------------------------------------------------------------------------------- */

uint64_t transport_agree_min(struct transport *transport, uint64_t value)
{
    return communicator_min(&transport->comm, value);
}

uint64_t transport_agree_max(struct transport *transport, uint64_t value)
{
    return communicator_max(&transport->comm, value);
}

void transport_gather(struct transport *transport, const void *mine, int bytes, void *all)
{
    communicator_gather(&transport->comm, mine, bytes, all);
}

void transport_broadcast(struct transport *transport, void *value, int bytes)
{
    communicator_broadcast(&transport->comm, value, bytes);
}
