/* report - one line for what threads of this rank wait for, and why it takes so long, as far as this rank knows. */
#pragma once

#include <stdint.h>

struct runtime;

/* Of the waits that are longer, and were not reported so recently.  Without the mutex, which is only tried: a
 * thread inside MPI may hold it for ever. */
void report_waits(struct runtime *runtime, int64_t longer_than_ns, int64_t again_after_ns);
