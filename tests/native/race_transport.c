/* transport.h over stream sockets between forked processes.  Like MPI it never blocks: what the kernel does not take now
 * waits in a queue, and moves on when somebody looks for messages.  On the wire a message is its length, that of its parts,
 * its bytes, and its parts.
 * Nothing here allocates with malloc after the start: a send may come from a fault handler. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "race.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "machine/mpi_process.h"
#include "machine/transport.h"

enum { PIECES_MAX = TRANSPORT_PARTS_MAX + 2 };

struct lengths {
    uint64_t bytes, parts;
};

/* Piece 0 is the lengths, 1 the bytes, the rest the parts. */
struct pieces {
    struct transport_part items[PIECES_MAX];
    int count, at;
    uint64_t done; /* of the piece at `at` */
};

struct outgoing {
    struct outgoing *next;
    struct lengths lengths;
    struct pieces pieces;
    void *buffer, *token;
    uint64_t capacity;
};

struct link {
    struct outgoing *first, **last;
    struct lengths lengths; /* of the message that is coming in */
    struct pieces pieces;
    void *token;
};

struct transport {
    struct race_job job;
    struct transport_buffers buffers;
    struct link links[RACE_RANKS_MAX];
    unsigned pending;
    bool quiet;
    int next; /* whose turn it is to be looked at */
};

static void broken(const struct transport *transport, const char *call)
{
    char text[128];
    snprintf(text, sizeof text, "%s failed: %s", call, strerror(errno));
    transport->buffers.broken(transport->buffers.context, text);
}

/* ---- start ------------------------------------------------------------------------------------------------------- */

int transport_open(struct transport **transport, const void *job, const struct transport_buffers *buffers, char *text,
                   int text_capacity)
{
    struct transport *made = calloc(1, sizeof *made);
    if (!made) {
        snprintf(text, (size_t)text_capacity, "no memory");
        return -1;
    }
    made->job = *(const struct race_job *)job;
    made->buffers = *buffers;
    for (int peer = 0; peer < made->job.size; peer++)
        made->links[peer].last = &made->links[peer].first;
    *transport = made;
    return 0;
}

int transport_opened(struct transport *transport, char *text, int text_capacity)
{
    (void)transport;
    (void)text;
    (void)text_capacity;
    return 1;
}

int transport_rank(const struct transport *transport)
{
    return transport->job.rank;
}

int transport_size(const struct transport *transport)
{
    return transport->job.size;
}

/* What the seed of chaos does to messages is tested under MPI; here it takes away protection and starts collections. */
int transport_start_chaos(struct transport *transport, uint64_t seed)
{
    (void)transport, (void)seed;
    return 0;
}

static void meet(const struct transport *transport)
{
    struct race_shared *shared = transport->job.shared;
    unsigned round = atomic_load(&shared->round);
    if (atomic_fetch_add(&shared->arrived, 1) + 1 == (unsigned)transport->job.size) {
        atomic_store(&shared->arrived, 0);
        atomic_fetch_add(&shared->round, 1);
    } else {
        while (atomic_load(&shared->round) == round)
            sched_yield();
    }
}

void transport_gather(struct transport *transport, const void *mine, int bytes, void *all)
{
    struct race_shared *shared = transport->job.shared;
    if (bytes > RACE_SLOT_BYTES)
        broken(transport, "a slot is too small");
    memcpy(shared->slots[transport->job.rank], mine, (size_t)bytes);
    meet(transport);
    for (int peer = 0; peer < transport->job.size; peer++)
        memcpy((unsigned char *)all + peer * bytes, shared->slots[peer], (size_t)bytes);
    meet(transport);
}

void transport_broadcast(struct transport *transport, void *value, int bytes)
{
    unsigned char all[RACE_RANKS_MAX * RACE_SLOT_BYTES];
    transport_gather(transport, value, bytes, all);
    memcpy(value, all, (size_t)bytes);
}

static uint64_t agree(struct transport *transport, uint64_t value, bool max)
{
    uint64_t all[RACE_RANKS_MAX];
    transport_gather(transport, &value, (int)sizeof value, all);
    for (int peer = 0; peer < transport->job.size; peer++)
        if (max ? all[peer] > value : all[peer] < value)
            value = all[peer];
    return value;
}

uint64_t transport_agree_min(struct transport *transport, uint64_t value)
{
    return agree(transport, value, false);
}

