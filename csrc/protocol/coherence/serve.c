/* All pages of a request are protected first, neighbours by one call, and encoded afterwards: a diff encoded before the
 * protection could miss a write. */
#include "protocol/coherence/serve.h"

#include <string.h>

#include "protocol/coherence/bulk.h"
#include "protocol/coherence/install.h"
#include "protocol/coherence/protection.h"
#include "protocol/coherence/seal.h"
#include "protocol/coherence/wire.h"
#include "protocol/coherence/writes.h"
#include "protocol/page/crowd.h"
#include "protocol/page/history.h"
#include "protocol/page/region.h"

/* ---- building a reply ------------------------------------------------------------------------------------------- */

/* A reply that is being put together; its last run is open while whole pages may follow. */
struct answer {
    const struct fetch_origin *origin;
    uint32_t readers_max;     /* of a version, before its crowd serves it */
    struct message *forward;  /* the last that was sent for it, or NULL */
    struct message *message;  /* NULL: none has begun */
    uint64_t run_at;          /* of the run's head in the wire */
    const struct page *first; /* of the open run; NULL: none is open */
    uint64_t pages, bulk;     /* in the open run; bytes behind the wire */
};

enum { HOPS_MAX = 32 }; /* more than any tree is deep */

enum { RUN_HEAD_BYTES = 2 * sizeof(uint32_t) + 4 * sizeof(uint64_t) };

static void begin_run(struct node *node, struct answer *reply, const struct page *page)
{
    context_assert(node, !reply->first, "serve: a run begins in another one");
    reply->run_at = reply->message->wire_bytes;
    reply->first = page;
    reply->pages = 0;
    message_space(reply->message, &node->pool, RUN_HEAD_BYTES);
    message_header(reply->message)->count++;
}

static void end_run(struct answer *reply, uint32_t flags, uint64_t bytes_behind)
{
    unsigned char *at = reply->message->wire + reply->run_at;
    uint64_t bytes = reply->message->wire_bytes - reply->run_at - RUN_HEAD_BYTES;
    uint64_t numbers[] = {page_index(reply->first), reply->pages, bytes, bytes_behind};
    memcpy(at, &page_region(reply->first)->id, sizeof(uint32_t));
    memcpy(at + sizeof(uint32_t), &flags, sizeof flags);
    memcpy(at + 2 * sizeof(uint32_t), numbers, sizeof numbers);
    reply->first = NULL;
}

/* Whole pages, if any are open: their bytes follow, in the wire or behind it. */
static void end_whole(struct node *node, struct answer *reply)
{
    if (!reply->first)
        return;
    uint64_t offset = page_offset(reply->first), bytes = reply->pages * page_region(reply->first)->page_bytes;
    context_assert(node, reply->pages > 0, "serve: a run without a page");
    context_assert(node, !reply->first->writers, "serve: a page is sent from its place and is written (R14)");
    if (bulk_worth(node, reply->message, bytes)) {
        bulk_put(node, reply->message, offset, bytes);
        reply->bulk += bytes;
        end_run(reply, FETCH_WHOLE | FETCH_BULK, bytes);
    } else {
        message_put_bytes(reply->message, &node->pool, node->port->view + offset, bytes);
        end_run(reply, FETCH_WHOLE, 0);
    }
}

/* A page that some space can write is sent as its snapshot, the twin.  A snapshot, and a page that this node is
 * fetching itself, is copied: it may change before it has been sent. */
static void put_whole(struct node *node, struct answer *reply, struct page *page)
{
    bool snapshot = page_inspected(page), copied = snapshot || page_fetch(page);
    const struct page *first = reply->first;
    context_assert(node, page->copy, "serve: a page without a copy is sent (R13)");
    context_assert(node, !snapshot || page->twin, "serve: a page that is written has no snapshot to send");
    if (copied || !first || page_region(first) != page_region(page) ||
        page_index(first) + reply->pages != page_index(page)) {
        end_whole(node, reply);
        begin_run(node, reply, page);
    }
    if (snapshot)
        page_twin_own(page, &node->pool); /* the constant is one granule */
    wire_put_have(node, reply->message, page, false);
    reply->pages++;
    page_region(page)->stats[node->me].pages_served++;
    if (copied) {
        const unsigned char *source = snapshot ? page->twin : node->port->view + page_offset(page);
        message_put_bytes(reply->message, &node->pool, source, page_region(page)->page_bytes);
        end_run(reply, FETCH_WHOLE, 0);
    }
}

