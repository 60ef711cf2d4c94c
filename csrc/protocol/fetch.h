/* fetch - brings one page up to date: the whole page from its latest writer, or diffs from all writers.
 *
 *   fetch_start -> a round of requests -> replies -> valid? -> end
 *                        ^                              |
 *                        +------------- no -------------+
 *
 * Rounds (rules R2, R3 and R6 of DESIGN.md):
 *   whole page   installed only if the sender has all that the copy here has; this node's own writes go back on top
 *   diffs        gathered from all writers first.  A diff may hold writes of an interval that is still open, made on top
 *                of diffs that this node was never told of; the writer's `have` names those, and they are fetched as well.
 *                When nothing is missing, all are applied in the order of their tags, to the page and to its twin
 *
 * A request is answered at once, from the state before whatever this node is fetching itself.
 *
 *   FETCH := uint64 cuts that the reader has passed, want*              REPLY := run*
 *   want  := uint32 region, uint32 flags, uint64 page, uint64 since, [vector have, if FETCH_WHOLE_OK]
 *   run   := uint32 region, uint32 flags, uint64 first page, uint64 pages, uint64 bytes that follow, uint64 bytes behind the
 *            wire, FETCH_WHOLE ? (vector have)*, [page bytes, unless FETCH_BULK]
 *                              : uint64 tag, vector have, uint32 diffs, (uint64 tag, uint64 bytes, body)*
 * Neighbouring whole pages are one run; diffs are of one page.  Bytes behind the wire: apart.h.
 * `since` is what the reader has of the server's writes, and never from before its last collection (R8).
 * The `have` that comes with diffs leaves out what is at or below the server's last cut, if the reader has passed that cut,
 * too: notices have told it.  (What a writer cut before its interval in a cut closed is named by that interval or by an
 * earlier one, and the cut lists them all.)
 */
#ifndef PROTOCOL_FETCH_H
#define PROTOCOL_FETCH_H

#include "protocol/message.h"
#include "protocol/page.h"

struct node;

/* FETCH_SUBSCRIBE: what is written to the page from now on is to be pushed.  FETCH_STOP: no longer; nothing is asked for. */
enum {
    FETCH_WHOLE_MUST = 1,
    FETCH_WHOLE_OK = 2,
    FETCH_PREFER_WHOLE = 4,
    FETCH_WHOLE = 8,
    FETCH_BULK = 16,
    FETCH_SUBSCRIBE = 32,
    FETCH_STOP = 64
};

/* Replies are cut into pieces of about this size, so that the first can be used while the others travel. */
enum { FETCH_PIECE_BYTES = 256 * 1024 };

/* A diff that waits to be applied; its body lies in the message. */
struct fetch_part {
    stamp tag;
    node_id node;
    uint32_t unused;
    const unsigned char *body;
    uint64_t bytes;
    struct message *message;
};

struct fetch {
    struct fetch *next, **link; /* list of the node */
    struct page *page;
    struct vector have; /* what the copy will contain when the gathered diffs are applied */
    struct fetch_part *parts;
    uint32_t part_count, part_capacity;
    uint32_t awaited; /* replies of this round */
    node_id peer;     /* one of those asked, for the watchdog */
    bool gathering;   /* this round asked for diffs (parts and `have` are in use) */
    bool diffs_only;  /* a whole page did not fit */
    bool ahead;       /* nobody asked for it yet */
    bool wanted;      /* brought because the last versions were used (ahead.h) */
    bool subscribes;  /* and the next ones are to be pushed */
    bool postponed;   /* until the page has been sent (apart.h) */
};

/* Start to bring the page up to date.  It may end at once (a fresh page needs nobody). */
void fetch_start(struct node *node, struct page *page, bool ahead);
/* The same for a page that is wanted (ahead.h). */
void fetch_start_update(struct node *node, struct page *page, bool subscribes);
/* Nothing of this page is to be pushed any more. */
void fetch_stop_pushes(struct node *node, struct page *page);
/* Give up: the region is freed. */
void fetch_cancel(struct node *node, struct fetch *fetch);

/* Something has been sent: start what waited for it. */
void fetch_resume(struct node *node);

void serve_receive(struct node *node, struct message *message);
void reply_receive(struct node *node, struct message *message);
/* Where the bytes go that come behind it. */
void reply_place(struct node *node, struct message *message);

/* ---- for pushes, which are replies ahead of their time ---------------------------------------------------------- */

/* Diffs of one writer up to `tag`, and what they were made on top of (R3); the reader stands at their number.  What the
 * fetch has already is passed over. */
void install_take_diffs(struct node *node, struct fetch *fetch, struct message *message, struct reader *reader,
                        stamp tag, const struct vector *theirs);
/* The bytes that the diffs after `since` take in a message, and their number. */
uint64_t wire_diffs_since(const struct page *page, stamp since, uint32_t *count);
void wire_put_diffs(struct node *node, struct message *message, struct page *page, stamp since, uint32_t count);
/* What the page has here; `above_cut`: only what is above the last cut. */
void wire_put_have(struct node *node, struct message *message, const struct page *page, bool above_cut);

#endif
