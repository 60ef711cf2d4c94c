/* Why the first duplicate is made by MPI_Comm_idup: ranks call dsm.init() at different times, and the caller looks
 * at its signals while it waits for the last one. */
#include "communicator.h"

#include <stdio.h>

/* ---- errors ---------------------------------------------------------------------------------------------------- */

static void describe(int code, const char *call, char *text, int text_capacity)
{
    char reason[MPI_MAX_ERROR_STRING] = "unknown error";
    int length;
    MPI_Error_string(code, reason, &length);
    snprintf(text, (size_t)text_capacity, "%s failed: %s", call, reason);
}

void communicator_check(const struct communicator *comm, int code, const char *call)
{
    if (code == MPI_SUCCESS)
        return;
    char text[MPI_MAX_ERROR_STRING + 64];
    describe(code, call, text, (int)sizeof text);
    comm->buffers.broken(comm->buffers.context, text);
}

void communicator_check_each(const struct communicator *comm, int code, int count, const MPI_Status *statuses)
{
    if (code == MPI_SUCCESS)
        return;
    int class = MPI_SUCCESS;
    MPI_Error_class(code, &class);
    for (int i = 0; class == MPI_ERR_IN_STATUS && i < count; i++)
        if (statuses[i].MPI_ERROR != MPI_ERR_PENDING)
            communicator_check(comm, statuses[i].MPI_ERROR, "completion of a message");
    communicator_check(comm, code, "a test for completion");
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
static int check_thread_level(const struct communicator *comm, char *text, int text_capacity)
{
    int mine = MPI_THREAD_SINGLE;
    int code = MPI_Query_thread(&mine);
    int in[2] = {mine < MPI_THREAD_MULTIPLE, code != MPI_SUCCESS}, out[2] = {0, 0};
    int reduced = MPI_Allreduce(in, out, 2, MPI_INT, MPI_MAX, comm->messages);
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

int communicator_ask(struct communicator *comm, const void *mpi_comm, char *text, int text_capacity)
{
    int initialized = 0, finalized = 0, inter = 0;
    MPI_Comm theirs = *(const MPI_Comm *)mpi_comm;
    comm->messages = comm->parts = MPI_COMM_NULL;
    comm->step = MPI_REQUEST_NULL;
    if (MPI_Initialized(&initialized) != MPI_SUCCESS || MPI_Finalized(&finalized) != MPI_SUCCESS || !initialized ||
        finalized) {
        snprintf(text, (size_t)text_capacity, "MPI is %s", finalized ? "finalized already" : "not initialised");
        return -1;
    }
    if (theirs == MPI_COMM_NULL) {
        snprintf(text, (size_t)text_capacity, "the communicator is MPI_COMM_NULL on this rank");
        return -1;
    }
    int code = MPI_Comm_test_inter(theirs, &inter);
    if (code == MPI_SUCCESS && inter) {
        snprintf(text, (size_t)text_capacity, "dsm needs an intracommunicator; merge this intercommunicator first");
        return -1;
    }
    if (code == MPI_SUCCESS)
        code = MPI_Comm_rank(theirs, &comm->rank);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_size(theirs, &comm->size);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_idup(theirs, &comm->messages, &comm->step);
    if (code == MPI_SUCCESS)
        return 0;
    describe(code, "duplicating the communicator", text, text_capacity);
    return -1;
}

int communicator_ready(struct communicator *comm, char *text, int text_capacity)
{
    int done = 0;
    int code = MPI_Test(&comm->step, &done, MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS)
        comm->messages = MPI_COMM_NULL;
    else if (!done)
        return 0;
    /* All ranks are there: the rest does not wait long. */
    if (code == MPI_SUCCESS)
        code = MPI_Comm_set_errhandler(comm->messages, MPI_ERRORS_RETURN);
    if (code == MPI_SUCCESS)
        code = MPI_Comm_dup(comm->messages, &comm->parts);
    if (code == MPI_SUCCESS)
        return check_thread_level(comm, text, text_capacity) == 0 ? 1 : -1;
    describe(code, "duplicating the communicator", text, text_capacity);
    return -1;
}

void communicator_free(struct communicator *comm)
{
    if (comm->parts != MPI_COMM_NULL)
        MPI_Comm_free(&comm->parts);
    if (comm->messages != MPI_COMM_NULL)
        MPI_Comm_free(&comm->messages);
}

/* ---- collectives ----------------------------------------------------------------------------------------------- */

bool communicator_meet(struct communicator *comm)
{
    int met = 0;
    if (!comm->meeting)
        communicator_check(comm, MPI_Ibarrier(comm->messages, &comm->step), "MPI_Ibarrier");
    communicator_check(comm, MPI_Test(&comm->step, &met, MPI_STATUS_IGNORE), "MPI_Test");
    comm->meeting = !met;
    return met;
}

static uint64_t reduce(const struct communicator *comm, uint64_t value, MPI_Op operation)
{
    uint64_t reduced = value;
    communicator_check(comm, MPI_Allreduce(&value, &reduced, 1, MPI_UINT64_T, operation, comm->messages),
                       "MPI_Allreduce");
    return reduced;
}

uint64_t communicator_min(const struct communicator *comm, uint64_t value)
{
    return reduce(comm, value, MPI_MIN);
}

uint64_t communicator_max(const struct communicator *comm, uint64_t value)
{
    return reduce(comm, value, MPI_MAX);
}

void communicator_gather(const struct communicator *comm, const void *mine, int bytes, void *all)
{
    communicator_check(comm, MPI_Allgather(mine, bytes, MPI_BYTE, all, bytes, MPI_BYTE, comm->messages),
                       "MPI_Allgather");
}

void communicator_broadcast(const struct communicator *comm, void *value, int bytes)
{
    communicator_check(comm, MPI_Bcast(value, bytes, MPI_BYTE, 0, comm->messages), "MPI_Bcast");
}
