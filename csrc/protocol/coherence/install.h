/* install - fetched bytes become the copy: diffs are gathered, then applied in order; a whole page replaces the old
 * one.
 *
 * Rules R2, R3 and R6 of DESIGN.md:
 *   diffs        gathered from all writers first, then applied in the order of their tags, to the page and to its twin.
 *                A diff may hold writes of an interval that is still open, made on top of diffs of which no notice has
 *                come; the writer's `have` names those, and they are fetched as well before any is applied
 *   whole page   installed only if its sender has all that the copy here has; this node's own sealed writes go on top,
 *                and only the bytes in which the result differs from the twin are changed (H4)
 */
#pragma once

#include "protocol/page/page.h"

/* A diff that waits to be applied; its body lies in the message. */
struct fetch_part {
    stamp tag;
    node_id node;
    uint32_t unused;
    const unsigned char *body;
    uint64_t bytes;
    struct message *message;
};

/* A fetch under way (fetch.h), and the diffs that it has gathered. */
struct fetch {
    struct fetch *next, **link; /* list of the node */
    struct page *page;
    struct vector have; /* the contents of the copy when the gathered diffs are applied */
    struct fetch_part *parts;
    uint32_t part_count, part_capacity;
    uint32_t awaited; /* replies of this round */
    node_id peer;     /* one of those asked, for the watchdog */
    stamp asked;      /* not above the stamp of its last request, and above that of any earlier one */
    bool gathering;   /* this round asked for diffs (parts and `have` are in use) */
    bool diffs_only;  /* a whole page did not fit */
    bool speculative; /* no thread has asked for it yet */
    bool subscribes;  /* its next versions are to be pushed */
    bool postponed;   /* until the page has left (bulk.h) */
};

/* Diffs of one writer up to `tag`, and the `have` that they were made on top of (R3); the reader
 * stands at their number.  Diffs that the fetch has already are skipped. */
void install_take_diffs(struct node *node, struct fetch *fetch, struct message *message, struct reader *reader,
                        stamp tag, const struct vector *theirs);
/* All that was missing is here: apply it (R2). */
void install_diffs(struct node *node, struct fetch *fetch);
/* False: it does not fit, since it lacks something that the copy here has (R6). */
bool install_whole(struct node *node, struct page *page, const unsigned char *bytes, const struct vector *have);
/* Forget the gathered diffs. */
void install_drop_parts(struct node *node, struct fetch *fetch);
