/* transport.h over stream sockets between forked processes.  Like MPI it never blocks: what the kernel does not take now
 * waits in a queue, and moves on when somebody looks for messages.  On the wire a message is its length and its bytes.
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
#include <sys/uio.h>
#include <unistd.h>

#include "machine/transport.h"

struct outgoing {
    struct outgoing *next;
    void *buffer;
    uint64_t bytes, capacity, gone; /* of the length and the bytes */
};

struct link {
    struct outgoing *first, **last;
    uint64_t bytes, got;            /* of the message that is coming in; of its length and its bytes */
    unsigned char *buffer;
};

struct transport {
    struct race_job job;
    struct transport_buffers buffers;
    struct link links[RACE_RANKS_MAX];
    unsigned pending;
    int next;                       /* whose turn it is to be looked at */
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

int transport_rank(const struct transport *transport)
{
    return transport->job.rank;
}

int transport_size(const struct transport *transport)
{
    return transport->job.size;
}

/* What the seed of chaos does to messages is tested under MPI; here it takes away protection and starts collections. */
int transport_disturb(struct transport *transport, uint64_t seed)
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

/* As much of the queue as the kernel takes. */
static void push(struct transport *transport, int peer)
{
    struct link *link = &transport->links[peer];
    while (link->first) {
        struct outgoing *out = link->first;
        uint64_t head = out->gone < sizeof out->bytes ? sizeof out->bytes - out->gone : 0;
        uint64_t body = out->gone < sizeof out->bytes ? 0 : out->gone - sizeof out->bytes;
        struct iovec parts[] = {{.iov_base = (unsigned char *)&out->bytes + sizeof out->bytes - head, .iov_len = head},
                                {.iov_base = (unsigned char *)out->buffer + body, .iov_len = out->bytes - body}};
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        ssize_t sent = sendmsg(transport->job.files[peer], &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (sent < 0)
            broken(transport, "sendmsg");
        out->gone += (uint64_t)sent;
        if (out->gone < sizeof out->bytes + out->bytes)
            return;
        link->first = out->next;
        if (!link->first)
            link->last = &link->first;
        transport->pending--;
        transport->buffers.give(transport->buffers.context, out->buffer, out->capacity);
        transport->buffers.give(transport->buffers.context, out, sizeof *out);
    }
}

void transport_send(struct transport *transport, int peer, void *buffer, uint64_t bytes, uint64_t capacity)
{
    struct link *link = &transport->links[peer];
    struct outgoing *out = transport->buffers.take(transport->buffers.context, sizeof *out);
    *out = (struct outgoing){.buffer = buffer, .bytes = bytes, .capacity = capacity};
    *link->last = out;
    link->last = &out->next;
    transport->pending++;
    push(transport, peer);
}

static bool take_in(struct transport *transport, int peer, void *to, uint64_t bytes)
{
    struct link *link = &transport->links[peer];
    ssize_t got = bytes ? recv(transport->job.files[peer], to, bytes, MSG_DONTWAIT) : 0;
    if (got > 0)
        link->got += (uint64_t)got;
    else if (got < 0 && errno != EAGAIN && errno != EINTR)
        broken(transport, "recv");
    return got == (ssize_t)bytes;
}

/* True when the message of this peer is complete. */
static bool pull(struct transport *transport, int peer)
{
    struct link *link = &transport->links[peer];
    if (link->got < sizeof link->bytes &&
        !take_in(transport, peer, (unsigned char *)&link->bytes + link->got, sizeof link->bytes - link->got))
        return false;
    if (!link->buffer)
        link->buffer = transport->buffers.take(transport->buffers.context, link->bytes);
    uint64_t at = link->got - sizeof link->bytes;
    return take_in(transport, peer, link->buffer + at, link->bytes - at);
}

int transport_receive(struct transport *transport, void **buffer, uint64_t *bytes)
{
    for (int k = 0; k < transport->job.size; k++) {
        int peer = transport->next++ % transport->job.size;
        struct link *link = &transport->links[peer];
        if (peer == transport->job.rank)
            continue;
        push(transport, peer);
        if (!pull(transport, peer))
            continue;
        *buffer = link->buffer;
        *bytes = link->bytes;
        link->buffer = NULL;
        link->got = 0;
        return peer;
    }
    return -1;
}

unsigned transport_pending(const struct transport *transport)
{
    return transport->pending;
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

void transport_close(struct transport *transport)
{
    struct race_shared *shared = transport->job.shared;
    bool said = false;
    while (!said || atomic_load(&shared->closing) < (unsigned)transport->job.size) {
        void *buffer;
        uint64_t bytes;
        while (transport_receive(transport, &buffer, &bytes) >= 0)
            transport->buffers.give(transport->buffers.context, buffer, bytes);
        if (!said && transport->pending == 0) {
            atomic_fetch_add(&shared->closing, 1);
            said = true;
        }
        sched_yield();
    }
    free(transport);
}

void transport_abort(struct transport *transport, int status)
{
    (void)transport;
    _exit(status ? status : 1);     /* race_main.c ends the others */
}
