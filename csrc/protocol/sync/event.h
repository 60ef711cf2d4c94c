/* event - a thread sets a flag (sync/flag.h), or waits until it is set: the messages.
 *
 * A thread that finds the flag cleared makes its node ask the flag's home (its number modulo the size):
 *
 *   waiter -- AWAIT --> home              the home keeps the request until the flag is set,
 *   setter -- SET ----> home              knows only who has set it, and takes no notices;
 *             home -- AWAIT --> setter    so it passes the request on,
 *                     setter -- PUBLISH --> waiter    and the setter answers with its notices.
 *
 * A node that was answered is a subscriber of the setter: it is published every flag that the setter sets, at once.  So
 * a hand-over that repeats is one message.  A subscriber that uses none of so many in a row unsubscribes.
 *
 * A PUBLISH that was not asked for holds the intervals that the one before to this subscriber did not.  These are
 * numbered, and one that overtook another is deferred.  All go to one process of the subscriber, the first that asked:
 * so what one of its processes waits for is not held up by what another one has not looked at.  An answer goes to the
 * process that asked, is not numbered, and holds all that the vector of the request lacks.
 *
 * A waiter whose last waits ended by unasked sets does not ask at once: the hand-over then is that one message.
 *
 * A wait ends at any set later than the last clear that was known when it began, even if the flag was cleared since.
 */
#pragma once

#include "protocol/sync/flag.h"

/* False: a collection lets no new notice out; ask again. */
bool event_set(struct node *node, struct flag *flag);
bool event_clear(struct node *node, struct flag *flag);
/* Was it set later than the clear `after`?  If not, and the thread wants to ask, the node asks its home. */
bool event_poll(struct node *node, struct flag *flag, stamp after, bool ask);
/* The last waits here ended by sets that came unasked.  So may the next one: a thread should wait for a moment before
 * it asks, since the question would wake a setter that still computes. */
bool event_expects(const struct node *node);

void event_receive_await(struct node *node, struct message *message);
void event_receive_set(struct node *node, const struct message *message);
void event_receive_unsubscribe(struct node *node, const struct message *message);
/* A PUBLISH (node/grant.c): one that was not asked for came before the one that it follows. */
bool event_overtook(struct node *node, const struct message *message, uint64_t number);
/* What it tells the home: passed over, and taken in when its notices have been. */
void event_skip_told(struct node *node, const struct message *message, struct reader *reader);
void event_take_told(struct node *node, const struct message *message, struct reader reader, bool unasked);
void event_count_unasked(struct node *node, const struct message *message, uint64_t number);
