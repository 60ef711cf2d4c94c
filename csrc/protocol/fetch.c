/* Requests that leave a node at the same moment for the same peer travel in one message, and so do the answers, in pieces
 * of a bounded size; nothing else here knows of messages with more than one page. */
#include "protocol/fetch.h"

#include <string.h>

#include "protocol/node.h"

/* ---- asking -------------------------------------------------------------------------------------------------- */

/* The request to this peer that has not left yet, or a new one. */
static struct message *request_to(struct node *node, node_id peer)
{
    for (struct message *message = node->outbox; message; message = message->next)
        if (message->peer == peer && message_header(message)->kind == MESSAGE_FETCH)
            return message;
    struct message *message = message_new(&node->pool, peer, MESSAGE_FETCH, RING_LATER, 256);
    message_put_u64(message, &node->pool, node->cuts);
    node_send(node, message);
    return message;
}

static void put_want(struct node *node, struct message *message, const struct page *page, stamp since, uint32_t flags)
{
    message_put_u32(message, &node->pool, page_region(page)->id);
    message_put_u32(message, &node->pool, flags);
    message_put_u64(message, &node->pool, page_index(page));
    message_put_u64(message, &node->pool, since);
    message_header(message)->count++;
}

static void want(struct node *node, struct fetch *fetch, node_id peer, uint32_t flags)
{
    struct page *page = fetch->page;
    if (peer == node->rank)
        node_panic(node, "page %llu of region %u: would be fetched from this node itself",
                   (unsigned long long)page_index(page), page_region(page)->id);
    if (fetch->subscribes) {
        flags |= FETCH_SUBSCRIBE;
        history_of(page, &node->pool)->subscribed = true;
    }
    struct message *message = request_to(node, peer);
    put_want(node, message, page, collection_known(node, &fetch->have, peer), flags);
    if (flags & FETCH_WHOLE_OK)
        message_put_vector(message, &node->pool, &page->have);
    fetch->awaited++;
    fetch->peer = peer;
    node->stats.fetch_requests++;
    page_region(page)->stats.fetch_requests++;
    node_event(node, EVENT_FETCH, page, 0, peer);
}

/* Who has writes that the page needs and `have` lacks?  Their number; *latest is the one with the highest stamp. */
static uint32_t behind(const struct node *node, const struct page *page, const struct vector *have, node_id *latest)
{
    uint32_t count = 0;
    stamp highest = 0;
    *latest = NODE_NONE;
    for (uint32_t i = 0; i < page->need.count; i++) {
        struct vector_entry entry = vector_at(&page->need, i);
        if (entry.node == node->rank || vector_get(have, entry.node) >= entry.stamp)
            continue;
        count++;
        if (entry.stamp > highest || (entry.stamp == highest && entry.node > *latest)) {
            highest = entry.stamp;
            *latest = entry.node;
        }
    }
    return count;
}

/* Ask every writer that is ahead of `fetch->have` for its diffs.  `flags` only where there is one writer. */
static void gather(struct node *node, struct fetch *fetch, uint32_t flags)
{
    struct page *page = fetch->page;
    for (uint32_t i = 0; i < page->need.count; i++) {
        struct vector_entry entry = vector_at(&page->need, i);
        if (entry.node != node->rank && vector_get(&fetch->have, entry.node) < entry.stamp)
            want(node, fetch, entry.node, flags);
    }
}

/* One whole page instead of diffs from several writers, one after the other writing it? */
static bool likes_whole(struct node *node, const struct fetch *fetch, uint32_t writers)
{
    switch (node->policy.whole) {
    case WHOLE_NEVER: return false;
    case WHOLE_ALWAYS: return true;
    case WHOLE_RANDOM: return node_chance(node, 500);
    case WHOLE_AUTO: break;
    }
    return writers > 1 && !fetch->page->twin && !fetch->page->shared_writing;
}

