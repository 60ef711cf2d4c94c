/* faults - how a thread waits for pages, in a fault or in a call; and the words for faults that are not served.
 *
 * A fault (serve_fault): the handler of machine/fault.h tells read from write, enters the runtime, and asks
 * access_fault again after each wake until the access is allowed; then the instruction is tried again.  A thread in a
 * fault cannot return to Python: Ctrl-C ends the whole job after a second.
 */
#pragma once

#include "runtime/progress.h"

/* From here on accesses to the range are served, and signals that end this process are explained.  0, or an error
 * with its text. */
int faults_begin(struct runtime *runtime);

/* Of a node that is alone: open the blocks that lie there. */
void faults_open_alone(struct runtime *runtime, uint64_t offset, uint64_t end, bool write);
/* The page at `offset` is to be accessible. */
struct question faults_question(uint64_t offset, bool write);
/* Wait for pages: a fault has no caller that could look at its signals in between.  False when dsm ends.  Under the
 * mutex. */
bool faults_await(struct runtime *runtime, struct question *question);
/* So long a thread has waited for the page at `offset`.  Under the mutex. */
void faults_count_wait(struct runtime *runtime, uint64_t offset, uint64_t waited_ns);
/* After an acquire: pinned pages must show what was acquired without a fault (README, pinned).  Pages of the update
 * set come before the thread goes on: ranks that request each other's answer each other at once, and no fault is
 * left.  Under the mutex. */
void faults_catch_up(struct runtime *runtime);
