/* A reply is believed only where a fetch awaits it. */
#include "protocol/coherence/reply.h"

#include "protocol/coherence/bulk.h"
#include "protocol/coherence/fetch.h"
#include "protocol/coherence/wire.h"
#include "protocol/page/history.h"
#include "protocol/page/region.h"

/* ---- taking in -------------------------------------------------------------------------------------------------- */

/* The fetch of this page that awaits the reply. */
static struct fetch *awaiting(struct node *node, const struct message *message, const struct reply_run *run, uint64_t k)
{
    struct fetch *fetch = page_fetch(region_page(run->region, &node->pool, run->first + k));
    if (!fetch || !fetch->awaited)
        context_malformed(node, message);
    context_assert(node, !fetch->postponed, "reply: a postponed fetch awaits a reply");
    return fetch;
}

static void take_whole(struct node *node, struct fetch *fetch, const unsigned char *bytes, const struct vector *theirs)
{
    struct page *page = fetch->page;
    page_region(page)->stats[node->me].pages_received++;
    bool fits = install_whole(node, page, bytes, theirs);
    fetch->gathering = false;
    if (!fits)
        fetch->diffs_only = true;
    context_assert(node, !page->arriving, "reply: a page arrived and was not installed");
    if (!fits || !page_valid(page))
        page->shared_writing = true;
}

static void receive_diffs(struct node *node, struct message *message, struct reply_run *run)
{
    struct reader *body = &run->body;
    struct fetch *fetch = awaiting(node, message, run, 0);
    struct vector theirs = {0};
    stamp tag = reader_u64(body);
    wire_read_have(node, body, &theirs);
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
        page_put(node->port, segment->offset, bytes, segment->bytes);
        bytes = node->port->view + segment->offset;
    }
    run->body.end -= wire_bytes;
    for (uint64_t k = 0; k < run->pages; k++, bytes += page_bytes) {
        struct fetch *fetch = awaiting(node, message, run, k);
        struct vector theirs = {0};
        wire_read_have(node, &run->body, &theirs);
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
    struct reader reader = reader_of(message);
    uint32_t segments = 0;
    for (uint32_t i = 0, count = message_header(message)->count; i < count; i++) {
        struct reply_run run = wire_read_run(node, message, &reader);
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
            node->port->discard(node->port->context, segment->offset, segment->bytes);
    }
    if (!reader_ended(&reader) || segments != message->segment_count)
        context_malformed(node, message);
    if (node->deferred)
        node->redeliver = true; /* requests for pages that have arrived now */
}

/* ---- placing ---------------------------------------------------------------------------------------------------- */

static bool fits_in_place(struct node *node, struct reply_run *run)
{
    for (uint64_t k = 0; k < run->pages; k++) {
        const struct page *page = region_page(run->region, &node->pool, run->first + k);
        struct vector theirs = {0};
        wire_read_have(node, &run->body, &theirs);
        const struct fetch *fetch = page_fetch(page);
        bool awaited = fetch && fetch->awaited == 1 && fetch->part_count == 0 && !page->arriving;
        /* A thread may read it meanwhile; writes that the sender lacks would be missing until all has come (H9). */
        bool kept = !page->readers || !page_diffs_after(page, vector_get(&theirs, node->number));
        bool unwritten = !page->twin && !page->writers;
        bool fits = awaited && kept && unwritten && (!page->copy || vector_covers(&theirs, &page->have, node->number));
        vector_clear(&theirs, &node->pool);
        if (!fits)
            return false;
    }
    return true;
}

/* MPI writing to it would make its memory page by page, by faults that zero what is written next.  A copy costs
 * less. */
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
    if (in_place) {
        segment.offset = region->offset + run->first * region->page_bytes;
        segment.at =
            segment.untouched ? pool_take_persistent(&node->pool, segment.bytes) : node->port->view + segment.offset;
        for (uint64_t k = 0; k < run->pages; k++) {
            struct page *page = region_page(region, &node->pool, run->first + k);
            context_assert(node, page->mode == PAGE_CLOSED, "reply: a page is received over an open one (R15)");
            context_assert(node, !page->extension->deferred_tag,
                           "reply: a page is received over one whose diff is not encoded (R4)");
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
    struct reader reader = reader_of(message);
    uint64_t bytes = 0;
    for (uint32_t i = 0, count = message_header(message)->count; i < count; i++) {
        struct reply_run run = wire_read_run(node, message, &reader);
        if (!(run.flags & FETCH_BULK))
            continue;
        bytes += run.bulk;
        if (message->segment_count == MESSAGE_SEGMENTS_MAX || bytes > node->port->range_bytes)
            context_malformed(node, message);
        place_run(node, message, &run);
    }
    if (!reader_ended(&reader) || message->segment_count == 0)
        context_malformed(node, message);
}
