/* trail - why a lock is not given: its holder, the lock that the holder itself waits for, the holder of that one, and
 * so on.
 *
 * A node knows the holders of its own, and their waits.  Of a lock that is held elsewhere it knows the reports: a node
 * that keeps a lock for long reports its trail (HELD) to the node that waits behind it.  That node passes it on to the
 * next one behind itself; and where a holder of its own waits for this lock, it reports to the nodes that wait for that
 * holder (edge chasing: Chandy, Misra, Haas 1983).  So every node of a circle learns of all of it.  A lock that is on
 * the trail already is not reported again, and a full trail is not passed on, so reports end.
 *
 * Nothing depends on a trail: it is for messages to people, sent at trail_tell, and may be out of date.
 */
#pragma once

#include "protocol/sync/lock.h"

/* The trail of a lock; empty where its holder is not known here. */
void trail_follow(const struct node *node, const struct lock *lock, struct trail *trail);
/* Does the last holder wait for a lock that is on the trail? */
bool trail_is_circle(const struct trail *trail);
/* From time to time: report locks that have been held since the last time, and forget old reports. */
void trail_tell(struct node *node);

void trail_receive_held(struct node *node, const struct message *message);
