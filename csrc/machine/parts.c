/* Why parts are received by MPI_Irecv into place: their lengths and places are known from the envelope, so no probe
 * and no copy is needed. */
#include "parts.h"

#include "chaos.h"

#include <stdlib.h>

enum { PART_TAG = 0 };

struct arrival {
    struct arrival *next;
    struct envelope envelope;
    void *token;
    int count; /* of parts */
    bool begun, complete;
    MPI_Request requests[TRANSPORT_PARTS_MAX];
    struct transport_part parts[TRANSPORT_PARTS_MAX];
};

int parts_open(struct parts *parts, const struct communicator *comm)
{
    *parts = (struct parts){.comm = comm};
    parts->waiting = calloc((size_t)comm->size, sizeof *parts->waiting);
    return parts->waiting ? 0 : -1;
}

void parts_close(struct parts *parts)
{
    free(parts->waiting);
}

static void post(const struct parts *parts, struct arrival *arrival)
{
    for (int i = 0; i < arrival->count; i++) {
        const struct transport_part *part = &arrival->parts[i];
        communicator_check(parts->comm,
                           MPI_Irecv(part->at, (int)part->bytes, MPI_BYTE, arrival->envelope.source, PART_TAG,
                                     parts->comm->parts, &arrival->requests[i]),
                           "MPI_Irecv");
    }
}

/* Chaos begins messages late, and must begin them in their order. */
static void begin(struct parts *parts, struct arrival *arrival, bool oldest)
{
    if (parts->chaos && (!oldest || chaos_begins_late(parts->chaos)))
        return;
    arrival->begun = true;
    post(parts, arrival);
}

static uint64_t bytes_of(const struct parts *parts, const MPI_Status *status)
{
    int count = 0;
    communicator_check(parts->comm, MPI_Get_count(status, MPI_BYTE, &count), "MPI_Get_count");
    return count == MPI_UNDEFINED || count < 0 ? 0 : (uint64_t)count;
}

static bool have_come(const struct parts *parts, struct arrival *arrival)
{
    MPI_Status statuses[TRANSPORT_PARTS_MAX];
    int all = 0;
    int code = MPI_Testall(arrival->count, arrival->requests, &all, statuses);
    communicator_check_each(parts->comm, code, code == MPI_SUCCESS ? 0 : arrival->count, statuses);
    for (int i = 0; all && i < arrival->count; i++)
        if (bytes_of(parts, &statuses[i]) != arrival->parts[i].bytes)
            parts->comm->buffers.broken(parts->comm->buffers.context, "a part of a message is shorter than announced");
    return all;
}

void parts_await(struct parts *parts, const struct envelope *envelope)
{
    const struct transport_buffers *buffers = &parts->comm->buffers;
    struct arrival *arrival = buffers->take(buffers->context, sizeof *arrival);
    arrival->next = NULL;
    arrival->envelope = *envelope;
    arrival->token = NULL;
    arrival->count = 0;
    if (envelope->kind != ENVELOPE_ALONE)
        arrival->count = buffers->place(buffers->context, envelope->source, envelope->buffer, envelope->bytes,
                                        arrival->parts, &arrival->token);
    arrival->begun = arrival->complete = arrival->count == 0;
    if (!arrival->begun)
        begin(parts, arrival, parts->waiting[envelope->source] == 0);
    if (!parts->first)
        parts->end = &parts->first;
    *parts->end = arrival;
    parts->end = &arrival->next;
    parts->count++;
    parts->waiting[envelope->source]++;
}

static void remove_at(struct parts *parts, struct arrival **link)
{
    const struct transport_buffers *buffers = &parts->comm->buffers;
    struct arrival *arrival = *link;
    *link = arrival->next;
    if (!arrival->next)
        parts->end = link;
    parts->count--;
    parts->waiting[arrival->envelope.source]--;
    buffers->give(buffers->context, arrival, sizeof *arrival);
}

bool parts_take(struct parts *parts, struct envelope *envelope, void **token)
{
    unsigned passed = 0; /* messages that cannot be taken yet; only behind one can another be too early */
    for (struct arrival **link = &parts->first; *link; link = &(*link)->next) {
        struct arrival *arrival = *link;
        bool oldest = true;
        for (const struct arrival *older = parts->first; passed && older != arrival; older = older->next)
            oldest = oldest && older->envelope.source != arrival->envelope.source;
        if (!arrival->begun)
            begin(parts, arrival, oldest);
        if (arrival->begun && !arrival->complete)
            arrival->complete = have_come(parts, arrival);
        if (!arrival->complete || !oldest) {
            passed++;
            continue;
        }
        *envelope = arrival->envelope;
        *token = arrival->token;
        remove_at(parts, link);
        return true;
    }
    return false;
}