uint64_t transport_agree_max(struct transport *transport, uint64_t value)
{
    return agree(transport, value, true);
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

static void add_piece(struct pieces *pieces, void *at, uint64_t bytes)
{
    if (bytes)
        pieces->items[pieces->count++] = (struct transport_part){.at = at, .bytes = bytes};
}

/* As much of the queue as the kernel takes. */
static void push(struct transport *transport, int peer)
{
    struct link *link = &transport->links[peer];
    const struct transport_buffers *buffers = &transport->buffers;
    while (link->first) {
        struct outgoing *out = link->first;
        struct pieces *pieces = &out->pieces;
        struct transport_part *piece = &pieces->items[pieces->at];
        ssize_t sent = send(transport->job.files[peer], (unsigned char *)piece->at + pieces->done,
                            piece->bytes - pieces->done, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (sent < 0)
            broken(transport, "send");
        pieces->done += (uint64_t)sent;
        if (pieces->done < piece->bytes)
            return;
        pieces->done = 0;
        if (++pieces->at < pieces->count)
            continue;
        link->first = out->next;
        if (!link->first)
            link->last = &link->first;
        transport->pending--;
        void *token = out->token;
        buffers->give(buffers->context, out->buffer, out->capacity);
        buffers->give(buffers->context, out, sizeof *out);
        if (token)
            buffers->sent(buffers->context, token);
    }
}

void transport_send_parts(struct transport *transport, int peer, void *buffer, uint64_t bytes, uint64_t capacity,
                          const struct transport_part *parts, int count, void *token)
{
    struct link *link = &transport->links[peer];
    struct outgoing *out = transport->buffers.take(transport->buffers.context, sizeof *out);
    *out = (struct outgoing){.lengths = {.bytes = bytes}, .buffer = buffer, .capacity = capacity, .token = token};
    add_piece(&out->pieces, &out->lengths, sizeof out->lengths);
    add_piece(&out->pieces, buffer, bytes);
    for (int i = 0; i < count; i++) {
        out->lengths.parts += parts[i].bytes;
        add_piece(&out->pieces, parts[i].at, parts[i].bytes);
    }
    *link->last = out;
    link->last = &out->next;
    transport->pending++;
    push(transport, peer);
}

void transport_send(struct transport *transport, int peer, void *buffer, uint64_t bytes, uint64_t capacity)
{
    transport_send_parts(transport, peer, buffer, bytes, capacity, NULL, 0, NULL);
}

/* The lengths are here, or the bytes: where does the rest go? */
static void next_piece(struct transport *transport, int peer)
{
    struct link *link = &transport->links[peer];
    const struct transport_buffers *buffers = &transport->buffers;
    if (link->pieces.at == 1) {
        add_piece(&link->pieces, buffers->take(buffers->context, link->lengths.bytes), link->lengths.bytes);
    } else if (link->pieces.at == 2 && link->lengths.parts) {
        struct transport_part parts[TRANSPORT_PARTS_MAX];
        uint64_t bytes = 0;
        int count =
            buffers->place(buffers->context, peer, link->pieces.items[1].at, link->lengths.bytes, parts, &link->token);
        for (int i = 0; i < count; i++) {
            bytes += parts[i].bytes;
            add_piece(&link->pieces, parts[i].at, parts[i].bytes);
        }
        if (bytes != link->lengths.parts)
            broken(transport, "place");
    }
}

/* True when the message of this peer is complete. */
static bool pull(struct transport *transport, int peer)
{
    struct link *link = &transport->links[peer];
    struct pieces *pieces = &link->pieces;
    if (pieces->count == 0)
        add_piece(pieces, &link->lengths, sizeof link->lengths);
    while (pieces->at < pieces->count) {
        struct transport_part *piece = &pieces->items[pieces->at];
        ssize_t got = recv(transport->job.files[peer], (unsigned char *)piece->at + pieces->done,
                           piece->bytes - pieces->done, MSG_DONTWAIT);
        if (got < 0 && errno != EAGAIN && errno != EINTR)
            broken(transport, "recv");
        if (got > 0)
            pieces->done += (uint64_t)got;
        if (pieces->done < piece->bytes)
            return false;
        pieces->done = 0;
        pieces->at++;
        next_piece(transport, peer);
    }
    return true;
}

int transport_receive(struct transport *transport, void **buffer, uint64_t *bytes, void **token)
{
    for (int k = 0; k < transport->job.size; k++) {
        int peer = transport->next++ % transport->job.size;
        struct link *link = &transport->links[peer];
        if (peer == transport->job.rank)
            continue;
        push(transport, peer);
        if (!pull(transport, peer))
            continue;
        *buffer = link->pieces.items[1].at;
        *bytes = link->lengths.bytes;
        *token = link->token;
        link->token = NULL;
        link->pieces.count = link->pieces.at = 0;
        return peer;
    }
    *token = NULL;
    return -1;
}

unsigned transport_pending(const struct transport *transport)
{
    return transport->pending;
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

bool transport_quiet(struct transport *transport)
{
    struct race_shared *shared = transport->job.shared;
    if (!transport->quiet)
        atomic_fetch_add(&shared->quiet, 1);
    transport->quiet = true;
    return atomic_load(&shared->quiet) == (unsigned)transport->job.size;
}

/* There is no MPI_Finalize here. */
int mpi_process_before_finalize(void (*call)(void))
{
    (void)call;
    return 0;
}

bool mpi_process_world(int *rank, int *size)
{
    (void)rank;
    (void)size;
    return false;
}

void transport_close(struct transport *transport)
{
    struct race_shared *shared = transport->job.shared;
    bool said = false;
    while (!said || atomic_load(&shared->closing) < (unsigned)transport->job.size) {
        void *buffer, *token;
        uint64_t bytes;
        while (transport_receive(transport, &buffer, &bytes, &token) >= 0)
            transport->buffers.give(transport->buffers.context, buffer, bytes);
        if (!said && transport->pending == 0) {
            atomic_fetch_add(&shared->closing, 1);
            said = true;
        }
        sched_yield();
    }
    free(transport);
}

void mpi_process_abort(int status)
{
    _exit(status ? status : 1); /* race_main.c ends the others */
}
