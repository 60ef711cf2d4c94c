/* neighbour - the next rank of this host, watched as a file that becomes readable when its process ends.
 *
 * A rank that is killed cannot report it, and the message of mpiexec names no rank.
 */
#pragma once

struct runtime;

/* Collective. */
void neighbour_choose(struct runtime *runtime);
/* Sleep for a while, or until the neighbour ends.  One that ends without a farewell ends all ranks. */
void neighbour_watch(struct runtime *runtime, int wait_ms);
