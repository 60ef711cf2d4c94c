/* inquiry - what ranks report to each other for their watchdogs: which rank is absent from a meeting, which thread
 * holds a lock.
 *
 * Only the reports of the watchdog depend on it.  At most one message goes out in a quarter of the time that it takes
 * for a wait to be reported.
 */
#pragma once

struct runtime;
struct wait;

/* By a thread that waits in a meeting: ask for the absent ranks.  Under the process' mutex. */
void inquiry_ask_for_absent(struct runtime *runtime, struct wait *wait);
/* By the service thread: report the holders of the locks of this rank to the threads that wait for them.  Under the
 * mutex. */
void inquiry_report_locks(struct runtime *runtime);
