/* watchdog - the thread that reports waits, guards SIGSEGV and watches the neighbour.
 *
 * It is a thread of its own because the others may be the ones that hang: a fault inside an MPI call that holds MPI's
 * locks stops every thread that calls MPI, the service thread as well.  So it never calls MPI, and only tries the
 * mutex.
 */
#pragma once

/* The thread's function; it ends when runtime->stopping is set. */
void *watchdog_thread(void *runtime);
