/* thread - the calling thread, as the kernel knows it. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* gettid. */
uint32_t thread_number(void);

/* A condition whose times are those of clock_now_ns. */
void thread_make_condition(pthread_cond_t *condition);

/* Before the next look at something that another thread may change: give the core to a thread that is ready to run, or
 * only pause. */
void thread_relax(bool yield);

/* Ask the scheduler for short slices (Linux 6.12): a thread that runs briefly and seldom goes before a computation
 * when it wakes. */
void thread_ask_short_slices(void);
