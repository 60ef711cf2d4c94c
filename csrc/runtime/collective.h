/* collective - calls that all ranks make together: each is a meeting of the protocol.
 *
 * States of this rank: in no meeting -> arrived (runtime->meeting) -> departed.  Only the thread that has arrived may
 * wait.
 */
#pragma once

#include <stdint.h>

struct ballot;

/* Arrive (the first time), and wait for the departure.  *result is what the meeting decided; NULL: of no interest. */
int collective_meet(const char *call, const struct ballot *ballot, double slice_s, uint32_t *result);
