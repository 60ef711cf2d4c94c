/* wire - how requests for pages and the answers to them are written and read.
 *
 *   FETCH   := uint64 cuts that the requester has passed, request*          REPLY := run*
 *   request := uint32 region, uint32 flags, uint64 page, uint64 since, [vector have, if FETCH_WHOLE_OK]
 *   run     := uint32 region, uint32 flags, uint64 first page, uint64 pages, uint64 bytes that follow,
 *              uint64 bytes behind the message, FETCH_WHOLE ? (vector have)*, [page bytes, unless FETCH_BULK]
 *                                       : uint64 tag, vector have, diffs
 *   diffs   := uint32 diffs, (uint64 tag, uint64 bytes, body)*
 *
 *   FORWARD := uint32 the node that was asked first, uint32 reader, uint32 rank of the reader, uint32 nodes that sent
 *              it on, uint64 stamp of the reader's FETCH, forwarded*
 *   forwarded := uint32 region, uint32 0, uint64 page, uint64 stamp of the receiver's own FETCH, vector have
 *
 * Neighbouring whole pages are one run; diffs are of one page.  Bytes behind the message: bulk.h.
 * `since` is what the requester has of the server's writes, and never from before its last collection (R8).
 * The `have` that comes with diffs leaves out stamps at or below the server's last cut, if the requester has passed
 * that cut, too: notices have named it.  (A diff that was encoded before an interval in a cut closed is named by that
 * interval or by an earlier one, and the cut lists them all.)
 */
#pragma once

#include "protocol/page/page.h"

enum {
    FETCH_WHOLE_MUST = 1,   /* request: there is no copy to apply diffs to */
    FETCH_WHOLE_OK = 2,     /* request: a whole page will do, if its sender has all of `have` */
    FETCH_PREFER_WHOLE = 4, /* request: and is preferred */
    FETCH_WHOLE = 8,        /* run: of whole pages */
    FETCH_BULK = 16,        /* run: their bytes travel behind the message */
    FETCH_SUBSCRIBE = 32,   /* request: push the page's writes from now on */
    FETCH_STOP = 64         /* request: push them no longer; nothing else is requested */
};

/* Replies are sent in pieces of about this size, so that the first can be used while the others travel. */
enum { FETCH_PIECE_BYTES = 256 * 1024 };

struct fetch_request {
    uint32_t flags;
    uint64_t page;
    stamp since;
    bool passed_cut;       /* the requester has passed all cuts that this node has */
    struct region *region; /* NULL: freed here in the meantime, as it will be there */
    struct vector have;
};

/* Whose request it is: the same for all pages of a message. */
struct fetch_origin {
    node_id reader;
    int32_t rank;  /* its process that awaits the pages */
    stamp asked;   /* stamp of its FETCH */
    node_id first; /* was asked first, and serves what those that it sent the reader to cannot */
    uint32_t hops; /* nodes that sent it on */
};

struct reply_run {
    uint32_t flags;
    uint64_t first, pages, bytes, bulk;
    struct region *region; /* NULL: freed in the meantime */
    struct reader body;
};

/* Append a request to a FETCH. */
void wire_put_request(struct node *node, struct message *message, const struct page *page, stamp since, uint32_t flags);
/* `cuts`: the first field of the FETCH. */
struct fetch_request wire_read_request(struct node *node, const struct message *message, struct reader *reader,
                                       uint64_t cuts);

/* Serve these pages to the reader, if the copies have all that `have` names: what their sender would serve. */
struct message *wire_new_forward(struct node *node, node_id to, const struct fetch_origin *origin);
/* `seen`: the stamp of the receiver's own FETCH that was answered with the page; 0: it was asked first. */
void wire_put_forwarded(struct node *node, struct message *message, const struct page *page, stamp seen,
                        const struct vector *have);
struct fetch_origin wire_read_origin(struct node *node, const struct message *message, struct reader *reader);
/* Its `since` is what was put as `seen`; it has no flags. */
struct fetch_request wire_read_forwarded(struct node *node, const struct message *message, struct reader *reader);

/* A run does not fit its region: malformed.  Of a run whose region is gone only the lengths count. */
struct reply_run wire_read_run(struct node *node, const struct message *message, struct reader *reader);
void wire_read_have(struct node *node, struct reader *reader, struct vector *have);

/* The bytes that the diffs after `since` take in a message, and their number. */
uint64_t wire_diffs_since(const struct page *page, stamp since, uint32_t *count);
void wire_put_diffs(struct node *node, struct message *message, struct page *page, stamp since, uint32_t count);
/* The page's `have`; `above_cut`: only entries above the last cut.  So k writers of one page cost their reader k
 * vectors of one entry, not k of k. */
void wire_put_have(struct node *node, struct message *message, const struct page *page, bool above_cut);