/* ---- one page --------------------------------------------------------------------------------------------------- */

/* Its last diff was as long as the page, or it is written for the first time.  If a few places have changed, so
 * probably has everything, and no diff is encoded to know. */
static bool seems_rewritten(const struct node *node, const struct page *page)
{
    enum { PLACES = 4 };
    const unsigned char *now = node->port->view + page_offset(page);
    uint64_t bytes = page_region(page)->page_bytes, last = bytes / DIFF_BLOCK_BYTES - 1;
    const unsigned char *twin =
        page->twin || !page->extension ? page->twin : page->extension->deferred_twin; /* sent whole to another */
    bool constant = twin == page_region(page)->constant;
    uint64_t twin_bytes = constant ? node->port->granule_bytes : bytes;
    if (!twin || !(page->served_whole || constant))
        return false;
    for (uint64_t i = 0; i < PLACES; i++) {
        uint64_t at = last * i / (PLACES - 1) * DIFF_BLOCK_BYTES;
        if (memcmp(now + at, twin + at % twin_bytes, DIFF_BLOCK_BYTES) == 0)
            return false;
    }
    return true;
}

/* A request that a whole page may answer names the contents of the requester's copy.  With no third node the diffs up
 * to there have no use any more; where whole pages travel, no diff is encoded.  Not while this node fetches the page:
 * what comes was perhaps sent before the requester had these diffs, and they go on top of it (R6, H7). */
static void drop_seen_diffs(struct node *node, struct page *page, const struct fetch_request *request)
{
    if (node->size == 2 && (request->flags & FETCH_WHOLE_OK) && !page_fetch(page))
        page_diffs_drop_until(page, &node->pool, request->since);
}

/* The reader takes the whole page, and ... */
static bool may_whole(const struct page *page, const struct fetch_request *request, node_id reader)
{
    return (request->flags & FETCH_WHOLE_OK) && vector_covers(&page->have, &request->have, reader);
}

/* ... whatever the diffs are, it is sent. */
static bool prefer_whole(const struct node *node, const struct page *page, const struct fetch_request *request)
{
    return (request->flags & FETCH_PREFER_WHOLE) || seems_rewritten(node, page);
}

/* The page is protected already.  True: it was sent whole. */
static bool put_page(struct node *node, struct answer *reply, struct page *page, const struct fetch_request *request)
{
    bool may = may_whole(page, request, reply->message->peer);
    bool whole = (request->flags & FETCH_WHOLE_MUST) || (may && prefer_whole(node, page, request));
    context_assert(node, request->since <= node->stamp, "serve: the reader has writes that were not made yet");
    drop_seen_diffs(node, page, request);
    stamp tag = seal_page(node, page, whole);
    context_assert(node, tag <= node->stamp, "serve: a page is sealed with a stamp that has not come yet");
    context_assert(node, page_inspected(page) == (page->twin != NULL),
                   "serve: a page is closed and keeps its twin, or is written and has none");
    if (request->flags & FETCH_SUBSCRIBE)
        history_subscribe(page, &node->pool, reply->message->peer, tag);
    history_sent(page, reply->message->peer, tag);
    uint32_t count = 0;
    if (!whole)
        page->served_whole = whole = page_worth_whole(page, wire_diffs_since(page, request->since, &count)) && may;
    page_event(node, EVENT_SERVE, page, reply->message->peer);
    if (whole) {
        put_whole(node, reply, page);
        return true;
    }
    end_whole(node, reply);
    begin_run(node, reply, page);
    reply->pages = 1;
    message_put_u64(reply->message, &node->pool, tag);
    wire_put_have(node, reply->message, page, request->passed_cut);
    wire_put_diffs(node, reply->message, page, request->since, count);
    end_run(reply, 0, 0);
    return false;
}

/* ---- answering -------------------------------------------------------------------------------------------------- */

