/* mpi_process - this process among those that were started together, and its end. */
#pragma once

#include <stdbool.h>

/* Rank and size in MPI_COMM_WORLD; false where MPI is not initialised, or finalized. */
bool mpi_process_world(int *rank, int *size);

/* Call `call` when the program calls MPI_Finalize, before MPI ends.  0 or -1. */
int mpi_process_before_finalize(void (*call)(void));

/* MPI_Abort of the world, not of the duplicate.  Any thread; does not return.  Of the world MPICH tells the
 * launcher, whose status then is `status`.  Of another communicator it tells only the ranks: these leave on their
 * own, the launcher kills those that are late, and joins the statuses (1 | 9 in one job of a hundred on busy
 * cores). */
void mpi_process_abort(int status) __attribute__((noreturn));
