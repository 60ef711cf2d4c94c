/* notices - write notices on their way: the intervals that a node knows, sends to others, and applies to its pages.
 *
 *   known     := vector                                   a node's latest interval of every node, above the last cut
 *   intervals := uint32 count, interval* (page/interval.h)
 *
 * A notice raises the page's `need`; a copy that lacks it is stale from then on.  No space loses access here: each
 * follows the changes (coherence/changes.h).
 */
#pragma once

#include "protocol/base/context.h"
#include "protocol/page/interval.h"

/* The bytes of the next interval of a message, and its head.  Dies where they are not one. */
const void *notices_next(struct node *node, const struct message *message, struct reader *reader,
                         struct interval *head);

/* Put this node's vector, as entries above the last cut. */
void notices_put_known(struct node *node, struct message *message);
/* Put the intervals above the vector's entries, and above the last cut. */
void notices_put(struct node *node, struct message *message, const struct vector *known);
/* Put the intervals of several messages, each once.  The readers stand at their counts. */
void notices_merge(struct node *node, struct message *to, struct message *const *from, const struct reader *readers,
                   uint32_t froms);
/* Take in write notices: the acquire side of every synchronisation. */
void notices_apply(struct node *node, const struct message *message, struct reader *reader);