static void send_reply(struct node *node, struct answer *reply)
{
    if (reply->message) {
        end_whole(node, reply);
        context_send(node, reply->message);
    }
    reply->message = NULL;
    reply->bulk = 0;
}

static uint64_t reply_bytes(const struct answer *reply)
{
    return reply->message->wire_bytes + reply->bulk +
           (reply->first ? reply->pages * page_region(reply->first)->page_bytes : 0);
}

/* Other nodes can be sent to those that have the page. */
static bool crowds(const struct node *node, const struct page *page)
{
    bool allowed = node->options.readers_max && node->size > 2 && node->collection.phase == COLLECTION_IDLE;
    return allowed && page_settled(page);
}

/* Neither is it sealed, nor does it get a new stamp: all readers of this version are sent the same. */
static void put_settled(struct node *node, struct answer *reply, struct page *page)
{
    history_sent(page, reply->message->peer, vector_get(&page->have, node->number));
    page_event(node, EVENT_SERVE, page, reply->message->peer);
    put_whole(node, reply, page);
}

/* The whole page is sent as it is. */
static bool goes_settled(struct node *node, const struct page *page, const struct fetch_request *request,
                         node_id reader)
{
    if (!crowds(node, page) || request->flags & FETCH_SUBSCRIBE)
        return false;
    if (request->flags & FETCH_WHOLE_MUST)
        return true;
    bool encoded = !page->extension || !page->extension->deferred_tag;
    uint32_t count;
    return may_whole(page, request, reader) &&
           (prefer_whole(node, page, request) ||
            (encoded && page_worth_whole(page, wire_diffs_since(page, request->since, &count))));
}

/* Another node is to serve the page in this one's place. */
static void send_on(struct node *node, struct answer *reply, node_id to, stamp seen, const struct page *page)
{
    static const struct vector nothing = {0};
    bool back = to == reply->origin->first;
    if (!reply->forward || reply->forward->peer != to)
        reply->forward = wire_new_forward(node, to, reply->origin);
    node->stats[node->me].pages_sent_on++;
    wire_put_forwarded(node, reply->forward, page, seen, back ? &nothing : &page->have);
}

static void serve(struct node *node, struct answer *reply, const struct fetch_request *request)
{
    struct page *page = region_page(request->region, &node->pool, request->page);
    const struct fetch_origin *origin = reply->origin;
    bool settled = goes_settled(node, page, request, origin->reader), whole = settled;
    node_id same = reply->forward ? reply->forward->peer : NODE_NONE; /* pages that come together go together */
    const struct crowd_member *member = settled ? crowd_turn(page, origin->reader, reply->readers_max, same) : NULL;
    if (member) {
        send_on(node, reply, member->node, member->asked, page);
        return;
    }
    if (!reply->message) {
        reply->message = message_new(&node->pool, origin->reader, MESSAGE_REPLY, RING_NEVER, 256);
        reply->message->rank = origin->rank;
    }
    if (settled)
        put_settled(node, reply, page);
    else
        whole = put_page(node, reply, page, request);
    if (whole && crowds(node, page))
        crowd_add(page, &node->pool, origin->reader, origin->asked);
    if (page_valid(page) && context_chance(node, node->policy.stay_open_permille)) {
        end_whole(node, reply);
        if (writes_open(node, page))
            protection_set(node, page, ACCESS_WRITE);
    }
    if (reply_bytes(reply) >= FETCH_PIECE_BYTES || reply->message->segment_count == MESSAGE_SEGMENTS_MAX)
        send_reply(node, reply);
}

/* False: it is arriving, and there is no copy yet. */
static bool shut_to_serve(struct node *node, const struct message *message, const struct fetch_request *request)
{
    struct page *page = region_page(request->region, &node->pool, request->page);
    if (page->arriving)
        return false;
    if (!page->copy)
        context_panic(node, "rank %d asked for page %llu of region %u, which is not here (R13)", message->peer,
                      (unsigned long long)request->page, request->region->id);
    seal_shut(node, page);
    return true;
}

