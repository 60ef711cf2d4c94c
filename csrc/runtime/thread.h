/* thread - the calling thread, as the kernel knows it. */
#pragma once

#include <pthread.h>
#include <stdint.h>

/* gettid. */
uint32_t thread_number(void);

/* A condition whose times are those of clock_now_ns. */
void thread_make_condition(pthread_cond_t *condition);

/* Ask the scheduler for short slices (Linux 6.12): a thread that runs briefly and seldom goes before a computation
 * when it wakes. */
void thread_ask_short_slices(void);
