/* signals - SIGINT and SIGUSR1, watched beside the program's own handlers. */
#pragma once

/* Count SIGINT (the handler that was there before, Python's, runs as well), so that a wait inside a fault can tell:
 * where the count has grown since the wait began, the wait ends the job (runtime/faults.h).  signals_unwatch sets
 * the count to 0. */
int signals_watch_interrupt(void);
unsigned signals_interrupts(void);

/* Call `print` (async-signal-safe) on SIGUSR1, and then the handler that was there before, if there was one. */
int signals_watch_usr1(void (*print)(void));

/* Give both back. */
void signals_unwatch(void);
