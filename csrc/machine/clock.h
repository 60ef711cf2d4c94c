/* clock - the one time that dsm measures with: nanoseconds of CLOCK_MONOTONIC. */
#ifndef MACHINE_CLOCK_H
#define MACHINE_CLOCK_H

#include <stdint.h>

int64_t clock_now_ns(void);

#endif
