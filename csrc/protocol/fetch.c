/* Requests that leave a node at the same moment for the same peer travel in one message, and so do the answers, in pieces
 * of a bounded size; nothing else here knows of messages with more than one page. */
#include "protocol/fetch.h"

#include <string.h>

#include "protocol/node.h"

/* ---- asking -------------------------------------------------------------------------------------------------- */

/* The request to this peer that has not left yet, or a new one: as many pages as an answer holds, so that the answer to the
 * first request is on its way while the next one is read. */
static struct message *request_to(struct node *node, node_id peer, uint64_t page_bytes)
{
    uint32_t most = page_bytes < FETCH_PIECE_BYTES ? (uint32_t)(FETCH_PIECE_BYTES / page_bytes) : 1;
    for (struct message *message = node->outbox; message; message = message->next)
        if (message->peer == peer && message_header(message)->kind == MESSAGE_FETCH &&
            message_header(message)->count < most)
            return message;
    struct message *message =
        message_new(&node->pool, peer, MESSAGE_FETCH, RING_NEVER, 256); /* so far it asks for none */
    message_put_u64(message, &node->pool, node->cuts);
    context_send(node, message);
    return message;
}

static void wire_put_request(struct node *node, struct message *message, const struct page *page, stamp since,
                             uint32_t flags)
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
        context_panic(node, "page %llu of region %u: would be fetched from this node itself",
                      (unsigned long long)page_index(page), page_region(page)->id);
    if (fetch->subscribes) {
        flags |= FETCH_SUBSCRIBE;
        history_of(page, &node->pool)->subscribed = true;
    }
    struct message *message = request_to(node, peer, page_region(page)->page_bytes);
    message->ring = RING_LATER;
    wire_put_request(node, message, page, context_known(node, &fetch->have, peer), flags);
    if (flags & FETCH_WHOLE_OK)
        message_put_vector(message, &node->pool, &page->have);
    if (page_untouched(page) && node->port.expect)
        node->port.expect(node->port.context, page_offset(page), page_region(page)->page_bytes);
    fetch->awaited++;
    fetch->peer = peer;
    node->stats.fetch_requests++;
    page_region(page)->stats.fetch_requests++;
    context_event(node, EVENT_FETCH, page, 0, peer);
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
static bool prefers_whole(struct node *node, const struct fetch *fetch, uint32_t writers)
{
    switch (node->policy.whole) {
    case WHOLE_NEVER: return false;
    case WHOLE_ALWAYS: return true;
    case WHOLE_RANDOM: return context_chance(node, 500);
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
            context_panic(node, "page %llu of region %u: no copy here and no owner",
                          (unsigned long long)page_index(page), page_region(page)->id);
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
    else if (prefers_whole(node, fetch, writers))
        want(node, fetch, latest, FETCH_WHOLE_OK | FETCH_PREFER_WHOLE);
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
    bool written = page->twin || page->writable || page_pinned_write(page);
    page_fill(page, &node->port);
    page->fresh = false;
    if (fetch->part_count)
        page_twin_own(page, &node->pool);
    sort_parts(fetch->parts, fetch->part_count);
    for (uint32_t i = 0; i < fetch->part_count; i++) {
        const struct fetch_part *part = &fetch->parts[i];
        if (written)
            diff_apply_under(bytes, page->twin, part->body, part->bytes);
        else
            diff_apply(bytes, part->body, part->bytes);
        if (page->twin)
            diff_apply(page->twin, part->body, part->bytes);
        context_event(node, EVENT_APPLY, page, part->tag, part->node);
    }
    drop_parts(node, fetch);
    stamp mine = vector_get(&page->have, node->rank), needed = vector_get(&page->need, node->rank);
    vector_copy(&page->have, &node->pool, &fetch->have);
    vector_raise(&page->have, &node->pool, node->rank, mine > needed ? mine : needed);
    fetch->gathering = false;
}

/* The own diffs that the sender of a whole page does not have, and then what was written since (`own`), go on top (R6). */
static void build_on(struct page *page, unsigned char *built, stamp known, const unsigned char *own, uint64_t own_bytes)
{
    for (const struct diff *diff = page_diffs_after(page, known); diff; diff = diff->next)
        diff_apply(built, diff->body, diff->bytes);
    if (own) {
        memcpy(page->twin, built, page_region(page)->page_bytes);
        diff_apply(built, own, own_bytes);
    }
}

/* A page that threads may be reading meanwhile (pinned, or brought before they may see its new version) is built beside its
 * place: no byte of it may be what it was before something was written here, not even for a moment. */
static bool install(struct node *node, struct page *page, const unsigned char *bytes, const struct vector *have)
{
    if (page_pinned_write(page) || (page->copy && !vector_covers(have, &page->have, node->rank)))
        return false;
    struct pool *pool = &node->pool;
    uint64_t page_bytes = page_region(page)->page_bytes;
    unsigned char *view = node->port.view + page_offset(page), *own = NULL;
    uint64_t own_bytes = 0, room = diff_bytes_max(page_bytes);
    stamp known = vector_get(have, node->rank), mine = vector_get(&page->have, node->rank);
    bool beside = page->access != ACCESS_NONE && (page->twin || page_diffs_after(page, known));
    unsigned char *built = beside ? pool_take(pool, page_bytes) : view;
    if (page->twin) {
        page_twin_own(page, pool);
        own = pool_take(pool, room);
        own_bytes = diff_encode(view, page->twin, page_bytes, page_bytes, own);
    }
    if (built == view && built != bytes && page_untouched(page))
        page_put(&node->port, page_offset(page), bytes, page_bytes);
    else if (built != bytes)
        memcpy(built, bytes, page_bytes);
    build_on(page, built, known, own, own_bytes);
    if (own)
        pool_give(pool, own, room);
    if (beside) {
        memcpy(view, built, page_bytes);
        pool_give(pool, built, page_bytes);
    }
    page->copy = true;
    page->fresh = page->arriving = false;
    vector_copy(&page->have, pool, have);
    vector_raise(&page->have, pool, node->rank, mine);
    context_event(node, EVENT_INSTALL, page, 0, NODE_NONE);
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
    fetch->page->extension->fetch = NULL;
    page_tidy(fetch->page, &node->pool);
    node->postponed -= fetch->postponed;
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
    bool watched = page->marker || (page_history(page) && page_history(page)->probe);
    if (page->access == ACCESS_NONE && !(fetch->ahead && watched))
        protection_set(node, page, ACCESS_READ);
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
            context_panic(node, "page %llu of region %u: stale, and nobody to ask",
                          (unsigned long long)page_index(page), page_region(page)->id);
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
    page_extension(page, &node->pool)->fetch = fetch;
    return fetch;
}

static void fetch_begin(struct node *node, struct fetch *fetch)
{
    seal_encode_deferred(node, fetch->page);
    const struct page_history *history = page_history(fetch->page);
    if (history && history->pushes)
        pushed_use(node, fetch);
    fetch_continue(node, fetch);
}

/* Not while the page is being sent. */
static void fetch_begin_or_postpone(struct node *node, struct fetch *fetch)
{
    fetch->postponed = bulk_leaves(node, fetch->page);
    if (fetch->postponed) {
        node->postponed++;
        node->send_blocked = true;
        return;
    }
    fetch_begin(node, fetch);
}

void fetch_start(struct node *node, struct page *page, bool ahead)
{
    fetch_begin_or_postpone(node, fetch_new(node, page, ahead));
}

void fetch_start_update(struct node *node, struct page *page, bool subscribes)
{
    struct fetch *fetch = fetch_new(node, page, true);
    fetch->wanted = true;
    fetch->subscribes = subscribes;
    node->wanted.under_way++;
    node->wanted.bytes += page_region(page)->page_bytes;
    fetch_begin_or_postpone(node, fetch);
}

void fetch_stop_pushes(struct node *node, struct page *page)
{
    page_history(page)->subscribed = false;
    for (uint32_t i = 0; i < page->need.count; i++) {
        node_id writer = vector_at(&page->need, i).node;
        if (writer != node->rank)
            wire_put_request(node, request_to(node, writer, page_region(page)->page_bytes), page, 0, FETCH_STOP);
    }
}

void fetch_resume(struct node *node)
{
    for (struct fetch *fetch = node->fetches, *next; fetch && node->postponed; fetch = next) {
        next = fetch->next;
        if (!fetch->postponed || bulk_leaves(node, fetch->page))
            continue;
        fetch->postponed = false;
        node->postponed--;
        fetch_begin(node, fetch);
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

void install_take_diffs(struct node *node, struct fetch *fetch, struct message *message, struct reader *reader,
                        stamp tag, const struct vector *theirs)
{
    struct page *page = fetch->page;
    uint32_t count = reader_u32(reader);
    for (uint32_t i = 0; i < count && !reader->bad; i++) {
        struct fetch_part part = {.node = message->peer, .message = message};
        part.tag = reader_u64(reader);
        part.bytes = reader_u64(reader);
        part.body = reader_bytes(reader, part.bytes);
        if (reader->bad || !diff_valid(part.body, part.bytes, page_region(page)->page_bytes))
            context_malformed(node, message);
        if (part.tag <= context_known(node, &fetch->have, message->peer))
            continue;
        keep_part(node, fetch, part);
        node->stats.diffs_received++;
        node->stats.diff_bytes_received += part.bytes;
        page_region(page)->stats.diffs_received++;
        page_region(page)->stats.diff_bytes_received += part.bytes;
    }
    if (!reader_ended(reader))
        context_malformed(node, message);
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

struct reply_run {
    uint32_t flags;
    uint64_t first, pages, bytes, bulk;
    struct region *region; /* NULL: freed in the meantime */
    struct reader body;
};

/* A run that does not fit its region is not believed; of one whose region is gone only the lengths count. */
static struct reply_run read_run(struct node *node, const struct message *message, struct reader *reader)
{
    struct reply_run run = {.region = region_find(&node->regions, reader_u32(reader))};
    run.flags = reader_u32(reader);
    run.first = reader_u64(reader);
    run.pages = reader_u64(reader);
    run.bytes = reader_u64(reader);
    run.bulk = reader_u64(reader);
    run.body = *reader;
    if (reader_bytes(reader, run.bytes))
        run.body.end = run.body.at + run.bytes;
    bool bulk = run.flags & FETCH_BULK;
    const struct region *region = run.region;
    if (reader->bad || run.pages == 0 || (!(run.flags & FETCH_WHOLE) && (run.pages > 1 || bulk)) ||
        bulk != (run.bulk > 0) || run.bulk > BULK_BYTES_MAX || run.bulk > node->port.range_bytes ||
        (region && (run.first >= region->pages || run.pages > region->pages - run.first ||
                    (bulk && run.bulk != run.pages * region->page_bytes))))
        context_malformed(node, message);
    return run;
}

/* The fetch of this page that awaits the reply. */
static struct fetch *awaiting(struct node *node, const struct message *message, const struct reply_run *run, uint64_t k)
{
    struct fetch *fetch = page_fetch(region_page(run->region, &node->pool, run->first + k));
    if (!fetch || !fetch->awaited)
        context_malformed(node, message);
    return fetch;
}

static void read_have(struct node *node, struct reader *reader, struct vector *have)
{
    reader_vector(reader, &node->pool, node->size, node->collection.floor, have);
}

static void receive_diffs(struct node *node, struct message *message, struct reply_run *run)
{
    struct reader *body = &run->body;
    struct fetch *fetch = awaiting(node, message, run, 0);
    struct vector theirs = {0};
    stamp tag = reader_u64(body);
    read_have(node, body, &theirs);
    if (body->bad || !fetch->gathering || fetch->page->arriving)
        context_malformed(node, message);
    fetch->awaited--;
    install_take_diffs(node, fetch, message, body, tag, &theirs);
    vector_clear(&theirs, &node->pool);
    if (fetch->awaited == 0)
        fetch_continue(node, fetch);
}

/* The bytes lie in the message, behind the vectors, or where they were placed. */
static void receive_whole(struct node *node, struct message *message, struct reply_run *run,
                          const struct segment *segment)
{
    uint64_t page_bytes = run->region->page_bytes, wire_bytes = segment ? 0 : run->pages * page_bytes;
    if (reader_left(&run->body) < wire_bytes)
        context_malformed(node, message);
    const unsigned char *bytes = segment ? segment->at : run->body.end - wire_bytes;
    if (segment && segment->untouched) {
        page_put(&node->port, segment->offset, bytes, segment->bytes);
        bytes = node->port.view + segment->offset;
    }
    run->body.end -= wire_bytes;
    for (uint64_t k = 0; k < run->pages; k++, bytes += page_bytes) {
        struct fetch *fetch = awaiting(node, message, run, k);
        struct vector theirs = {0};
        read_have(node, &run->body, &theirs);
        if (run->body.bad || fetch->page->arriving != (segment && segment->in_place))
            context_malformed(node, message);
        fetch->awaited--;
        take_whole(node, fetch, bytes, &theirs);
        vector_clear(&theirs, &node->pool);
        if (fetch->awaited == 0)
            fetch_continue(node, fetch);
    }
    if (!reader_ended(&run->body))
        context_malformed(node, message);
}

void reply_receive(struct node *node, struct message *message)
{
    struct reader reader = message_reader(message);
    uint32_t segments = 0;
    for (uint32_t i = 0, count = message_header(message)->count; i < count; i++) {
        struct reply_run run = read_run(node, message, &reader);
        const struct segment *segment = NULL;
        if (run.flags & FETCH_BULK) {
            if (segments == message->segment_count)
                context_malformed(node, message);
            segment = &message->segments[segments++];
        }
        if (run.region && (run.flags & FETCH_WHOLE))
            receive_whole(node, message, &run, segment);
        else if (run.region)
            receive_diffs(node, message, &run);
        else if (segment && segment->in_place) /* the region was freed while they arrived */
            node->port.discard(node->port.context, segment->offset, segment->bytes);
    }
    if (!reader_ended(&reader) || segments != message->segment_count)
        context_malformed(node, message);
    if (segments)
        node->redeliver = true; /* requests for pages that have arrived now */
}

/* ---- where pages arrive -------------------------------------------------------------------------------------- */

static bool fits_in_place(struct node *node, struct reply_run *run)
{
    for (uint64_t k = 0; k < run->pages; k++) {
        const struct page *page = region_page(run->region, &node->pool, run->first + k);
        struct vector theirs = {0};
        read_have(node, &run->body, &theirs);
        const struct fetch *fetch = page_fetch(page);
        bool awaited = fetch && fetch->awaited == 1 && fetch->part_count == 0 && !page->arriving;
        /* Who may read it meanwhile would miss what its sender lacks, which goes on top only when all has come. */
        bool kept = history_coming(page) && !page_diffs_after(page, vector_get(&theirs, node->rank));
        bool unseen = !page->twin && !page_pinned(page) && (page->access == ACCESS_NONE || kept);
        bool fits = awaited && unseen && (!page->copy || vector_covers(&theirs, &page->have, node->rank));
        vector_clear(&theirs, &node->pool);
        if (!fits)
            return false;
    }
    return true;
}

/* MPI writing to it would make its memory page by page, by faults that zero what is written next.  A copy costs less. */
static bool untouched(struct node *node, const struct reply_run *run)
{
    uint64_t k = 0;
    while (k < run->pages && page_untouched(region_page(run->region, &node->pool, run->first + k)))
        k++;
    return k == run->pages;
}

static void place_run(struct node *node, struct message *message, struct reply_run *run)
{
    struct region *region = run->region;
    bool in_place = region && fits_in_place(node, run);
    struct segment segment = {.bytes = run->bulk, .in_place = in_place, .untouched = in_place && untouched(node, run)};
    segment.offset = region ? region->offset + run->first * region->page_bytes : SEGMENT_NOWHERE;
    if (in_place) {
        segment.at =
            segment.untouched ? pool_take_persistent(&node->pool, segment.bytes) : node->port.view + segment.offset;
        for (uint64_t k = 0; k < run->pages; k++) {
            struct page *page = region_page(region, &node->pool, run->first + k);
            page->copy = page->fresh = false;
            page->arriving = true;
        }
    } else {
        segment.at = pool_take_persistent(&node->pool, segment.bytes);
    }
    *message_segment(message, &node->pool) = segment;
}

void reply_place(struct node *node, struct message *message)
{
    struct reader reader = message_reader(message);
    uint64_t bytes = 0;
    for (uint32_t i = 0, count = message_header(message)->count; i < count; i++) {
        struct reply_run run = read_run(node, message, &reader);
        if (!(run.flags & FETCH_BULK))
            continue;
        bytes += run.bulk;
        if (message->segment_count == MESSAGE_SEGMENTS_MAX || bytes > node->port.range_bytes)
            context_malformed(node, message);
        place_run(node, message, &run);
    }
    if (!reader_ended(&reader) || message->segment_count == 0)
        context_malformed(node, message);
}

/* ---- serving ------------------------------------------------------------------------------------------------- */

struct request {
    uint32_t flags;
    uint64_t page;
    stamp since;
    bool passed_cut;       /* the reader has passed all cuts that this node has */
    struct region *region; /* NULL: freed here in the meantime, as it will be there */
    struct vector have;
};

static struct request wire_read_request(struct node *node, const struct message *message, struct reader *reader,
                                        uint64_t cuts)
{
    struct request request = {.passed_cut = cuts >= node->cuts,
                              .region = region_find(&node->regions, reader_u32(reader))};
    request.flags = reader_u32(reader);
    request.page = reader_u64(reader);
    request.since = reader_u64(reader);
    if (request.flags & FETCH_WHOLE_OK)
        reader_vector(reader, &node->pool, node->size, node->collection.floor, &request.have);
    if (reader->bad || (request.region && request.page >= request.region->pages))
        context_malformed(node, message);
    return request;
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
        node->stats.diff_bytes_served += diff->bytes;
        page_region(page)->stats.diff_bytes_served += diff->bytes;
    }
    node->stats.diffs_served += count;
    page_region(page)->stats.diffs_served += count;
}

/* What the page has here.  With diffs only what is above the last cut, if the reader has passed it, too: the rest was named
 * to it by notices.  So k writers of one page cost their reader k vectors of one entry, not k of k. */
void wire_put_have(struct node *node, struct message *reply, const struct page *page, bool above_cut)
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

/* A reply that is being put together; its last run is open while whole pages may follow. */
struct reply {
    struct message *message;  /* NULL: none has begun */
    uint64_t run_at;          /* of the run's head in the wire */
    const struct page *first; /* of the open run; NULL: none is open */
    uint64_t pages, bulk;     /* in the open run; bytes behind the wire */
};

enum { RUN_HEAD_BYTES = 2 * sizeof(uint32_t) + 4 * sizeof(uint64_t) };

static void begin_run(struct node *node, struct reply *reply, const struct page *page)
{
    reply->run_at = reply->message->wire_bytes;
    reply->first = page;
    reply->pages = 0;
    message_space(reply->message, &node->pool, RUN_HEAD_BYTES);
    message_header(reply->message)->count++;
}

static void end_run(struct reply *reply, uint32_t flags, uint64_t bytes_behind)
{
    unsigned char *at = reply->message->wire + reply->run_at;
    uint64_t bytes = reply->message->wire_bytes - reply->run_at - RUN_HEAD_BYTES;
    uint64_t numbers[] = {page_index(reply->first), reply->pages, bytes, bytes_behind};
    memcpy(at, &page_region(reply->first)->id, sizeof(uint32_t));
    memcpy(at + sizeof(uint32_t), &flags, sizeof flags);
    memcpy(at + 2 * sizeof(uint32_t), numbers, sizeof numbers);
    reply->first = NULL;
}

static bool travels_in_bulk(struct node *node, const struct message *message, uint64_t bytes)
{
    if (message->segment_count == MESSAGE_SEGMENTS_MAX || bytes > BULK_BYTES_MAX)
        return false;
    switch (node->policy.bulk) {
    case BULK_NEVER: return false;
    case BULK_ALWAYS: return true;
    case BULK_RANDOM: return context_chance(node, 500);
    case BULK_AUTO: break;
    }
    return bytes >= BULK_BYTES_MIN || (node->port.copied_by && node->port.copied_by(node->port.context, message->peer));
}

/* Whole pages, if any are open: their bytes follow, in the wire or behind it. */
static void end_whole(struct node *node, struct reply *reply)
{
    if (!reply->first)
        return;
    uint64_t offset = page_offset(reply->first), bytes = reply->pages * page_region(reply->first)->page_bytes;
    if (travels_in_bulk(node, reply->message, bytes)) {
        bulk_put(node, reply->message, offset, bytes);
        reply->bulk += bytes;
        end_run(reply, FETCH_WHOLE | FETCH_BULK, bytes);
    } else {
        message_put_bytes(reply->message, &node->pool, node->port.view + offset, bytes);
        end_run(reply, FETCH_WHOLE, 0);
    }
}

/* What is sent of a page that stays open is the snapshot that is its twin.  That, and what this node is fetching itself, is
 * copied: it may change before it has been sent. */
static void put_whole(struct node *node, struct reply *reply, struct page *page)
{
    bool snapshot = page_stays_open(page) || page->writable, copied = snapshot || page_fetch(page);
    const struct page *first = reply->first;
    if (copied || !first || page_region(first) != page_region(page) ||
        page_index(first) + reply->pages != page_index(page)) {
        end_whole(node, reply);
        begin_run(node, reply, page);
    }
    wire_put_have(node, reply->message, page, false);
    reply->pages++;
    node->stats.pages_served++;
    page_region(page)->stats.pages_served++;
    if (copied) {
        const unsigned char *source = snapshot ? page->twin : node->port.view + page_offset(page);
        message_put_bytes(reply->message, &node->pool, source, page_region(page)->page_bytes);
        end_run(reply, FETCH_WHOLE, 0);
    }
}

/* Its last diff was as long as the page, or it is written for the first time.  If a few places have changed, so probably has
 * everything, and the diff need not be cut to know. */
static bool seems_rewritten(const struct node *node, const struct page *page)
{
    enum { PLACES = 4 };
    const unsigned char *now = node->port.view + page_offset(page);
    uint64_t bytes = page_region(page)->page_bytes, last = bytes / DIFF_BLOCK_BYTES - 1;
    const unsigned char *twin =
        page->twin || !page->extension ? page->twin : page->extension->before; /* sent whole to another */
    bool constant = twin == page_region(page)->constant;
    uint64_t twin_bytes = constant ? node->port.granule_bytes : bytes;
    if (!twin || !(page->served_whole || constant))
        return false;
    for (uint64_t i = 0; i < PLACES; i++) {
        uint64_t at = last * i / (PLACES - 1) * DIFF_BLOCK_BYTES;
        if (memcmp(now + at, twin + at % twin_bytes, DIFF_BLOCK_BYTES) == 0)
            return false;
    }
    return true;
}

/* Who asks for a whole page says what its copy has (in later rounds of a fetch it would be what the copy will have).  Where
 * there is nobody else, the diffs up to there are of no use any more, and where whole pages travel none is ever cut. */
static void drop_seen_diffs(struct node *node, struct page *page, const struct request *request)
{
    if (node->size == 2 && (request->flags & FETCH_WHOLE_OK))
        page_diffs_drop_until(page, &node->pool, request->since);
}

/* The page is protected already. */
static void put_page(struct node *node, struct reply *reply, struct page *page, const struct request *request)
{
    bool must = request->flags & FETCH_WHOLE_MUST;
    bool may = (request->flags & FETCH_WHOLE_OK) && vector_covers(&page->have, &request->have, reply->message->peer);
    bool liked = (request->flags & FETCH_PREFER_WHOLE) || seems_rewritten(node, page);
    bool whole = must || (may && liked);
    drop_seen_diffs(node, page, request);
    stamp tag = seal_page(node, page, whole);
    if (request->flags & FETCH_SUBSCRIBE)
        history_subscribe(page, &node->pool, reply->message->peer, tag);
    history_sent(page, reply->message->peer, tag);
    uint32_t count = 0;
    if (!whole)
        page->served_whole = whole = page_worth_whole(page, wire_diffs_since(page, request->since, &count)) && may;
    context_event(node, EVENT_SERVE, page, tag, reply->message->peer);
    if (whole) {
        put_whole(node, reply, page);
        return;
    }
    end_whole(node, reply);
    begin_run(node, reply, page);
    reply->pages = 1;
    message_put_u64(reply->message, &node->pool, tag);
    wire_put_have(node, reply->message, page, request->passed_cut);
    wire_put_diffs(node, reply->message, page, request->since, count);
    end_run(reply, 0, 0);
}

static void send_reply(struct node *node, struct reply *reply)
{
    if (reply->message) {
        end_whole(node, reply);
        context_send(node, reply->message);
    }
    *reply = (struct reply){0};
}

static uint64_t reply_bytes(const struct reply *reply)
{
    return reply->message->wire_bytes + reply->bulk +
           (reply->first ? reply->pages * page_region(reply->first)->page_bytes : 0);
}

static void serve(struct node *node, struct reply *reply, const struct message *message, const struct request *request)
{
    struct page *page = region_page(request->region, &node->pool, request->page);
    if (!reply->message)
        reply->message = message_new(&node->pool, message->peer, MESSAGE_REPLY, RING_NEVER, 256);
    put_page(node, reply, page, request);
    if (page_valid(page) && context_chance(node, node->policy.stay_open_permille)) {
        end_whole(node, reply);
        if (writes_open(node, page))
            protection_set(node, page, ACCESS_WRITE);
    }
    if (reply_bytes(reply) >= FETCH_PIECE_BYTES || reply->message->segment_count == MESSAGE_SEGMENTS_MAX)
        send_reply(node, reply);
}

/* False: it is arriving, and there is no copy yet. */
static bool shut_to_serve(struct node *node, const struct message *message, const struct request *request)
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

void serve_receive(struct node *node, struct message *message)
{
    uint32_t count = message_header(message)->count;
    struct reader reader = message_reader(message);
    uint64_t cuts = reader_u64(&reader);
    struct reader wants = reader;
    bool all = true;
    /* All are protected first, neighbours by one call, and cut afterwards (R4). */
    for (uint32_t i = 0; i < count; i++) {
        struct request request = wire_read_request(node, message, &reader, cuts);
        bool asks = request.region && !(request.flags & FETCH_STOP);
        if (asks && !shut_to_serve(node, message, &request))
            all = false;
        vector_clear(&request.have, &node->pool);
    }
    if (!reader_ended(&reader))
        context_malformed(node, message);
    protection_flush(node);
    if (!all) {
        context_defer(node, message);
        return;
    }
    struct reply reply = {0};
    for (uint32_t i = 0; i < count; i++) {
        struct request request = wire_read_request(node, message, &wants, cuts);
        if (request.region && (request.flags & FETCH_STOP))
            history_unsubscribe(region_page(request.region, &node->pool, request.page), message->peer);
        else if (request.region)
            serve(node, &reply, message, &request);
        vector_clear(&request.have, &node->pool);
    }
    send_reply(node, &reply);
}
