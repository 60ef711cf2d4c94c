/* Why MPI_Improbe: message sizes are not known beforehand, several threads may receive, and a posted receive of the
 * largest size would pin memory.  Persistent receives were measured no faster.  A matched message is received with
 * MPI_Imrecv even when it is small: what an MPI sends at once differs (4 KiB and more), and the rest needs the
 * sender's help.
 *
 * Why the order of matching is kept: MPI matches the messages of one sender in their order, but a large one may be
 * complete after a small one behind it. */
#include "receives.h"

#include <stdlib.h>
#include <string.h>

int receives_open(struct receives *receives, const struct communicator *comm)
{
    receives->comm = comm;
    receives->under_way = calloc((size_t)comm->size, sizeof *receives->under_way);
    return receives->under_way ? 0 : -1;
}

void receives_close(struct receives *receives)
{
    free(receives->under_way);
}

static void see_complete(struct receives *receives)
{
    MPI_Status statuses[RECEIVES_MAX];
    int indices[RECEIVES_MAX], done = 0;
    int code = MPI_Testsome((int)receives->count, receives->requests, &done, indices, statuses);
    communicator_check_each(receives->comm, code, done == MPI_UNDEFINED ? 0 : done, statuses);
    for (int i = 0; done != MPI_UNDEFINED && i < done; i++)
        receives->items[indices[i]].complete = true;
}

static void take_out(struct receives *receives, unsigned place)
{
    unsigned behind = receives->count - place - 1;
    receives->under_way[receives->items[place].source]--;
    memmove(receives->items + place, receives->items + place + 1, behind * sizeof receives->items[0]);
    memmove(receives->requests + place, receives->requests + place + 1, behind * sizeof receives->requests[0]);
    receives->count--;
}

static bool is_oldest(const struct receives *receives, unsigned place)
{
    int source = receives->items[place].source;
    if (receives->under_way[source] == 1)
        return true;
    for (unsigned i = 0; i < place; i++)
        if (receives->items[i].source == source)
            return false;
    return true;
}

static bool take_complete(struct receives *receives, struct envelope *envelope)
{
    for (unsigned i = 0; i < receives->count; i++) {
        *envelope = receives->items[i];
        if (!envelope->complete || !is_oldest(receives, i))
            continue;
        take_out(receives, i);
        return true;
    }
    return false;
}

/* Match the next message there is; *found tells whether there was one.  True: it can be handed out at once. */
static bool match(struct receives *receives, bool *found, struct envelope *envelope)
{
    const struct communicator *comm = receives->comm;
    MPI_Message message;
    MPI_Status status;
    int flag = 0, count = 0, done = 0;
    communicator_check(comm, MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm->messages, &flag, &message, &status),
                       "MPI_Improbe");
    *found = flag != 0;
    if (!flag)
        return false;
    communicator_check(comm, MPI_Get_count(&status, MPI_BYTE, &count), "MPI_Get_count");
    if (count == MPI_UNDEFINED || count < 0)
        comm->buffers.broken(comm->buffers.context, "a message of more than 2 GiB has arrived");
    *envelope = (struct envelope){.bytes = (uint64_t)count, .source = status.MPI_SOURCE, .kind = status.MPI_TAG};
    envelope->buffer = comm->buffers.take(comm->buffers.context, envelope->bytes);
    MPI_Request request;
    communicator_check(comm, MPI_Imrecv(envelope->buffer, count, MPI_BYTE, &message, &request), "MPI_Imrecv");
    communicator_check(comm, MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    envelope->complete = done != 0;
    if (done && receives->under_way[envelope->source] == 0)
        return true;
    receives->requests[receives->count] = request;
    receives->items[receives->count++] = *envelope;
    receives->under_way[envelope->source]++;
    return false;
}

bool receives_next(struct receives *receives, struct envelope *envelope)
{
    if (receives->count > 0) {
        see_complete(receives);
        if (take_complete(receives, envelope))
            return true;
    }
    bool found = true;
    while (found && receives->count < RECEIVES_MAX)
        if (match(receives, &found, envelope))
            return true;
    return false;
}
