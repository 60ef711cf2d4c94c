/* call - how a call of dsm.h enters the runtime and leaves it.
 *
 * A call checks its arguments before anything is sent.  Then it acts on the node, and waits with a question
 * (progress.h) until that is answered, or its slice is over.
 */
#pragma once

#include "runtime/progress.h"

/* progress_enter, progress_enter_own and progress_lock for a call of the program; NULL, with the error set, when dsm is
 * not active. */
struct runtime *call_enter(const char *call);
struct runtime *call_enter_own(const char *call);
struct runtime *call_lock(const char *call);
/* The same for a call that makes a thing: not while a thread is in a meeting, which compares what was made. */
struct runtime *call_lock_to_make(const char *call);
/* The code for a wait that was given up: DSM_AGAIN, or an error because dsm has ended meanwhile. */
int call_not_yet(const char *call);
