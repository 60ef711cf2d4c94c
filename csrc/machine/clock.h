/* clock - the one time that dsm measures with: nanoseconds of CLOCK_MONOTONIC. */
#pragma once

#include <stdint.h>

int64_t clock_now_ns(void);
