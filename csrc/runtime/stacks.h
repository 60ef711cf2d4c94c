/* stacks - where in the Python program a thread of this process is, for the watchdog. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STACKS_BYTES = 1024 };

/* "at FILE:LINE in FUNCTION, called at ..." of the thread; false: it cannot be read. */
bool stacks_of(uint32_t thread, char *stack, size_t room);
