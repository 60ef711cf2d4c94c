/* guard - keeps SIGSEGV for dsm: a library may install its own handler, and a thread may block the signal.
 *
 * The guard takes the handler back, unblocks the signal in the calling thread, and warns of other threads that block
 * it.
 */
#pragma once

#include <stdbool.h>

struct runtime;

/* After faults can be served. */
void guard_begin(struct runtime *runtime);
void guard_end(struct runtime *runtime);

/* By a thread of the program, under the mutex: once in a tick of the kernel's clock (1 to 10 ms), which costs 5 ns
 * as a rule.  `stale`: pages may have become stale, so the handler is looked at in any case. */
void guard_look(struct runtime *runtime, bool stale);
/* By the watchdog. */
void guard_look_from_outside(struct runtime *runtime);
