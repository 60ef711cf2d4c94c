/* Written and read side by side, so that a change of one shows in the other. */
#include "protocol/coherence/wire.h"

#include <string.h>

#include "protocol/coherence/bulk.h"
#include "protocol/page/region.h"

/* ---- requests --------------------------------------------------------------------------------------------------- */

void wire_put_request(struct node *node, struct message *message, const struct page *page, stamp since, uint32_t flags)
{
    context_assert(node, since <= node->stamp, "wire: a request names a stamp that no message has brought (R1)");
    context_assert(node, message->peer != node->number, "wire: a request to this node itself");
    message_put_u32(message, &node->pool, page_region(page)->id);
    message_put_u32(message, &node->pool, flags);
    message_put_u64(message, &node->pool, page_index(page));
    message_put_u64(message, &node->pool, since);
    message_header(message)->count++;
}

struct fetch_request wire_read_request(struct node *node, const struct message *message, struct reader *reader,
                                       uint64_t cuts)
{
    struct fetch_request request = {.passed_cut = cuts >= node->cuts,
                                    .region = region_find(node->regions, reader_u32(reader))};
    request.flags = reader_u32(reader);
    request.page = reader_u64(reader);
    request.since = reader_u64(reader);
    if (request.flags & FETCH_WHOLE_OK)
        reader_vector(reader, &node->pool, node->size, node->collection.floor, &request.have);
    if (reader->bad || (request.region && request.page >= request.region->pages))
        context_malformed(node, message);
    return request;
}

struct message *wire_new_forward(struct node *node, node_id to, const struct fetch_origin *origin)
{
    struct message *message = message_new(&node->pool, to, MESSAGE_FORWARD, RING_LATER, 256);
    context_assert(node, to != node->number && to != origin->reader, "wire: a reader is sent on to itself");
    message_put_u32(message, &node->pool, (uint32_t)origin->first);
    message_put_u32(message, &node->pool, (uint32_t)origin->reader);
    message_put_u32(message, &node->pool, (uint32_t)origin->rank);
    message_put_u32(message, &node->pool, origin->hops + 1);
    message_put_u64(message, &node->pool, origin->asked);
    context_send(node, message);
    return message;
}

void wire_put_forwarded(struct node *node, struct message *message, const struct page *page, stamp seen,
                        const struct vector *have)
{
    message_put_u32(message, &node->pool, page_region(page)->id);
    message_put_u32(message, &node->pool, 0);
    message_put_u64(message, &node->pool, page_index(page));
    message_put_u64(message, &node->pool, seen);
    message_put_vector(message, &node->pool, have);
    message_header(message)->count++;
}

struct fetch_origin wire_read_origin(struct node *node, const struct message *message, struct reader *reader)
{
    uint32_t first = reader_u32(reader), who = reader_u32(reader), rank = reader_u32(reader);
    struct fetch_origin origin = {.reader = (node_id)who, .rank = (int32_t)rank, .first = (node_id)first};
    origin.hops = reader_u32(reader);
    origin.asked = reader_u64(reader);
    bool nodes = who < (uint32_t)node->size && first < (uint32_t)node->size && who != first;
    if (reader->bad || !nodes || origin.asked > node->stamp || who == (uint32_t)node->number ||
        rank >= node->options.ranks)
        context_malformed(node, message);
    return origin;
}

struct fetch_request wire_read_forwarded(struct node *node, const struct message *message, struct reader *reader)
{
    struct fetch_request request = {.region = region_find(node->regions, reader_u32(reader))};
    reader_u32(reader);
    request.page = reader_u64(reader);
    request.since = reader_u64(reader);
    reader_vector(reader, &node->pool, node->size, node->collection.floor, &request.have);
    if (reader->bad || request.since > node->stamp || (request.region && request.page >= request.region->pages))
        context_malformed(node, message);
    return request;
}

/* ---- replies ---------------------------------------------------------------------------------------------------- */

/* Diffs are of one page and never behind the message; bytes behind it are there exactly where the flag says so. */
static bool lengths_agree(const struct node *node, const struct reply_run *run)
{
    bool bulk = run->flags & FETCH_BULK, diffs = !(run->flags & FETCH_WHOLE);
    if (diffs && (run->pages > 1 || bulk))
        return false;
    return bulk == (run->bulk > 0) && run->bulk <= BULK_BYTES_MAX && run->bulk <= node->port->range_bytes;
}

static bool fits_region(const struct reply_run *run)
{
    const struct region *region = run->region;
    if (!region)
        return true;
    if (run->first >= region->pages || run->pages > region->pages - run->first)
        return false;
    return !(run->flags & FETCH_BULK) || run->bulk == run->pages * region->page_bytes;
}

struct reply_run wire_read_run(struct node *node, const struct message *message, struct reader *reader)
{
    struct reply_run run = {.region = region_find(node->regions, reader_u32(reader))};
    run.flags = reader_u32(reader);
    run.first = reader_u64(reader);
    run.pages = reader_u64(reader);
    run.bytes = reader_u64(reader);
    run.bulk = reader_u64(reader);
    run.body = *reader;
    if (reader_bytes(reader, run.bytes))
        run.body.end = run.body.at + run.bytes;
    if (reader->bad || run.pages == 0 || !lengths_agree(node, &run) || !fits_region(&run))
        context_malformed(node, message);
    return run;
}

void wire_read_have(struct node *node, struct reader *reader, struct vector *have)
{
    reader_vector(reader, &node->pool, node->size, node->collection.floor, have);
}

uint64_t wire_diffs_since(const struct page *page, stamp since, uint32_t *count)
{
    uint64_t bytes = 0;
    *count = 0;
    for (const struct diff *diff = page_diffs_after(page, since); diff; diff = diff->next) {
        bytes += diff->bytes + 2 * sizeof(uint64_t);
        ++*count;
    }
    return bytes;
}

void wire_put_diffs(struct node *node, struct message *reply, struct page *page, stamp since, uint32_t count)
{
    message_put_u32(reply, &node->pool, count);
    for (const struct diff *diff = page_diffs_after(page, since); diff; diff = diff->next) {
        message_put_u64(reply, &node->pool, diff->tag);
        message_put_u64(reply, &node->pool, diff->bytes);
        message_put_bytes(reply, &node->pool, diff->body, diff->bytes);
        page_region(page)->stats[node->me].diff_bytes_served += diff->bytes;
    }
    page_region(page)->stats[node->me].diffs_served += count;
}

void wire_put_have(struct node *node, struct message *reply, const struct page *page, bool above_cut)
{
    uint32_t count = 0;
    uint64_t count_at = message_put_count(reply, &node->pool);
    for (uint32_t i = 0; i < page->have.count; i++) {
        struct vector_entry entry = vector_at(&page->have, i);
        context_assert(node, entry.stamp <= node->stamp,
                       "wire: a copy has writes of a stamp that no message has brought (R1)");
        if (above_cut && entry.stamp <= node->cut[entry.node])
            continue;
        message_put_u32(reply, &node->pool, (uint32_t)entry.node);
        message_put_u64(reply, &node->pool, entry.stamp);
        count++;
    }
    message_set_count(reply, count_at, count);
}
