/* Why nothing here waits: the caller holds the runtime's mutex, and a peer may need an answer from this rank before
 * MPI can finish a send. */
#include "sends.h"

#include "memory.h"

#include <limits.h>

enum { LIST_FIRST = 256, PART_TAG = 0 };

/* A message whose parts are under way. */
struct parcel {
    void *token;
    unsigned left; /* sends that are not finished */
};

struct send {
    void *buffer; /* of an envelope */
    uint64_t capacity;
    struct parcel *parcel; /* of a part */
    bool done;
};

/* Not realloc: a send may come from a fault handler. */
static void grow(struct sends *sends)
{
    size_t old = sends->capacity, new = old ? 2 * old : LIST_FIRST;
    sends->requests = memory_chunk_grow(sends->requests, old * sizeof *sends->requests, new * sizeof *sends->requests);
    sends->items = memory_chunk_grow(sends->items, old * sizeof *sends->items, new * sizeof *sends->items);
    if (!sends->requests || !sends->items)
        sends->comm->buffers.broken(sends->comm->buffers.context, "no memory for the list of messages under way");
    sends->capacity = (unsigned)new;
}

static void finish(const struct sends *sends, struct send send)
{
    const struct transport_buffers *buffers = &sends->comm->buffers;
    if (send.buffer)
        buffers->give(buffers->context, send.buffer, send.capacity);
    if (!send.parcel || --send.parcel->left > 0)
        return;
    void *token = send.parcel->token;
    buffers->give(buffers->context, send.parcel, sizeof *send.parcel);
    buffers->sent(buffers->context, token);
}

static void post(struct sends *sends, MPI_Comm on, int peer, int tag, const void *at, uint64_t bytes, struct send send)
{
    if (sends->count == sends->capacity)
        grow(sends);
    MPI_Request request;
    int done = 0;
    communicator_check(sends->comm, MPI_Isend(at, (int)bytes, MPI_BYTE, peer, tag, on, &request), "MPI_Isend");
    communicator_check(sends->comm, MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done) {
        finish(sends, send);
        return;
    }
    sends->requests[sends->count] = request;
    sends->items[sends->count++] = send;
}

void sends_post(struct sends *sends, int peer, enum envelope_kind kind, void *buffer, uint64_t bytes, uint64_t capacity)
{
    if (bytes > INT_MAX)
        sends->comm->buffers.broken(sends->comm->buffers.context, "a message of more than 2 GiB was to be sent");
    post(sends, sends->comm->messages, peer, (int)kind, buffer, bytes,
         (struct send){.buffer = buffer, .capacity = capacity});
}

void sends_post_parts(struct sends *sends, int peer, const struct transport_part *parts, int count, void *token)
{
    const struct transport_buffers *buffers = &sends->comm->buffers;
    struct parcel *parcel = buffers->take(buffers->context, sizeof *parcel);
    struct send send = {.parcel = parcel};
    *parcel = (struct parcel){.token = token, .left = 1 + (unsigned)count}; /* none is the last before all are posted */
    for (int i = 0; i < count; i++)
        post(sends, sends->comm->parts, peer, PART_TAG, parts[i].at, parts[i].bytes, send);
    finish(sends, send);
}

/* Statuses are asked for in portions, so that they fit on the stack of a fault handler. */
void sends_poll(struct sends *sends)
{
    enum { PORTION = 64 };
    MPI_Status statuses[PORTION];
    int indices[PORTION];
    for (unsigned first = 0; first < sends->count; first += PORTION) {
        unsigned portion = sends->count - first;
        if (portion > PORTION)
            portion = PORTION;
        int done = 0;
        int code = MPI_Testsome((int)portion, sends->requests + first, &done, indices, statuses);
        communicator_check_each(sends->comm, code, done == MPI_UNDEFINED ? 0 : done, statuses);
        for (int i = 0; done != MPI_UNDEFINED && i < done; i++) {
            struct send *send = &sends->items[first + (unsigned)indices[i]];
            finish(sends, *send);
            send->done = true;
        }
    }
    unsigned kept = 0;
    for (unsigned i = 0; i < sends->count; i++) {
        if (sends->items[i].done)
            continue;
        sends->items[kept] = sends->items[i];
        sends->requests[kept++] = sends->requests[i];
    }
    sends->count = kept;
}

void sends_close(struct sends *sends)
{
    memory_chunk_free(sends->requests, sends->capacity * sizeof *sends->requests);
    memory_chunk_free(sends->items, sends->capacity * sizeof *sends->items);
}
