/* Why nothing here waits: the caller holds the runtime's mutex, and a peer may need an answer from this rank before
 * MPI can finish anything for us.  A matched message is received with MPI_Imrecv even when it is small, since what an
 * MPI sends at once differs (4 KiB and more) and the rest needs the sender's help.
 *
 * Why MPI_Improbe: message sizes are not known beforehand, several threads may receive, and a posted receive of the
 * largest size would pin memory.  Persistent receives were measured no faster.
 *
 * Order: MPI matches messages of one sender in their order, but a large one may end after a small one behind it.
 * Receives under way are kept in the order of matching, and one is handed out only when no older one of its source is
 * left.
 *
 * Parts are received into place by MPI_Irecv, posted in the order of their messages; a message whose parts are under way
 * waits in the list of arrivals, and so do those of the same source that come after it.
 *
 * Why parts are copied directly on one host: MPI sends what is long in several steps, in each of which both sides have to
 * look for messages, and copies it twice.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "transport.h"

#include "board.h"
#include "chaos.h"
#include "memory.h"
#include "mpi_known.h"

#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Only chaos sends pieces that are not the last of their message. */
enum { TAG = 0, TAG_MORE = 1, TAG_PARTS = 2, TAG_COPY = 3, RECEIVES_MAX = 64, LIST_FIRST = 256, READ_MS = 1000 };

/* A message whose parts are under way. */
struct parcel {
    void *token;
    unsigned left; /* sends that are not done */
};

struct sent {
    void *buffer; /* NULL: a part */
    uint64_t capacity;
    struct parcel *parcel; /* of a part */
    bool done;
};

/* Parts that lie ready to be copied by the peer: those of its `number`-th such message. */
struct offer {
    int peer;
    uint64_t number;
    void *token;
};

struct received {
    void *buffer;
    uint64_t bytes;
    int source;
    int tag; /* TAG_MORE: a piece that is not the last of its message; TAG_PARTS: parts follow, TAG_COPY:
                                 * they are to be copied */
    bool complete;
};

/* A message that is here, and waits for its parts or for those of an older one of its source. */
struct arrival {
    struct arrival *next;
    struct received received;
    void *token;
    int count, here; /* parts; how many of them are complete */
    uint64_t got;    /* of the next part (chaos cuts them) */
    MPI_Request requests[TRANSPORT_PARTS_MAX];
    struct transport_part parts[TRANSPORT_PARTS_MAX];
};

/* Invariants
 *  1. sends[i] belongs to send_requests[i], receives[i] to receive_requests[i]; a request that is complete is NULL.
 *  2. under_way[source] counts the receives of that source.
 */
struct transport {
    MPI_Comm comm, parts_comm;
    MPI_Request step; /* at the start: all ranks ask for the duplicate; at the end: all ranks are quiet */
    bool quiet;       /* this rank has said that it is */
    int rank, size;
    struct transport_buffers buffers;
    struct chaos *chaos; /* NULL in production */
    struct board *board; /* or NULL */

    unsigned offers_count, offers_capacity;
    struct offer *offers;
    uint64_t *offered; /* to each peer, so far */
    uint64_t copied;   /* bytes, and not told yet */

    unsigned sends_count, sends_capacity;
    MPI_Request *send_requests;
    struct sent *sends;

    unsigned receives_count;
    MPI_Request receive_requests[RECEIVES_MAX];
    struct received receives[RECEIVES_MAX];
    unsigned *under_way;

    unsigned arrivals_count;
    struct arrival *arrivals, **arrivals_end;
    unsigned *waiting; /* arrivals of each source */
};

/* ---- errors ---------------------------------------------------------------------------------------------------- */

static void describe(int code, const char *call, char *text, int text_capacity)
{
    char reason[MPI_MAX_ERROR_STRING] = "unknown error";
    int length;
    MPI_Error_string(code, reason, &length);
    snprintf(text, (size_t)text_capacity, "%s failed: %s", call, reason);
}