/* What is short leaves this node sooner than one more message reaches another. */
static struct answer answer_to(const struct node *node, const struct fetch_origin *origin, uint64_t bytes)
{
    const struct node_options *options = &node->options;
    bool small = bytes < BULK_BYTES_MIN;
    return (struct answer){.origin = origin, .readers_max = small ? options->readers_small_max : options->readers_max};
}

/* The message has been read to its end, and its pages are protected; or some cannot be yet. */
static bool all_shut(struct node *node, struct message *message, const struct reader *reader, bool all)
{
    if (!reader_ended(reader))
        context_malformed(node, message);
    protection_flush(node);
    if (!all)
        context_defer(node, message);
    return all;
}

void serve_receive(struct node *node, struct message *message)
{
    uint32_t count = message_header(message)->count;
    struct reader reader = reader_of(message);
    uint64_t cuts = reader_u64(&reader);
    struct reader again = reader;
    uint64_t bytes = 0;
    bool all = true;
    /* All are protected first, neighbours by one call, and encoded afterwards (R4). */
    for (uint32_t i = 0; i < count; i++) {
        struct fetch_request request = wire_read_request(node, message, &reader, cuts);
        bool asks = request.region && !(request.flags & FETCH_STOP);
        bytes += asks ? request.region->page_bytes : 0;
        if (asks && !shut_to_serve(node, message, &request))
            all = false;
        vector_clear(&request.have, &node->pool);
    }
    if (!all_shut(node, message, &reader, all))
        return;
    struct fetch_origin origin = {
        .reader = message->peer, .rank = message->rank, .asked = message_header(message)->stamp, .first = node->number};
    struct answer reply = answer_to(node, &origin, bytes);
    for (uint32_t i = 0; i < count; i++) {
        struct fetch_request request = wire_read_request(node, message, &again, cuts);
        if (request.region && (request.flags & FETCH_STOP))
            history_unsubscribe(region_page(request.region, &node->pool, request.page), message->peer);
        else if (request.region)
            serve(node, &reply, &request);
        vector_clear(&request.have, &node->pool);
    }
    send_reply(node, &reply);
}

/* ---- requests that another node has sent on ---------------------------------------------------------------------- */

/* What its sender would serve is here. */
static bool stands_in(const struct page *page, const struct fetch_request *request)
{
    return page_settled(page) && vector_covers(&page->have, &request->have, NODE_NONE);
}

/* False: it is on its way. */
static bool here_or_elsewhere(struct node *node, const struct message *message, const struct fetch_origin *origin,
                              struct fetch_request *request)
{
    struct page *page = region_page(request->region, &node->pool, request->page);
    const struct fetch *fetch = page_fetch(page);
    if (origin->first == node->number)
        return shut_to_serve(node, message, request);
    bool comes = fetch && fetch->awaited && fetch->asked <= request->since;
    return stands_in(page, request) || !(comes || page->arriving);
}

void serve_receive_forward(struct node *node, struct message *message)
{
    uint32_t count = message_header(message)->count;
    struct reader reader = reader_of(message);
    struct fetch_origin origin = wire_read_origin(node, message, &reader);
    struct reader again = reader;
    uint64_t bytes = 0;
    bool all = true, last = origin.first == node->number;
    for (uint32_t i = 0; i < count; i++) {
        struct fetch_request request = wire_read_forwarded(node, message, &reader);
        bytes += request.region ? request.region->page_bytes : 0;
        if (request.region && !here_or_elsewhere(node, message, &origin, &request))
            all = false;
        vector_clear(&request.have, &node->pool);
    }
    if (!all_shut(node, message, &reader, all))
        return;
    struct answer reply = answer_to(node, &origin, bytes);
    if (last || origin.hops >= HOPS_MAX)
        reply.readers_max = UINT32_MAX;
    for (uint32_t i = 0; i < count; i++) {
        struct fetch_request request = wire_read_forwarded(node, message, &again);
        struct page *page = request.region ? region_page(request.region, &node->pool, request.page) : NULL;
        request.flags = FETCH_WHOLE_MUST;
        if (page && (last || stands_in(page, &request)))
            serve(node, &reply, &request);
        else if (page)
            send_on(node, &reply, origin.first, 0, page);
        vector_clear(&request.have, &node->pool);
    }
    send_reply(node, &reply);
}
