/* history - what a page was used for before, on this node: the ground of all guesses about what will be wanted next.
 *
 * Made for pages that are fetched from or by somebody, and kept until the region is freed.
 *
 * Reading (ahead.c).  A page is *wanted* when threads here used its last two versions; then it is brought as soon as a
 * new version is known of, with no fault: from a push that came along, or by a fetch.  Whether it is still used cannot
 * be seen without a fault, so now and then (ever more rarely) a page of a group is brought and left inaccessible: a
 * *sample*. A sample that nobody touches before it is stale again ends the guess for its group.
 *
 *   COLD  -- used twice in a row -->  WANTED  -- sample not used -->  COLD
 *
 * Writing (push.c).  A reader who wants few enough bytes subscribes, and what this node writes to the page is pushed to
 * it ahead of the notice (R9).
 *
 * Invariants
 *  1. subscribers[i].since is not above what that node has of this node's writes, or will have when the messages that
 *     are under way to it have arrived.
 */
#pragma once

#include "protocol/page/page.h"

/* A group: so many neighbouring pages, of which those that are brought together share a sample. */
enum { HISTORY_UPDATE_USES = 2, HISTORY_GROUP = 64, HISTORY_PUSHES_MAX = 4, HISTORY_REWRITTEN = 2 };

/* A node that is sent what this one writes to the page; everything up to `since` it was sent. */
struct subscriber {
    stamp since;
    node_id node;
    uint32_t unused;
};

/* What a writer sent ahead: its diffs after `since`, with which a copy has all that it wrote up to `tag`. */
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
    uint32_t brought;  /* versions that came without a fault since it is wanted */
    uint32_t round;    /* in which it was last brought: pages of one round are a group */
    uint8_t used;      /* versions in a row that threads here used */
    uint8_t patience;  /* looks at the page, opened early and unchanged, before it is closed; */
    uint8_t looks;     /* so many were in vain so far */
    bool closed;       /* it was closed so: if it is written after all, patience grows */
    uint8_t rewritten; /* how often in a row it was written again after it had been closed to be served */
    bool touched;      /* this version was used */
    bool streamed;     /* and came along a stream */
    bool probe;        /* it is here, and inaccessible, to see whether it is used */
    bool current;      /* the copy was up to date, and no notice has come since */
    bool listed;       /* in node->updates */
    bool refetching;   /* a fetch of the update set is under way */
    bool encoded;      /* its writes were encoded to be pushed when the interval has closed */
    bool subscribed;   /* this node asked its writers for pushes */
};

/* The page is stale, will be refetched, and may be read meanwhile: every acquire and every barrier of this node
 * waits for update_done before it returns, so no thread that may read it has a right to the new version yet. */
bool history_coming(const struct page *page);

/* The page's history, made if it has none. */
struct page_history *history_of(struct page *page, struct pool *pool);
void history_free(struct page *page, struct pool *pool);
/* A thread here uses this version. */
void history_touch(struct page *page, struct pool *pool);
/* A new version is known of: is it wanted?  Ends a guess that a sample found wrong. */
bool history_new_version(struct page_history *history);
/* Is the version that is brought now one to look at, on one page of a group? */
bool history_probe_due(const struct page_history *history);

void history_drop_pushes(struct page_history *history, struct pool *pool);
/* A collection: what was pushed is forgotten, and the copies that are valid have everything up to `floor`. */
void history_forget(struct page *page, struct pool *pool, stamp floor);

void history_subscribe(struct page *page, struct pool *pool, node_id node, stamp since);
void history_unsubscribe(struct page *page, node_id node);
/* The node was sent everything up to `tag`. */
void history_sent(struct page *page, node_id node, stamp tag);
