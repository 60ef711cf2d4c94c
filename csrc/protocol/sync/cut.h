/* cut - a departure is a consistent cut (R7): every node chooses the owners of what was written from the same list of
 * intervals, and forgets the intervals.
 *
 * A node that has not departed yet does not know them.  So a message that builds on them says how many cuts its sender
 * has passed, and a receiver that has passed fewer defers it (node/grant.h).
 */
#pragma once

#include "protocol/base/context.h"

/* The reader stands at the intervals of the departure, which have been applied already.  `teaches`: it is one of
 * threads (sync/habit.h). */
void cut_pass(struct node *node, const struct message *message, struct reader reader, bool teaches);
