/* fault - turns SIGSEGV inside a range of addresses into a call, and leaves every other one as it was.
 *
 * The server runs on the stack of the thread that touched the page, where MPI has the room that it has elsewhere.  All
 * else runs on the alternate stack of the thread, if it has one, so that a stack overflow ends in its traceback.
 *
 * States of the process: nothing installed -> installed (fault_install) -> removed.  In between a thief may hold
 * SIGSEGV (fault_stolen), until fault_retake.
 *
 * Invariants
 *  1. A signal whose address lies outside the range, or that was sent by kill(), goes to the handler that was there
 *     before, with the same arguments; where there was none, the process dies of it as it would have without dsm.
 *     A line about it is printed when the process is about to die of it, and not when a handler mends it.
 *  2. errno is the same after a served fault as before.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 1: served, retry the access; 0: not ours after all, go to the former handler.  Runs in the signal handler.
 * `by_mpi`: the access is made inside of an MPI call (code.h). */
typedef int fault_server(void *context, uint64_t offset, bool write, bool by_mpi);

/* One range per process.  `write` comes from the signal context (trap.h).  The calling thread, and those that it
 * makes from then on, do not block SIGSEGV and SIGBUS any more.  0 or -errno. */
int fault_install(void *range, uint64_t bytes, fault_server *server, void *context);
void fault_remove(void);

/* More memory that lies in files: SIGBUS there, too, means that the machine's memory is exhausted, and is explained in
 * one line before it goes to the former handler. */
void fault_explain_memory(const void *at, uint64_t bytes);

enum fault_death {
    FAULT_CRASH, /* value: the address, outside of the range */
    FAULT_SENT,  /* by kill() or raise(); value: the process that sent it */
    FAULT_FORKED /* in a child of fork(), which has no range; value: the offset */
};

/* Call `explain` (async-signal-safe) on the first SIGSEGV that the process is about to die of. */
void fault_explain_death(void (*explain)(enum fault_death how, uintptr_t value));

/* True: other code (faulthandler.enable()) has taken SIGSEGV since. */
bool fault_stolen(void);
/* Take it back; the thief becomes the handler that was there before.  One thread at a time. */
void fault_retake(void);
/* The file of the code that took it last, or "SIG_DFL" or "SIG_IGN". */
const char *fault_thief(void);
