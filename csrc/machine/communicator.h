/* communicator - two duplicates of the user's communicator, and what all ranks do on them together.
 *
 * No message of the user's can match a receive of dsm, and no part can match the receive of an envelope: envelopes
 * travel on `messages`, parts on `parts`.
 *
 * States: asked (the ranks that ask later have not been waited for) -> ready -> freed.
 */
#pragma once

#include "envelope.h"
#include "mpi_known.h"

struct communicator {
    MPI_Comm messages, parts;
    MPI_Request step; /* while `messages` is made; then the barrier of communicator_meet */
    bool meeting;     /* this rank has come to that barrier */
    int rank, size;
    struct transport_buffers buffers; /* `broken` hears of every error of MPI */
};

/* Ask for the duplicate of the communicator that mpi_comm points to.  Does not wait for other ranks.  0, or -1 with
 * `text`. */
int communicator_ask(struct communicator *comm, const void *mpi_comm, char *text, int text_capacity);
/* 1: all ranks have asked, and the communicators can be used; 0: not yet; -1 with `text`. */
int communicator_ready(struct communicator *comm, char *text, int text_capacity);
void communicator_free(struct communicator *comm);

/* Report an error of this call, if there is one. */
void communicator_check(const struct communicator *comm, int code, const char *call);
/* The same for MPI_Testsome and MPI_Testall, whose `count` statuses hold the errors of single requests. */
void communicator_check_each(const struct communicator *comm, int code, int count, const MPI_Status *statuses);

/* A barrier that does not wait: true once all ranks have called it.  Called again and again until then. */
bool communicator_meet(struct communicator *comm);

/* Collectives that wait, for the start and the end of a job. */
uint64_t communicator_min(const struct communicator *comm, uint64_t value);
uint64_t communicator_max(const struct communicator *comm, uint64_t value);
void communicator_gather(const struct communicator *comm, const void *mine, int bytes, void *all);
void communicator_broadcast(const struct communicator *comm, void *value, int bytes);
