/* service - the thread that answers other ranks while all threads of this one compute.
 *
 * States: asleep on the doorbell -> awake, polling until nothing is under way -> asleep.  It does not poll while a
 * thread of the program does.
 */
#pragma once

/* The thread's function; it ends when runtime->stopping is set and the doorbell rings. */
void *service_thread(void *runtime);
