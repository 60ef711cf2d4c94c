/* death - how one thread ends all ranks, with one message.
 *
 * The first thread that calls death_end_all prints its text and aborts the job; other processes of its node, which
 * may die of the same, leave it the time for that.  Every other thread of the process
 * that dies meanwhile stands aside: MPI_Abort destroys MPI while the service thread uses it, and the signal of that
 * crash would hide the status.
 */
#pragma once

#include <stdbool.h>

struct runtime;

/* Print the text with this rank (and the protocol's last events), and end all ranks with the status.  Any thread;
 * `runtime` is NULL before dsm_init. */
void death_end_all(const struct runtime *runtime, const char *text, int status, bool events) __attribute__((noreturn));

/* Leave the last word to the thread that ends all ranks already. */
void death_stand_aside(const struct runtime *runtime) __attribute__((noreturn));
