/* history - the earlier uses of a page on this node: the ground of all predictions of its next use.
 *
 * A page that this node fetches, or writes again after it was served, gets one, and keeps it until the region is freed.
 *
 * Reading (predict/update.h).  A page belongs to the *update set* when threads here used its last two versions.  A
 * notice of a new version then refetches it without a fault, or uses a push.  Only a fault shows that a page is still
 * used.  So now and then, ever less often, one page of a group is refetched and left inaccessible: a *usage probe*.  A
 * probe that no thread touches before the page is stale again takes its group out of the set.
 *
 *   COLD  -- used twice in a row -->  UPDATE SET  -- probe not used -->  COLD
 *
 * Writing (push.h).  A reader with a small update set subscribes; this node then pushes its writes to the page ahead of
 * the notice (R9).
 *
 * Invariants
 *  1. subscribers[i].since is not above the writes of this node that are there, or in messages under way to there.
 */
#pragma once

#include "protocol/page/page.h"

/* A group: so many neighbouring pages, of which those that are refetched together share a probe. */
enum { HISTORY_UPDATE_USES = 2, HISTORY_GROUP = 64, HISTORY_PUSHES_MAX = 4 };

/* A node that this one pushes its writes to the page to; those up to `since` were sent. */
struct subscriber {
    stamp since;
    node_id node;
    uint32_t unused;
};

/* Diffs that a writer sent ahead: those after `since`; a copy with them has all its writes up to `tag`. */
struct push {
    struct push *next;
    node_id writer;
    uint32_t diffs;
    stamp since, tag;
    struct vector have; /* of the writer, as in a reply */
    struct reader body; /* at the first diff, in the message */
    struct message *message;
};

struct page_history {
    struct push *pushes; /* that came and were not used yet, the oldest first */
    struct subscriber *subscribers;
    uint32_t subscriber_count, subscriber_capacity;
    uint32_t brought; /* versions that came without a fault since it is in the update set */
    uint32_t round;   /* in which it was last refetched: pages of one round are a group */
    uint8_t used;     /* versions in a row that threads here used */
    uint8_t patience; /* inspections of the preopened, unchanged page before it is closed; */
    uint8_t looks;    /* so many found it unchanged so far */
    bool closed;      /* it was closed for that: a later write makes patience grow */
    bool touched;     /* this version was used */
    bool streamed;    /* and came along a stream */
    bool probe;       /* it is here, and inaccessible, to see whether it is used */
    bool current;     /* the copy was up to date, and no notice has come since */
    bool listed;      /* in node->updates, */
    bool fed;         /* since all is used that its writer names (appetite.h) */
    bool refetching;  /* a fetch of the update set is under way */
    bool subscribed;  /* this node asked its writers for pushes */
};

/* The page's history, made if it has none. */
struct page_history *history_of(struct page *page, struct pool *pool);
void history_free(struct page *page, struct pool *pool);
/* A thread here uses this version. */
void history_touch(struct page *page, struct pool *pool);
/* A notice names a new version.  True: the page is in the update set.  An unused probe takes it out. */
bool history_new_version(struct page_history *history);
/* True: this version is one to probe, on one page of a group. */
bool history_probe_due(const struct page_history *history);

void history_free_push(struct push *push, struct pool *pool);
void history_drop_pushes(struct page_history *history, struct pool *pool);
/* A collection: pushes are forgotten; valid copies have everything up to `floor`. */
void history_forget(struct page *page, struct pool *pool, stamp floor);

void history_subscribe(struct page *page, struct pool *pool, node_id node, stamp since);
void history_unsubscribe(struct page *page, node_id node);
/* The node was sent everything up to `tag`. */
void history_sent(struct page *page, node_id node, stamp tag);