/* The first requests of a round.  False: there is nothing to ask for. */
static bool start_round(struct node *node, struct fetch *fetch)
{
    struct page *page = fetch->page;
    node_id latest;
    uint32_t writers = behind(node, page, &page->have, &latest);
    if (!page->copy) {
        node_id from = latest != NODE_NONE ? latest : page->owner;
        if (from == NODE_NONE)
            node_panic(node, "page %llu of region %u: no copy here and no owner", (unsigned long long)page_index(page),
                       page_region(page)->id);
        fetch->gathering = false;
        want(node, fetch, from, FETCH_WHOLE_MUST);
        return true;
    }
    if (writers == 0)
        return false;
    fetch->gathering = true;
    vector_copy(&fetch->have, &node->pool, &page->have);
    if (fetch->diffs_only || page_pinned_write(page))
        gather(node, fetch, 0);
    else if (likes_whole(node, fetch, writers))
        want(node, fetch, latest, FETCH_WHOLE_OK | FETCH_WHOLE_LIKED);
    else
        gather(node, fetch, writers == 1 && node->policy.whole == WHOLE_AUTO ? FETCH_WHOLE_OK : 0);
    return true;
}

/* ---- applying ------------------------------------------------------------------------------------------------ */

static int by_tag(const void *a, const void *b)
{
    const struct fetch_part *x = a, *y = b;
    if (x->tag != y->tag)
        return x->tag < y->tag ? -1 : 1;
    return x->node < y->node ? -1 : x->node > y->node;
}

/* A stable order without qsort, which may allocate: diffs arrive almost sorted, a list per writer. */
static void sort_parts(struct fetch_part *parts, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        struct fetch_part part = parts[i];
        uint32_t k = i;
        for (; k > 0 && by_tag(&parts[k - 1], &part) > 0; k--)
            parts[k] = parts[k - 1];
        parts[k] = part;
    }
}

static void drop_parts(struct node *node, struct fetch *fetch)
{
    for (uint32_t i = 0; i < fetch->part_count; i++)
        message_release(fetch->parts[i].message, &node->pool);
    fetch->part_count = 0;
}

/* All that was missing is here: diffs in the order of their tags, which respects happens-before (R2).  What was written here
 * and is not cut yet stays on top: its tag will be above all of theirs, so everybody will see it last.  Only a program with
 * a race can tell: a diff with a lower tag than that of the value which the write here replaced would take the write away,
 * and others, who apply it in its order, would see that old value again. */
static void apply_parts(struct node *node, struct fetch *fetch)
{
    struct page *page = fetch->page;
    unsigned char *bytes = node->port.view + page_offset(page);
    page_fill(page, &node->port);
    page->fresh = false;
    if (fetch->part_count)
        page_twin_own(page, &node->pool);
    sort_parts(fetch->parts, fetch->part_count);
    for (uint32_t i = 0; i < fetch->part_count; i++) {
        const struct fetch_part *part = &fetch->parts[i];
        diff_apply_under(bytes, page->twin, part->body, part->bytes);
        if (page->twin)
            diff_apply(page->twin, part->body, part->bytes);
        node_event(node, EVENT_APPLY, page, part->tag, part->node);
    }
    drop_parts(node, fetch);
    stamp mine = vector_get(&page->have, node->rank), needed = vector_get(&page->need, node->rank);
    vector_copy(&page->have, &node->pool, &fetch->have);
    vector_raise(&page->have, &node->pool, node->rank, mine > needed ? mine : needed);
    fetch->gathering = false;
}