static void check(const struct transport *transport, int code, const char *call)
{
    if (code == MPI_SUCCESS)
        return;
    char text[MPI_MAX_ERROR_STRING + 64];
    describe(code, call, text, (int)sizeof text);
    transport->buffers.broken(transport->buffers.context, text);
}

/* MPI_Testsome tells of single requests in their statuses. */
static void check_some(const struct transport *transport, int code, int count, const MPI_Status *statuses)
{
    if (code == MPI_SUCCESS)
        return;
    int class = MPI_SUCCESS;
    MPI_Error_class(code, &class);
    for (int i = 0; class == MPI_ERR_IN_STATUS && i < count; i++)
        if (statuses[i].MPI_ERROR != MPI_ERR_PENDING)
            check(transport, statuses[i].MPI_ERROR, "completion of a message");
    check(transport, code, "MPI_Testsome");
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

static void *grown(const struct transport *transport, void *old, size_t old_bytes, size_t new_bytes)
{
    void *new = memory_chunk(new_bytes);
    if (!new)
        transport->buffers.broken(transport->buffers.context, "no memory for the list of messages under way");
    if (old)
        memcpy(new, old, old_bytes);
    memory_chunk_free(old, old_bytes);
    return new;
}

/* Not realloc: a send may come from a fault handler. */
static void sends_grow(struct transport *transport)
{
    size_t old = transport->sends_capacity, new = old ? 2 * old : LIST_FIRST;
    transport->send_requests = grown(transport, transport->send_requests, old * sizeof *transport->send_requests,
                                     new * sizeof *transport->send_requests);
    transport->sends =
        grown(transport, transport->sends, old * sizeof *transport->sends, new * sizeof *transport->sends);
    transport->sends_capacity = (unsigned)new;
}

/* MPI is done with it. */
static void finish(struct transport *transport, struct sent sent)
{
    const struct transport_buffers *buffers = &transport->buffers;
    if (sent.buffer)
        buffers->give(buffers->context, sent.buffer, sent.capacity);
    if (!sent.parcel || --sent.parcel->left > 0)
        return;
    void *token = sent.parcel->token;
    buffers->give(buffers->context, sent.parcel, sizeof *sent.parcel);
    buffers->sent(buffers->context, token);
}

/* Statuses are asked for in portions, so that they fit on the stack of a fault handler. */
static void sends_poll(struct transport *transport)
{
    enum { PORTION = 64 };
    MPI_Status statuses[PORTION];
    int indices[PORTION];
    for (unsigned first = 0; first < transport->sends_count; first += PORTION) {
        unsigned portion = transport->sends_count - first;
        if (portion > PORTION)
            portion = PORTION;
        int done = 0;
        int code = MPI_Testsome((int)portion, transport->send_requests + first, &done, indices, statuses);
        check_some(transport, code, done == MPI_UNDEFINED ? 0 : done, statuses);
        for (int i = 0; done != MPI_UNDEFINED && i < done; i++) {
            struct sent *sent = &transport->sends[first + (unsigned)indices[i]];
            finish(transport, *sent);
            sent->done = true;
        }
    }
    unsigned kept = 0;
    for (unsigned i = 0; i < transport->sends_count; i++) {
        if (transport->sends[i].done)
            continue;
        transport->sends[kept] = transport->sends[i];
        transport->send_requests[kept++] = transport->send_requests[i];
    }
    transport->sends_count = kept;
}

static void post(struct transport *transport, int peer, int tag, const struct transport_part *part, struct sent sent)
{
    if (transport->sends_count == transport->sends_capacity)
        sends_grow(transport);
    MPI_Request request;
    MPI_Comm comm = sent.parcel ? transport->parts_comm : transport->comm;
    int done = 0;
    check(transport, MPI_Isend(part->at, (int)part->bytes, MPI_BYTE, peer, tag, comm, &request), "MPI_Isend");
    check(transport, MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (done) {
        finish(transport, sent);
        return;
    }
    transport->send_requests[transport->sends_count] = request;
    transport->sends[transport->sends_count++] = sent;
}

static void post_pieces(struct transport *transport, int peer, int tag, const void *buffer, uint64_t bytes)
{
    const unsigned char *from = buffer;
    uint64_t piece;
    do {
        piece = chaos_piece(transport->chaos, bytes);
        void *copy = transport->buffers.take(transport->buffers.context, piece);
        memcpy(copy, from, piece);
        post(transport, peer, piece < bytes ? TAG_MORE : tag, &(struct transport_part){.at = copy, .bytes = piece},
             (struct sent){.buffer = copy, .capacity = piece});
        from += piece;
        bytes -= piece;
    } while (bytes > 0);
}

static void send_bytes(struct transport *transport, int peer, int tag, void *buffer, uint64_t bytes, uint64_t capacity)
{
    if (bytes > INT_MAX)
        transport->buffers.broken(transport->buffers.context, "a message of more than 2 GiB was to be sent");
    if (!transport->chaos) {
        post(transport, peer, tag, &(struct transport_part){.at = buffer, .bytes = bytes},
             (struct sent){.buffer = buffer, .capacity = capacity});
        return;
    }
    post_pieces(transport, peer, tag, buffer, bytes);
    transport->buffers.give(transport->buffers.context, buffer, capacity);
}

void transport_send(struct transport *transport, int peer, void *buffer, uint64_t bytes, uint64_t capacity)
{
    send_bytes(transport, peer, TAG, buffer, bytes, capacity);
}

static void offer(struct transport *transport, int peer, void *token)
{
    if (transport->offers_count == transport->offers_capacity) {
        size_t old = transport->offers_capacity, new = old ? 2 * old : LIST_FIRST;
        transport->offers =
            grown(transport, transport->offers, old * sizeof *transport->offers, new * sizeof *transport->offers);
        transport->offers_capacity = (unsigned)new;
    }
    transport->offers[transport->offers_count++] =
        (struct offer){.peer = peer, .number = ++transport->offered[peer], .token = token};
}

static void offers_poll(struct transport *transport)
{
    const struct transport_buffers *buffers = &transport->buffers;
    unsigned kept = 0;
    for (unsigned i = 0; i < transport->offers_count; i++) {
        struct offer offer = transport->offers[i];
        if (board_taken(transport->board, offer.peer) < offer.number)
            transport->offers[kept++] = offer;
        else
            buffers->sent(buffers->context, offer.token);
    }
    transport->offers_count = kept;
}

void transport_copy_by(struct transport *transport, struct board *board)
{
    transport->board = board;
}

void transport_send_parts(struct transport *transport, int peer, void *buffer, uint64_t bytes, uint64_t capacity,
                          const struct transport_part *parts, int count, void *token)
{
    if (transport->board && board_copied_by(transport->board, peer)) {
        offer(transport, peer, token);
        send_bytes(transport, peer, TAG_COPY, buffer, bytes, capacity);
        return;
    }
    struct parcel *parcel = transport->buffers.take(transport->buffers.context, sizeof *parcel);
    struct sent sent = {.parcel = parcel};
    *parcel = (struct parcel){.token = token, .left = 1}; /* until all have been posted */
    send_bytes(transport, peer, TAG_PARTS, buffer, bytes, capacity);
    for (int i = 0; i < count; i++) {
        struct transport_part left = parts[i];
        while (left.bytes > 0) {
            uint64_t piece = transport->chaos ? chaos_piece(transport->chaos, left.bytes) : left.bytes;
            parcel->left++;
            post(transport, peer, TAG, &(struct transport_part){.at = left.at, .bytes = piece}, sent);
            left.at = (unsigned char *)left.at + piece;
            left.bytes -= piece;
        }
    }
    finish(transport, sent);
}

unsigned transport_pending(const struct transport *transport)
{
    return transport->sends_count + transport->arrivals_count + (transport->chaos ? chaos_kept(transport->chaos) : 0);
}

/* ---- receiving ------------------------------------------------------------------------------------------------- */

static void receives_poll(struct transport *transport)
{
    MPI_Status statuses[RECEIVES_MAX];
    int indices[RECEIVES_MAX], done = 0;
    int code = MPI_Testsome((int)transport->receives_count, transport->receive_requests, &done, indices, statuses);
    check_some(transport, code, done == MPI_UNDEFINED ? 0 : done, statuses);
    for (int i = 0; done != MPI_UNDEFINED && i < done; i++)
        transport->receives[indices[i]].complete = true;
}

static void receives_remove(struct transport *transport, unsigned place)
{
    unsigned behind = transport->receives_count - place - 1;
    transport->under_way[transport->receives[place].source]--;
    memmove(transport->receives + place, transport->receives + place + 1, behind * sizeof transport->receives[0]);
    memmove(transport->receive_requests + place, transport->receive_requests + place + 1,
            behind * sizeof transport->receive_requests[0]);
    transport->receives_count--;
}

static bool oldest_of_its_source(const struct transport *transport, unsigned place)
{
    int source = transport->receives[place].source;
    if (transport->under_way[source] == 1)
        return true;
    for (unsigned i = 0; i < place; i++)
        if (transport->receives[i].source == source)
            return false;
    return true;
}

static bool receives_take(struct transport *transport, struct received *received)
{
    for (unsigned i = 0; i < transport->receives_count; i++) {
        *received = transport->receives[i];
        if (!received->complete || !oldest_of_its_source(transport, i))
            continue;
        receives_remove(transport, i);
        return true;
    }
    return false;
}

/* Match the next message there is; *found tells whether there was one.  True: it can be handed out at once. */
static bool receive_matched(struct transport *transport, bool *found, struct received *received)
{
    MPI_Message message;
    MPI_Status status;
    int flag = 0, count = 0, done = 0;
    check(transport, MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, transport->comm, &flag, &message, &status),
          "MPI_Improbe");
    *found = flag != 0;
    if (!flag)
        return false;
    check(transport, MPI_Get_count(&status, MPI_BYTE, &count), "MPI_Get_count");
    if (count == MPI_UNDEFINED || count < 0)
        transport->buffers.broken(transport->buffers.context, "a message of more than 2 GiB has arrived");
    *received = (struct received){.bytes = (uint64_t)count, .source = status.MPI_SOURCE, .tag = status.MPI_TAG};
    received->buffer = transport->buffers.take(transport->buffers.context, received->bytes);
    MPI_Request request;
    check(transport, MPI_Imrecv(received->buffer, count, MPI_BYTE, &message, &request), "MPI_Imrecv");
    check(transport, MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    received->complete = done != 0;
    if (done && transport->under_way[received->source] == 0)
        return true;
    transport->receive_requests[transport->receives_count] = request;
    transport->receives[transport->receives_count++] = *received;
    transport->under_way[received->source]++;
    return false;
}

static bool receive(struct transport *transport, struct received *received)
{
    if (transport->receives_count > 0) {
        receives_poll(transport);
        if (receives_take(transport, received))
            return true;
    }
    bool found = true;
    while (found && transport->receives_count < RECEIVES_MAX)
        if (receive_matched(transport, &found, received))
            return true;
    return false;
}

/* The next message, its parts apart. */
static bool next_message(struct transport *transport, struct received *received)
{
    bool any = receive(transport, received);
    if (!transport->chaos)
        return any;
    for (; any; any = receive(transport, received))
        chaos_keep(transport->chaos, received->source, received->buffer, received->bytes, received->tag == TAG_MORE,
                   received->tag);
    *received = (struct received){0};
    received->source = chaos_take(transport->chaos, &received->buffer, &received->bytes, &received->tag);
    return received->source >= 0;
}

/* ---- parts ----------------------------------------------------------------------------------------------------- */

static void post_part(struct transport *transport, struct arrival *arrival, int i)
{
    struct transport_part part = arrival->parts[i];
    check(transport,
          MPI_Irecv((unsigned char *)part.at + arrival->got, (int)(part.bytes - arrival->got), MPI_BYTE,
                    arrival->received.source, TAG, transport->parts_comm, &arrival->requests[i]),
          "MPI_Irecv");
}

static void arrivals_add(struct transport *transport, const struct received *received)
{
    const struct transport_buffers *buffers = &transport->buffers;
    struct arrival *arrival = buffers->take(buffers->context, sizeof *arrival);
    arrival->next = NULL;
    arrival->received = *received;
    arrival->token = NULL;
    arrival->count = arrival->here = 0;
    arrival->got = 0;
    if (received->tag != TAG)
        arrival->count = buffers->place(buffers->context, received->source, received->buffer, received->bytes,
                                        arrival->parts, &arrival->token);
    for (int i = 0; i < arrival->count; i++) {
        arrival->requests[i] = MPI_REQUEST_NULL;
        if (!transport->chaos && received->tag == TAG_PARTS)
            post_part(transport, arrival, i);
    }
    if (!transport->arrivals)
        transport->arrivals_end = &transport->arrivals;
    *transport->arrivals_end = arrival;
    transport->arrivals_end = &arrival->next;
    transport->arrivals_count++;
    transport->waiting[received->source]++;
}

static uint64_t part_bytes(const struct transport *transport, const MPI_Status *status)
{
    int count = 0;
    check(transport, MPI_Get_count(status, MPI_BYTE, &count), "MPI_Get_count");
    return count == MPI_UNDEFINED || count < 0 ? 0 : (uint64_t)count;
}

/* Pieces of unknown lengths, one receive at a time, and now and then. */
static void poll_pieces(struct transport *transport, struct arrival *arrival)
{
    MPI_Request *request = &arrival->requests[arrival->here];
    MPI_Status status;
    int done = 0;
    if (*request == MPI_REQUEST_NULL) {
        if (chaos_waits(transport->chaos))
            return;
        post_part(transport, arrival, arrival->here);
    }
    check(transport, MPI_Test(request, &done, &status), "MPI_Test");
    if (!done)
        return;
    arrival->got += part_bytes(transport, &status);
    if (arrival->got < arrival->parts[arrival->here].bytes)
        return;
    arrival->got = 0;
    arrival->here++;
}

static void poll_arrival(struct transport *transport, struct arrival *arrival)
{
    MPI_Status statuses[TRANSPORT_PARTS_MAX];
    int all = 0;
    int code = MPI_Testall(arrival->count, arrival->requests, &all, statuses);
    check_some(transport, code, code == MPI_SUCCESS ? 0 : arrival->count, statuses);
    for (int i = 0; all && i < arrival->count; i++)
        if (part_bytes(transport, &statuses[i]) != arrival->parts[i].bytes)
            transport->buffers.broken(transport->buffers.context, "what follows a message is shorter than it says");
    if (all)
        arrival->here = arrival->count;
}

static void copy_part(struct transport *transport, int source, const struct transport_part *part)
{
    if (part->offset == TRANSPORT_NOWHERE)
        return;
    int error = board_copy(transport->board, source, part->offset, part->at, part->bytes);
    if (error) {
        char text[128];
        snprintf(text, sizeof text, "reading the memory of rank %d failed: %s", source, strerror(-error));
        transport->buffers.broken(transport->buffers.context, text);
    }
    transport->copied += part->bytes;
}

/* Of the oldest message of its source: only how many have been copied is told. */
static void copy_parts(struct transport *transport, struct arrival *arrival)
{
    for (; arrival->here < arrival->count; arrival->here++)
        copy_part(transport, arrival->received.source, &arrival->parts[arrival->here]);
    board_took(transport->board, arrival->received.source);
}

/* Look whether the parts have come, or fetch them. */
static void look_for_parts(struct transport *transport, struct arrival *arrival, bool oldest)
{
    if (arrival->received.tag == TAG_COPY) {
        if (oldest && !(transport->chaos && chaos_waits(transport->chaos)))
            copy_parts(transport, arrival);
    } else if (!transport->chaos)
        poll_arrival(transport, arrival);
    else if (oldest)
        poll_pieces(transport, arrival);
}

/* The first one that is complete and the oldest of its source. */
static bool arrivals_take(struct transport *transport, struct received *received, void **token)
{
    unsigned blocked = 0; /* of different sources; only then can one overtake another */
    for (struct arrival **link = &transport->arrivals; *link; link = &(*link)->next) {
        struct arrival *arrival = *link;
        bool oldest = true;
        for (const struct arrival *older = transport->arrivals; blocked && older != arrival; older = older->next)
            oldest = oldest && older->received.source != arrival->received.source;
        if (arrival->here < arrival->count)
            look_for_parts(transport, arrival, oldest);
        if (arrival->here < arrival->count || !oldest) {
            blocked++;
            continue;
        }
        *received = arrival->received;
        *token = arrival->token;
        *link = arrival->next;
        if (!arrival->next)
            transport->arrivals_end = link;
        transport->arrivals_count--;
        transport->waiting[received->source]--;
        transport->buffers.give(transport->buffers.context, arrival, sizeof *arrival);
        return true;
    }
    return false;
}

uint64_t transport_copied(struct transport *transport)
{
    uint64_t copied = transport->copied;
    transport->copied = 0;
    return copied;
}

int transport_receive(struct transport *transport, void **buffer, uint64_t *bytes, void **token)
{
    struct received received;
    *token = NULL;
    if (transport->sends_count > 0)
        sends_poll(transport);
    if (transport->offers_count > 0)
        offers_poll(transport);
    bool found = transport->arrivals && arrivals_take(transport, &received, token);
    while (!found && next_message(transport, &received)) {
        found = received.tag == TAG && transport->waiting[received.source] == 0;
        if (!found) {
            arrivals_add(transport, &received);
            found = arrivals_take(transport, &received, token);
        }
    }
    if (!found)
        return -1;
    *buffer = received.buffer;
    *bytes = received.bytes;
    return received.source;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

static const char *thread_level_name(int level)
{
    switch (level) {
    case MPI_THREAD_SINGLE: return "MPI_THREAD_SINGLE";
    case MPI_THREAD_FUNNELED: return "MPI_THREAD_FUNNELED";
    case MPI_THREAD_SERIALIZED: return "MPI_THREAD_SERIALIZED";
    default: return "an unknown level";
    }
}

/* The level is compared on the duplicate, so that all ranks refuse together where one of them must. */
static int check_thread_level(const struct transport *transport, char *text, int text_capacity)
{
    int mine = MPI_THREAD_SINGLE;
    int code = MPI_Query_thread(&mine);
    int in[2] = {mine < MPI_THREAD_MULTIPLE, code != MPI_SUCCESS}, out[2] = {0, 0};
    int reduced = MPI_Allreduce(in, out, 2, MPI_INT, MPI_MAX, transport->comm);
    if (reduced != MPI_SUCCESS || out[1]) {
        describe(reduced != MPI_SUCCESS ? reduced : code, "asking for MPI's thread level", text, text_capacity);
        return -1;
    }
    if (!out[0])
        return 0;
    if (!in[0]) {
        snprintf(text, (size_t)text_capacity, "another rank was started without MPI_THREAD_MULTIPLE");
        return -1;
    }
    snprintf(text, (size_t)text_capacity,
             "dsm needs MPI_THREAD_MULTIPLE, but MPI was initialised with %s. In Python leave mpi4py.rc.thread_level "
             "at \"multiple\" (its default) and do not set MPI4PY_RC_THREAD_LEVEL; in C call MPI_Init_thread with "
             "MPI_THREAD_MULTIPLE in place of MPI_Init. If that is what the program asked for, its MPI was built "
             "without threads: use another build",
             thread_level_name(mine));
    return -1;
}

/* Ask for the duplicate, without waiting for the ranks that ask later. */
static int begin_duplicate(struct transport *transport, MPI_Comm comm, char *text, int text_capacity)
{
    int inter = 0;
    if (comm == MPI_COMM_NULL) {
        snprintf(text, (size_t)text_capacity, "the communicator is MPI_COMM_NULL on this rank");
        return -1;
    }
    int code = MPI_Comm_test_inter(comm, &inter);
    if (code == MPI_SUCCESS && inter) {
        snprintf(text, (size_t)text_capacity, "dsm needs an intracommunicator; merge this intercommunicator first");
        return -1;
    }
    if (code == MPI_SUCCESS)
        code = MPI_Comm_rank(comm, &transport->rank);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_size(comm, &transport->size);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_idup(comm, &transport->comm, &transport->step);
    if (code == MPI_SUCCESS)
        return 0;
    describe(code, "duplicating the communicator", text, text_capacity);
    return -1;
}

/* All ranks are there: what follows does not wait long. */
static int end_duplicate(struct transport *transport, char *text, int text_capacity)
{
    int code = MPI_Comm_set_errhandler(transport->comm, MPI_ERRORS_RETURN);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_dup(transport->comm, &transport->parts_comm);
    if (code == MPI_SUCCESS)
        return check_thread_level(transport, text, text_capacity);
    describe(code, "duplicating the communicator", text, text_capacity);
    return -1;
}

static void transport_delete(struct transport *transport)
{
    if (transport->parts_comm != MPI_COMM_NULL)
        MPI_Comm_free(&transport->parts_comm);
    if (transport->comm != MPI_COMM_NULL)
        MPI_Comm_free(&transport->comm);
    memory_chunk_free(transport->send_requests, transport->sends_capacity * sizeof *transport->send_requests);
    memory_chunk_free(transport->sends, transport->sends_capacity * sizeof *transport->sends);
    memory_chunk_free(transport->offers, transport->offers_capacity * sizeof *transport->offers);
    free(transport->offered);
    chaos_close(transport->chaos);
    free(transport->under_way);
    free(transport->waiting);
    free(transport);
}

int transport_open(struct transport **transport, const void *mpi_comm, const struct transport_buffers *buffers,
                   char *text, int text_capacity)
{
    *transport = NULL;
    int initialized = 0, finalized = 0;
    if (MPI_Initialized(&initialized) != MPI_SUCCESS || MPI_Finalized(&finalized) != MPI_SUCCESS || !initialized ||
        finalized) {
        snprintf(text, (size_t)text_capacity, "MPI is %s", finalized ? "finalized already" : "not initialised");
        return -1;
    }
    struct transport *made = calloc(1, sizeof *made);
    if (!made) {
        snprintf(text, (size_t)text_capacity, "no memory");
        return -1;
    }
    made->comm = made->parts_comm = MPI_COMM_NULL;
    made->step = MPI_REQUEST_NULL;
    made->buffers = *buffers;
    if (begin_duplicate(made, *(const MPI_Comm *)mpi_comm, text, text_capacity) != 0) {
        transport_delete(made);
        return -1;
    }
    *transport = made;
    return 0;
}

int transport_opened(struct transport *transport, char *text, int text_capacity)
{
    int done = 0;
    int code = MPI_Test(&transport->step, &done, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) {
        describe(code, "duplicating the communicator", text, text_capacity);
        transport->comm = MPI_COMM_NULL;
        done = -1;
    } else if (done && end_duplicate(transport, text, text_capacity) != 0) {
        done = -1;
    }
    if (done == 1) {
        transport->under_way = calloc((size_t)transport->size, sizeof *transport->under_way);
        transport->waiting = calloc((size_t)transport->size, sizeof *transport->waiting);
        transport->offered = calloc((size_t)transport->size, sizeof *transport->offered);
        if (!transport->under_way || !transport->waiting || !transport->offered) {
            snprintf(text, (size_t)text_capacity, "no memory");
            done = -1;
        }
    }
    if (done < 0)
        transport_delete(transport);
    return done;
}

int transport_disturb(struct transport *transport, uint64_t seed)
{
    transport->chaos = chaos_open(seed, transport->rank, transport->size, &transport->buffers);
    return transport->chaos ? 0 : -1;
}

int transport_rank(const struct transport *transport)
{
    return transport->rank;
}

int transport_size(const struct transport *transport)
{
    return transport->size;
}

bool transport_quiet(struct transport *transport)
{
    int quiet = 0;
    if (!transport->quiet)
        check(transport, MPI_Ibarrier(transport->comm, &transport->step), "MPI_Ibarrier");
    transport->quiet = true;
    check(transport, MPI_Test(&transport->step, &quiet, MPI_STATUS_IGNORE), "MPI_Test");
    return quiet;
}

/* A send that the receiver has not matched ends only when it is received, so everybody goes on receiving, for nothing,
 * until all ranks have said that their sends are done (a barrier that does not wait). */
void transport_close(struct transport *transport)
{
    MPI_Request barrier = MPI_REQUEST_NULL;
    bool begun = false;
    int met = 0, left = 1;
    while (!met || left) {
        void *buffer, *token;
        uint64_t bytes;
        left = transport_receive(transport, &buffer, &bytes, &token) >= 0;
        if (left)
            transport->buffers.give(transport->buffers.context, buffer, bytes);
        if (!begun && transport->sends_count == 0 && transport->offers_count == 0) {
            check(transport, MPI_Ibarrier(transport->comm, &barrier), "MPI_Ibarrier");
            begun = true;
        }
        if (begun && !met)
            check(transport, MPI_Test(&barrier, &met, MPI_STATUS_IGNORE), "MPI_Test");
        left = left || transport->receives_count > 0 || transport_pending(transport) > 0;
    }
    transport_delete(transport);
}

/* ---- collectives ----------------------------------------------------------------------------------------------- */

static uint64_t agree(struct transport *transport, uint64_t value, MPI_Op operation)
{
    uint64_t agreed = value;
    check(transport, MPI_Allreduce(&value, &agreed, 1, MPI_UINT64_T, operation, transport->comm), "MPI_Allreduce");
    return agreed;
}

uint64_t transport_agree_min(struct transport *transport, uint64_t value)
{
    return agree(transport, value, MPI_MIN);
}

uint64_t transport_agree_max(struct transport *transport, uint64_t value)
{
    return agree(transport, value, MPI_MAX);
}

void transport_gather(struct transport *transport, const void *mine, int bytes, void *all)
{
    check(transport, MPI_Allgather(mine, bytes, MPI_BYTE, all, bytes, MPI_BYTE, transport->comm), "MPI_Allgather");
}

void transport_broadcast(struct transport *transport, void *value, int bytes)
{
    check(transport, MPI_Bcast(value, bytes, MPI_BYTE, 0, transport->comm), "MPI_Bcast");
}

/* MPICH's launcher ends when it is told of MPI_Abort, and with it what it has not read from a rank's pipe.  What it has
 * read it passes on before the news of the abort.  Not for ever: nobody may be reading. */
static void wait_until_read(int file)
{
    struct stat kind;
    int unread = 0;
    if (fstat(file, &kind) != 0 || !S_ISFIFO(kind.st_mode))
        return;
    for (int ms = 0; ms < READ_MS && ioctl(file, FIONREAD, &unread) == 0 && unread > 0; ms++)
        poll(NULL, 0, 1);
}

static void (*before_finalize)(void);

static int at_finalize(MPI_Comm comm, int key, void *attribute, void *unused)
{
    (void)comm;
    (void)attribute;
    (void)unused;
    MPI_Comm_free_keyval(&key);
    before_finalize();
    return MPI_SUCCESS;
}

/* MPI_Finalize deletes the attributes of MPI_COMM_SELF before anything else (MPI 4.0, 11.2.4). */
int transport_before_finalize(void (*call)(void))
{
    int key;
    before_finalize = call;
    int code = MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, at_finalize, &key, NULL);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_set_attr(MPI_COMM_SELF, key, NULL);
    return code == MPI_SUCCESS ? 0 : -1;
}

bool transport_world(int *rank, int *size)
{
    int initialized = 0, finalized = 0;
    return MPI_Initialized(&initialized) == MPI_SUCCESS && MPI_Finalized(&finalized) == MPI_SUCCESS && initialized &&
           !finalized && MPI_Comm_rank(MPI_COMM_WORLD, rank) == MPI_SUCCESS &&
           MPI_Comm_size(MPI_COMM_WORLD, size) == MPI_SUCCESS;
}

void transport_abort(int status)
{
    int rank, size;
    wait_until_read(STDOUT_FILENO);
    wait_until_read(STDERR_FILENO);
    if (transport_world(&rank, &size))
        MPI_Abort(MPI_COMM_WORLD, status);
    _exit(status ? status : 1);
}
