/* trail - why a lock is not given: its holder, the lock that the holder waits for itself, who holds that one, and so
 * on.
 *
 * A node knows the holders of its own, and what they wait for.  Of a lock that is held elsewhere it knows what it was
 * told: a node that keeps a lock for long tells its trail (HELD) to the node that waits behind it.  That one passes it
 * on to who waits behind itself; and where a holder of its own waits for this lock, it tells those who wait for that
 * holder (edge chasing: Chandy, Misra, Haas 1983).  So who waits in a circle learns of all of it.  A lock that is on
 * the trail already is not told of again, and a trail that is full is not passed on, so telling ends.
 *
 * Nothing depends on it: it is for words, sent when the runtime says so (trail_tell), and may be out of date.
 */
#pragma once

#include "protocol/sync/lock.h"

/* The trail of a lock; empty where nobody here knows who holds it. */
void trail_follow(const struct node *node, const struct lock *lock, struct trail *trail);
/* Does the last holder wait for a lock that is on the trail? */
bool trail_is_circle(const struct trail *trail);
/* From time to time: tell of locks that have been held since the last time, and forget what is old. */
void trail_tell(struct node *node);

void trail_receive_held(struct node *node, const struct message *message);