/* The own diffs that the sender of a whole page does not have, and then what was written since, go on top (R6). */
static bool install(struct node *node, struct page *page, const unsigned char *bytes, const struct vector *have)
{
    if (page_pinned_write(page) || (page->copy && !vector_covers(have, &page->have, node->rank)))
        return false;
    struct pool *pool = &node->pool;
    uint64_t page_bytes = page_region(page)->page_bytes;
    unsigned char *view = node->port.view + page_offset(page), *own = NULL;
    uint64_t own_bytes = 0, room = diff_bytes_max(page_bytes);
    stamp known = vector_get(have, node->rank), mine = vector_get(&page->have, node->rank);
    if (page->twin) {
        page_twin_own(page, pool);
        own = pool_take(pool, room);
        own_bytes = diff_cut(view, page->twin, page_bytes, page_bytes, own);
    }
    memcpy(view, bytes, page_bytes);
    for (const struct diff *diff = page_diffs_after(page, known); diff; diff = diff->next)
        diff_apply(view, diff->body, diff->bytes);
    if (own) {
        memcpy(page->twin, view, page_bytes);
        diff_apply(view, own, own_bytes);
        pool_give(pool, own, room);
    }
    page->copy = true;
    page->fresh = false;
    vector_copy(&page->have, pool, have);
    vector_raise(&page->have, pool, node->rank, mine);
    node_event(node, EVENT_INSTALL, page, 0, NODE_NONE);
    return true;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

static void fetch_free(struct node *node, struct fetch *fetch)
{
    drop_parts(node, fetch);
    if (fetch->parts)
        pool_give(&node->pool, fetch->parts, fetch->part_capacity * sizeof *fetch->parts);
    vector_clear(&fetch->have, &node->pool);
    *fetch->link = fetch->next;
    if (fetch->next)
        fetch->next->link = fetch->link;
    fetch->page->more->fetch = NULL;
    page_tidy(fetch->page, &node->pool);
    node->fetch_count--;
    if (fetch->wanted) {
        node->wanted.under_way--;
        node->wanted.bytes -= page_region(fetch->page)->page_bytes;
    }
    node->wake = true;
    pool_give(&node->pool, fetch, sizeof *fetch);
}

static void fetch_end(struct node *node, struct fetch *fetch)
{
    struct page *page = fetch->page;
    node->stats.fetches++;
    page_region(page)->stats.fetches++;
    /* Nobody may be waiting for a page that was fetched ahead: it is opened for reading all the same, to spare the fault,
     * unless its use is to be seen. */
    bool watched = page->trip || (page_history(page) && page_history(page)->sample);
    if (page->access == ACCESS_NONE && !(fetch->ahead && watched))
        page_protect(node, page, ACCESS_READ);
    if (page_history(page))
        page_history(page)->current = true;
    fetch_free(node, fetch);
}

/* No reply is awaited: go on until something is, or until the page is valid. */
static void fetch_continue(struct node *node, struct fetch *fetch)
{
    struct page *page = fetch->page;
    node_id latest;
    if (fetch->gathering) {
        if (behind(node, page, &fetch->have, &latest)) {
            gather(node, fetch, 0);
            return;
        }
        apply_parts(node, fetch);
    }
    if (!page_valid(page)) {
        if (!start_round(node, fetch))
            node_panic(node, "page %llu of region %u: stale, and nobody to ask", (unsigned long long)page_index(page),
                       page_region(page)->id);
        return;
    }
    fetch_end(node, fetch);
}

static struct fetch *fetch_new(struct node *node, struct page *page, bool ahead)
{
    struct fetch *fetch = pool_take_zeroed(&node->pool, sizeof *fetch);
    fetch->page = page;
    fetch->ahead = ahead;
    fetch->next = node->fetches;
    fetch->link = &node->fetches;
    if (fetch->next)
        fetch->next->link = &fetch->next;
    node->fetches = fetch;
    node->fetch_count++;
    page_more(page, &node->pool)->fetch = fetch;
    return fetch;
}

static void fetch_begin(struct node *node, struct fetch *fetch)
{
    if (page_history(fetch->page) && page_history(fetch->page)->pushes)
        push_begin_fetch(node, fetch);
    fetch_continue(node, fetch);
}

void fetch_start(struct node *node, struct page *page, bool ahead)
{
    fetch_begin(node, fetch_new(node, page, ahead));
}

void fetch_start_wanted(struct node *node, struct page *page, bool subscribes)
{
    struct fetch *fetch = fetch_new(node, page, true);
    fetch->wanted = true;
    fetch->subscribes = subscribes;
    node->wanted.under_way++;
    node->wanted.bytes += page_region(page)->page_bytes;
    fetch_begin(node, fetch);
}

void fetch_stop_pushes(struct node *node, struct page *page)
{
    page_history(page)->subscribed = false;
    for (uint32_t i = 0; i < page->need.count; i++) {
        node_id writer = vector_at(&page->need, i).node;
        if (writer != node->rank)
            put_want(node, request_to(node, writer), page, 0, FETCH_STOP);
    }
}

void fetch_cancel(struct node *node, struct fetch *fetch)
{
    fetch_free(node, fetch);
}

/* ---- replies ------------------------------------------------------------------------------------------------- */

static void keep_part(struct node *node, struct fetch *fetch, struct fetch_part part)
{
    fetch->parts = pool_grow(&node->pool, fetch->parts, &fetch->part_capacity, fetch->part_count + 1, sizeof part);
    fetch->parts[fetch->part_count++] = part;
    part.message->holders++;
}

void fetch_take_diffs(struct node *node, struct fetch *fetch, struct message *message, struct reader *reader, stamp tag,
                      const struct vector *theirs)
{
    struct page *page = fetch->page;
    uint32_t count = reader_u32(reader);
    for (uint32_t i = 0; i < count && !reader->bad; i++) {
        struct fetch_part part = {.node = message->peer, .message = message};
        part.tag = reader_u64(reader);
        part.bytes = reader_u64(reader);
        part.body = reader_bytes(reader, part.bytes);
        if (reader->bad || !diff_valid(part.body, part.bytes, page_region(page)->page_bytes))
            node_malformed(node, message);
        if (part.tag <= collection_known(node, &fetch->have, message->peer))
            continue;
        keep_part(node, fetch, part);
        node->stats.diffs_received++;
        node->stats.diff_bytes_received += part.bytes;
        page_region(page)->stats.diffs_received++;
        page_region(page)->stats.diff_bytes_received += part.bytes;
    }
    if (!reader_ended(reader))
        node_malformed(node, message);
    vector_raise(&fetch->have, &node->pool, message->peer, tag);
    for (uint32_t i = 0; i < theirs->count; i++) {
        struct vector_entry entry = vector_at(theirs, i);
        vector_raise(&page->need, &node->pool, entry.node, entry.stamp);
    }
}

static void take_whole(struct node *node, struct fetch *fetch, const unsigned char *bytes, const struct vector *theirs)
{
    struct page *page = fetch->page;
    node->stats.pages_received++;
    page_region(page)->stats.pages_received++;
    bool fits = install(node, page, bytes, theirs);
    fetch->gathering = false;
    if (!fits)
        fetch->diffs_only = true;
    if (!fits || !page_valid(page))
        page->shared_writing = true;
}

/* One page of a reply; what was freed in the meantime is read and dropped. */
static void receive_page(struct node *node, struct message *message, struct reader *reader)
{
    region_id id = reader_u32(reader);
    uint32_t flags = reader_u32(reader);
    uint64_t index = reader_u64(reader), size = reader_u64(reader);
    stamp tag = reader_u64(reader);
    struct reader body = *reader;
    if (reader_bytes(reader, size))
        body.end = body.at + size;
    struct region *region = reader->bad ? NULL : region_find(&node->regions, id);
    if (!region)
        return;
    struct fetch *fetch = index < region->pages ? page_fetch(region_page(region, &node->pool, index)) : NULL;
    struct vector theirs = {0};
    reader_vector(&body, &node->pool, node->size, node->collection.floor, &theirs);
    if (body.bad || !fetch || !fetch->awaited)
        node_malformed(node, message);
    fetch->awaited--;
    if (flags & FETCH_WHOLE) {
        const unsigned char *bytes = reader_bytes(&body, region->page_bytes);
        if (!reader_ended(&body))
            node_malformed(node, message);
        take_whole(node, fetch, bytes, &theirs);
    } else {
        if (!fetch->gathering)
            node_malformed(node, message);
        fetch_take_diffs(node, fetch, message, &body, tag, &theirs);
    }
    vector_clear(&theirs, &node->pool);
    if (fetch->awaited == 0)
        fetch_continue(node, fetch);
}

void fetch_receive_reply(struct node *node, struct message *message)
{
    struct reader reader = message_reader(message);
    for (uint32_t i = 0, count = message_header(message)->count; i < count && !reader.bad; i++)
        receive_page(node, message, &reader);
    if (!reader_ended(&reader))
        node_malformed(node, message);
}

/* ---- serving ------------------------------------------------------------------------------------------------- */

struct request {
    uint32_t flags;
    uint64_t page;
    stamp since;
    bool passed_cut;                /* the reader has passed all cuts that this node has */
    struct region *region;          /* NULL: freed here in the meantime, as it will be there */
    struct vector have;
};

static struct request read_want(struct node *node, const struct message *message, struct reader *reader, uint64_t cuts)
{
    struct request request = {.passed_cut = cuts >= node->cuts, .region = region_find(&node->regions, reader_u32(reader))};
    request.flags = reader_u32(reader);
    request.page = reader_u64(reader);
    request.since = reader_u64(reader);
    if (request.flags & FETCH_WHOLE_OK)
        reader_vector(reader, &node->pool, node->size, node->collection.floor, &request.have);
    if (reader->bad || (request.region && request.page >= request.region->pages))
        node_malformed(node, message);
    return request;
}

uint64_t fetch_diffs_since(const struct page *page, stamp since, uint32_t *count)
{
    uint64_t bytes = 0;
    *count = 0;
    for (const struct diff *diff = page_diffs_after(page, since); diff; diff = diff->next) {
        bytes += diff->bytes + 2 * sizeof(uint64_t);
        ++*count;
    }
    return bytes;
}

void fetch_put_diffs(struct node *node, struct message *reply, struct page *page, stamp since, uint32_t count)
{
    message_put_u32(reply, &node->pool, count);
    for (const struct diff *diff = page_diffs_after(page, since); diff; diff = diff->next) {
        message_put_u64(reply, &node->pool, diff->tag);
        message_put_u64(reply, &node->pool, diff->bytes);
        message_put_bytes(reply, &node->pool, diff->body, diff->bytes);
        node->stats.diff_bytes_served += diff->bytes;
        page_region(page)->stats.diff_bytes_served += diff->bytes;
    }
    node->stats.diffs_served += count;
    page_region(page)->stats.diffs_served += count;
}

/* What the page has here.  With diffs only what is above the last cut, if the reader has passed it, too: the rest was named
 * to it by notices.  So k writers of one page cost their reader k vectors of one entry, not k of k. */
void fetch_put_have(struct node *node, struct message *reply, const struct page *page, bool above_cut)
{
    uint32_t count = 0;
    uint64_t count_at = reply->wire_bytes;
    message_put_u32(reply, &node->pool, 0);
    for (uint32_t i = 0; i < page->have.count; i++) {
        struct vector_entry entry = vector_at(&page->have, i);
        if (above_cut && entry.stamp <= node->cut[entry.node])
            continue;
        message_put_u32(reply, &node->pool, (uint32_t)entry.node);
        message_put_u64(reply, &node->pool, entry.stamp);
        count++;
    }
    memcpy(reply->wire + count_at, &count, sizeof count);
}

/* The page is protected already.  What is sent of a page pinned for writing is its snapshot. */
static void put_page(struct node *node, struct message *reply, struct page *page, const struct request *request)
{
    stamp tag = page_seal(node, page);
    if (request->flags & FETCH_SUBSCRIBE)
        history_subscribe(page, &node->pool, reply->peer, tag);
    history_sent(page, reply->peer, tag);
    uint32_t count;
    uint64_t bytes = fetch_diffs_since(page, request->since, &count);
    bool whole = (request->flags & FETCH_WHOLE_MUST) ||
                 ((request->flags & FETCH_WHOLE_OK) && vector_covers(&page->have, &request->have, reply->peer) &&
                  ((request->flags & FETCH_WHOLE_LIKED) || bytes >= page_region(page)->page_bytes));
    message_put_u32(reply, &node->pool, page_region(page)->id);
    message_put_u32(reply, &node->pool, whole ? FETCH_WHOLE : 0);
    message_put_u64(reply, &node->pool, page_index(page));
    uint64_t size_at = reply->wire_bytes;
    message_put_u64(reply, &node->pool, 0);
    message_put_u64(reply, &node->pool, tag);
    fetch_put_have(node, reply, page, !whole && request->passed_cut);
    if (whole) {
        /* What stays open is served from the snapshot that is its twin. */
        bool snapshot = page_stays_open(page) || page->writable;
        const unsigned char *source = snapshot ? page->twin : node->port.view + page_offset(page);
        message_put_bytes(reply, &node->pool, source, page_region(page)->page_bytes);
        node->stats.pages_served++;
        page_region(page)->stats.pages_served++;
    } else {
        fetch_put_diffs(node, reply, page, request->since, count);
    }
    uint64_t size = reply->wire_bytes - size_at - 2 * sizeof(uint64_t);
    memcpy(reply->wire + size_at, &size, sizeof size);
    message_header(reply)->count++;
    node_event(node, EVENT_SERVE, page, tag, reply->peer);
}

static struct page *page_to_serve(struct node *node, const struct message *message, const struct request *request)
{
    struct page *page = region_page(request->region, &node->pool, request->page);
    if (!page->copy)
        node_panic(node, "rank %d asked for page %llu of region %u, which is not here (R13)", message->peer,
                   (unsigned long long)request->page, request->region->id);
    return page;
}

void fetch_receive_want(struct node *node, const struct message *message)
{
    uint32_t count = message_header(message)->count;
    struct reader reader = message_reader(message);
    uint64_t cuts = reader_u64(&reader);
    struct reader wants = reader;
    /* All are protected first, neighbours by one call, and cut afterwards (R4). */
    for (uint32_t i = 0; i < count; i++) {
        struct request request = read_want(node, message, &reader, cuts);
        if (request.region && !(request.flags & FETCH_STOP))
            page_shut(node, page_to_serve(node, message, &request));
        vector_clear(&request.have, &node->pool);
    }
    if (!reader_ended(&reader))
        node_malformed(node, message);
    page_protect_flush(node);
    struct message *reply = NULL;
    for (uint32_t i = 0; i < count; i++) {
        struct request request = read_want(node, message, &wants, cuts);
        if (request.region && (request.flags & FETCH_STOP)) {
            history_unsubscribe(region_page(request.region, &node->pool, request.page), message->peer);
        } else if (request.region) {
            if (!reply)
                reply = message_new(&node->pool, message->peer, MESSAGE_REPLY, RING_NEVER,
                                    request.region->page_bytes + 256);
            struct page *page = page_to_serve(node, message, &request);
            put_page(node, reply, page, &request);
            if (page_valid(page) && node_chance(node, node->policy.stay_open_permille) && page_open(node, page))
                page_protect(node, page, ACCESS_WRITE);
            if (reply->wire_bytes >= FETCH_PIECE_BYTES) {
                node_send(node, reply);
                reply = NULL;
            }
        }
        vector_clear(&request.have, &node->pool);
    }
    if (reply)
        node_send(node, reply);
}
