/* report - one line for what threads of this rank wait for, and why it takes so long, as far as this rank knows. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct runtime;

/* Of the waits that are longer, and were not reported so recently.  Without the mutex, which is only tried: a
 * thread inside MPI may hold it for ever. */
void report_waits(struct runtime *runtime, int64_t longer_than_ns, int64_t again_after_ns);

/* A line for `dsm run --progress`: the rank, the size, its faults, bytes of protocol memory and of data, for how many
 * milliseconds its first thread that waits has done so, and for what; a blank between them.  Returns its bytes. */
size_t report_progress(struct runtime *runtime, char *text, size_t room);
