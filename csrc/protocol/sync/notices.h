/* notices - write notices on their way: the intervals that a node knows, sends to others, and applies to its pages.
 *
 *   known     := vector                                   a node's latest interval of every node, above the last cut
 *   intervals := uint32 count, (interval | alike)*        interval: page/interval.h; in a meeting by ascending nodes
 *   alike     := uint32 first node, uint32 NOTICES_ALIKE + list * 2^30 + nodes, uint64 stamp, int16 (nodes - 1)*
 *
 * `alike` stands for an interval each of nodes of successive numbers, whose runs are those of their lists of that
 * number (sync/habit.h).  The stamp is that of the first one; the others' differ from it by the numbers that follow.
 *
 * A notice raises the page's `need`; a copy that lacks it is stale from then on.  No space loses access here: each
 * follows the changes (coherence/changes.h).
 */
#pragma once

#include "protocol/base/context.h"
#include "protocol/page/interval.h"

#define NOTICES_ALIKE ((uint32_t)1 << 31)

/* The intervals of a message, one after the other. */
struct notice_walk {
    const struct message *message;
    struct reader reader;
    uint32_t entries; /* left */
    uint32_t alike;   /* intervals of the present entry that are left, */
    uint32_t which;   /* the list that they are like, */
    stamp base;       /* and the stamp that theirs are written against */
    node_id node;     /* of the present interval */
    uint32_t run_count;
    stamp stamp;
    const void *runs; /* at any alignment */
};

/* The reader stands at their count. */
struct notice_walk notices_begin(const struct message *message, struct reader reader);
/* False: that was the last one.  Dies where it is none. */
bool notices_next(struct node *node, struct notice_walk *walk);

/* Put this node's vector, as entries above the last cut. */
void notices_put_known(struct node *node, struct message *message);
/* Put the intervals above the vector's entries, and above the last cut. */
void notices_put(struct node *node, struct message *message, const struct vector *known);
/* Put all above the last cut, for a meeting.  `threads`: of threads, where all nodes know the same lists. */
void notices_put_all(struct node *node, struct message *message, bool threads);
/* Put the intervals of several messages of a meeting, each once.  The readers stand at their counts. */
void notices_merge(struct node *node, struct message *to, struct message *const *from, const struct reader *readers,
                   uint32_t froms, bool threads);
/* Take in write notices: the acquire side of every synchronisation. */
void notices_apply(struct node *node, const struct message *message, struct reader *reader);
